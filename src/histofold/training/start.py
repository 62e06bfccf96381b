"""`train.start`: begin with weights that were learned before, and never with weights that saw what is held out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from histofold.config import Config
from histofold.errors import ConfigError, DataError
from histofold.inference import checkpoint
from histofold.inference.checkpoint import Spec
from histofold.training import state
from histofold.workspace import Workspace

LEAST = 0.5
"""Share of a network's tensors that the weights must bring; with fewer it is another network."""


def names(table: pd.DataFrame) -> pd.Series:
    """Every sample's id with its size: what a checkpoint says it has seen (ids alone are often 1, 2, 3)."""
    return table["sample_id"].astype(str) + " " + table["height"].astype(str) + "x" + table["width"].astype(str)


def path_of(config: Config, workspace: Workspace) -> Path | None:
    """The checkpoint of `train.start`: a file, or the same fold of a run of this competition.

    Raises:
        ConfigError: the run would start from itself.
    """
    start = config.train.start
    if start is None:
        return None
    if config.train.start_is_file():
        # compose.load has made it whole, unless it is a file below the root, or none.
        return Path(config.root, start)
    if start == config.run_name():
        raise ConfigError(f"train.start={start}: the run would start from itself; give it a name of its own with run=")
    return workspace.oof / start / f"fold{config.fold}" / "model.ckpt"


def leaked(table: pd.DataFrame, fold: int, seen: list[str]) -> pd.DataFrame:
    """Rows of samples that will be scored although they were seen, or another of their group was.

    What this fold's own training set has is learned from anyway, and so are the groups that it shares with test images.

    Args:
        table: folds.csv.
        fold: the one that is held out.
        seen: by `names`.
    """
    scored = (table["fold"] == fold) | (table["split"] != "train")
    own = ~scored & (table["fold"] >= 0)
    known = names(table).isin(seen)
    foreign = table.loc[known & ~own, "group"]
    return table[scored & (known | table["group"].isin(foreign))]


def check_unseen(path: Path, spec: Spec, table: pd.DataFrame, fold: int) -> list[str]:
    """Make sure that no sample that will be scored was seen, nor another of its group; gives what was.

    Args:
        path: of the checkpoint, for the message.
        spec: what the checkpoint says about itself.
        table: folds.csv.
        fold: the one that is held out.

    Raises:
        DataError: a score of this fold would be a score on training data, or the checkpoint does not say what it saw.
    """
    if "samples" not in spec.training:
        raise DataError(f"{path}: does not say which samples it was trained on; train it again with this version")
    seen: list[str] = spec.training["samples"]
    wrong = leaked(table, fold, seen)
    if not wrong.empty:
        first = str(wrong["sample_id"].iloc[0])
        raise DataError(
            f"train.start: {path} has seen {len(wrong)} of the samples that fold {fold} and the test set hold out, or "
            f"others of their groups ({first}, …): their scores would be worth nothing; start from a run with the same "
            "folds, or from one of other images"
        )
    return seen


@dataclass(frozen=True)
class Start:
    """Weights to begin with.

    Attributes:
        path: of the checkpoint.
        state: its tensors; none where the run goes on, as they are in its own by now.
        seen: the samples it was trained on (`names`), and those that it began with itself.
    """

    path: Path
    state: dict[str, torch.Tensor]
    seen: list[str]

    @classmethod
    def open(cls, config: Config, workspace: Workspace) -> Start | None:
        """The weights of `train.start`, or nothing.

        Raises:
            ConfigError: the run would start from itself.
            DataError: no such checkpoint, or it has seen what is held out.
        """
        path = path_of(config, workspace)
        if path is None:
            return None
        if config.train.start_is_file() and not path.is_file():
            places = dict.fromkeys([Path(str(config.train.start)).absolute(), path])
            raise DataError(f"train.start: no such file; looked for {' and '.join(map(str, places))}")
        spec, tensors = checkpoint.load(path)
        return cls(path, tensors, check_unseen(path, spec, workspace.folds(), config.fold))

    @classmethod
    def of(cls, config: Config, workspace: Workspace, folder: Path) -> Start | None:
        """What the fold in `folder` begins with; where it was begun, the checkpoint may be gone by now.

        Raises:
            ConfigError: the run would start from itself.
            DataError: no such checkpoint, it has seen what is held out, or `last.ckpt` is broken.
        """
        path, last = path_of(config, workspace), folder / "last.ckpt"
        if path is None or (folder / "model.ckpt").exists():
            return None
        seen = state.foreign(last) if last.exists() else None
        return cls.open(config, workspace) if seen is None else cls(path, {}, seen)

    def load_into(self, network: nn.Module) -> str:
        """Copy every tensor that fits by name and shape; gives a line that says which did not.

        Raises:
            DataError: it is another network.
        """
        own = network.state_dict()
        fitting = {key: value for key, value in self.state.items() if key in own and own[key].shape == value.shape}
        if len(fitting) < LEAST * len(own):
            raise DataError(
                f"train.start: {self.path} fits {len(fitting)} of the network's {len(own)} tensors: it is another "
                "network; give model=NAME and model.* as it was trained with"
            )
        network.load_state_dict(fitting, strict=False)
        fresh = [key for key in own if key not in fitting]
        new = f"; new: {', '.join(fresh[:3])}{', …' if len(fresh) > 3 else ''}" if fresh else ""
        return f"begins with {len(fitting)} of {len(own)} tensors of {self.path}{new}"


def samples_seen(table: pd.DataFrame, fold: int, start: Start | None) -> list[str]:
    """What the network of a fold will have seen: the training samples of the other folds, and its start's.

    Args:
        table: the rows of folds.csv that take part.
        fold: the one that is held out.
    """
    own = names(table[table["fold"] != fold]).tolist()
    return sorted({*own, *(start.seen if start else ())})
