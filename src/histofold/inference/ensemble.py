"""Ensembles as files: which checkpoints, with which weights, threshold and instance settings, and how they scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from histofold.errors import DataError
from histofold.files import read_json, sha256, write_json
from histofold.inference.member import Member

FORMAT = 1


@dataclass(frozen=True)
class RunWeight:
    """A run and its weight among the runs."""

    run: str
    weight: float


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint of a run: `path` counts from `oof/<competition>`."""

    run: str
    fold: int
    path: str
    sha256: str


@dataclass(frozen=True)
class Ensemble:
    """What `evaluate` chose, and all that `predict` and `submit` need; kept as JSON.

    Attributes:
        competition, name: `oof/<competition>/ensembles/<name>.json`.
        metric: that the choice was made by.
        members: runs and weights; the folds of a run share its weight equally.
        folds: that were scored; `partial` when these are not all.
        bands: that the members share.
        checkpoints: one for each run and fold.
        threshold: of the foreground, or None where instances are decoded.
        instances: `name` and options of the decoder, or None.
        strata: stratum → `name` and options, for those strata that were given a setting of their own.
        size: that instances were magnified to in the OOF predictions (`predict.size`), as they will be in the test's.
        second: `sha256` and `gain` of the second level that replaces the decoder, where one does.
        score: optimistic, cross_fitted, interval, per_fold, per_stratum, per_run; `search` where weights were searched;
            `pruned` names the runs whose depth was chosen by their scores.
        threshold_curve: (threshold, score) pairs.
        extra: further metrics.
        created: time in UTC, ISO 8601.
    """

    competition: str
    name: str
    metric: str
    members: tuple[RunWeight, ...]
    folds: tuple[int, ...]
    partial: bool
    bands: tuple[str, ...]
    checkpoints: tuple[CheckpointFile, ...]
    threshold: float | None = None
    instances: dict[str, Any] | None = None
    strata: dict[str, dict[str, Any]] = field(default_factory=dict)
    size: float = 0.0
    second: dict[str, Any] | None = None
    score: dict[str, Any] = field(default_factory=dict)
    threshold_curve: tuple[tuple[float, float], ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))

    @staticmethod
    def place(oof: Path, competition: str, name: str) -> Path:
        """Where an ensemble lies below the folder `oof`."""
        return oof / competition / "ensembles" / f"{name}.json"

    def write(self, oof: Path) -> Path:
        """Write the file below `oof`, atomically; gives its path."""
        path = self.place(oof, self.competition, self.name)
        write_json(path, {"format": FORMAT, **asdict(self)})
        return path

    @classmethod
    def read(cls, path: Path) -> Ensemble:
        """Read an ensemble.

        Raises:
            DataError: no such file, another format, or keys are missing or unknown.
        """
        values = read_json(path)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            found = values.get("format") if isinstance(values, dict) else type(values).__name__
            raise DataError(f"{path}: expected an ensemble of format {FORMAT}, found {found!r}; run evaluate again")
        # Files that were written before strata had settings, there was a second level, or a size, have none.
        since: dict[str, Any] = {"strata": {}, "second": None, "size": 0.0}
        values = {**since, **{key: value for key, value in values.items() if key != "format"}}
        known = {item.name for item in fields(cls)}
        if set(values) != known:
            raise DataError(
                f"{path}: keys missing {sorted(known - set(values))}, unknown {sorted(set(values) - known)}; "
                "run evaluate again"
            )
        try:
            return cls(**_nested(values))
        except (TypeError, KeyError, ValueError) as error:
            raise DataError(f"{path}: damaged ({error}); run evaluate again") from error

    @staticmethod
    def second_place(oof: Path, competition: str, name: str) -> Path:
        """Where an ensemble's second level lies below the folder `oof`."""
        return oof / competition / "ensembles" / "second" / f"{name}.json"

    def second_path(self, oof: Path) -> Path | None:
        """File of the second level below `oof`, None where there is none.

        Raises:
            DataError: it is missing, or not the one that was scored.
        """
        if self.second is None:
            return None
        path = self.second_place(oof, self.competition, self.name)
        if not path.is_file() or sha256(path) != self.second["sha256"]:
            raise DataError(f"{path}: not the second level that {self.name} was scored with; run evaluate again")
        return path

    def decoder(self, stratum: str = "") -> dict[str, Any] | None:
        """`name` and options that instances of a stratum are decoded with: its own, else those of all; None: a mask."""
        return self.strata.get(stratum, self.instances)

    @property
    def optimism(self) -> str:
        """Why its score is no honest CV, in a few words; empty where it is one."""
        return optimism(self.folds, self.score.get("pruned") or ())

    def weights(self) -> list[float]:
        """Weight of each checkpoint, in order; they sum to 1.

        Raises:
            DataError: a run has a weight and no checkpoint, or the other way round.
        """
        by_run = {member.run: member.weight for member in self.members}
        counts = {run: sum(item.run == run for item in self.checkpoints) for run in by_run}
        strangers = {item.run for item in self.checkpoints} - set(by_run)
        empty = sorted(run for run, weight in by_run.items() if weight > 0 and counts[run] == 0)
        if strangers or empty:
            raise DataError(
                f"ensemble {self.name}: runs without checkpoints {empty}, checkpoints of other runs "
                f"{sorted(strangers)}; run evaluate again"
            )
        total = sum(weight for run, weight in by_run.items() if counts[run])
        return [by_run[item.run] / counts[item.run] / total for item in self.checkpoints]

    def load_members(self, oof: Path, device: str | torch.device = "cpu") -> tuple[list[Member], list[float]]:
        """Load each checkpoint into a module of its own, below the folder `oof`; gives members and their weights.

        Checkpoints of weight 0 are left out.

        Raises:
            DataError: a checkpoint is missing, or is not the one that was scored.
        """
        chosen = [(item, weight) for item, weight in zip(self.checkpoints, self.weights(), strict=True) if weight > 0]
        members = [Member.load(self._checked(oof, item), device, self.competition) for item, _ in chosen]
        return members, [weight for _, weight in chosen]

    def _checked(self, oof: Path, item: CheckpointFile) -> Path:
        path = oof / self.competition / item.path
        if not path.is_file():
            raise DataError(f"{path}: ensemble {self.name} needs this checkpoint and it is not there; train it again")
        if sha256(path) != item.sha256:
            raise DataError(
                f"{path}: not the checkpoint that ensemble {self.name} was scored with (it was trained again since); "
                "run evaluate again"
            )
        return path


def optimism(folds: Sequence[int], pruned: Sequence[str]) -> str:
    """Why the score of an ensemble is no honest CV, in a few words; empty where it is one.

    Args:
        folds: that were scored; one has no others to choose its settings.
        pruned: members whose depth was chosen by their scores.
    """
    if len(folds) == 1:
        return "chosen on itself: optimistic"
    return f"depth of {', '.join(pruned)} chosen on itself: optimistic" if pruned else ""


def checkpoints_of(oof: Path, competition: str, runs: Sequence[str], folds: Sequence[int]) -> list[CheckpointFile]:
    """Find and hash the `model.ckpt` of all runs and folds below `oof`.

    Raises:
        DataError: one is missing.
    """
    found = []
    for run in runs:
        for fold in folds:
            relative = f"{run}/fold{fold}/model.ckpt"
            path = oof / competition / relative
            if not path.is_file():
                raise DataError(f"{path}: no such checkpoint; train it with run={run} fold={fold}")
            found.append(CheckpointFile(run, fold, relative, sha256(path)))
    return found


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON's lists and dicts as the dataclasses and tuples they came from."""
    return {
        **values,
        "members": tuple(RunWeight(**item) for item in values["members"]),
        "checkpoints": tuple(CheckpointFile(**item) for item in values["checkpoints"]),
        "folds": tuple(values["folds"]),
        "bands": tuple(values["bands"]),
        "threshold_curve": tuple((float(x), float(y)) for x, y in values["threshold_curve"]),
    }
