"""The command that trains a fold of a saved run again, goes on with it, or makes its lost predictions anew."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from histofold import given
from histofold.errors import ConfigError
from histofold.identity import difference, identity

if TYPE_CHECKING:
    from histofold.evaluation.oof import Run

FREE_TO_PREDICT = ("batch", "device", "precision")
"""Settings of `predict.*` that change predictions by rounding alone."""

OF_EVALUATE = ("evaluate", "runs", "name", "folds")
"""Settings and groups that mean nothing to `train`, or something else (`folds`)."""


def train_again(run: Run, fold: int, like: int | None = None) -> str:
    """The command that trains a fold of a run, goes on with it or predicts it anew, with the run's own settings.

    They are taken from the configuration of that fold, else of one beside it; where they cannot be typed, or nothing
    is known of them, it says what is to be added.

    Args:
        like: another finished fold, which it is to be predicted like.
    """
    own = [f"run={run.name}", f"fold={fold}"]
    places = [number for number in (fold, *run.folds, *run.unfinished) if (run.fold(number) / "config.yaml").exists()]
    if not places:
        return f"`{typed('train', run.folder.parent.name, *own)}`"
    saved = run.config(places[0])
    if like is not None:
        saved = {**saved, "predict": run.config(like).get("predict") or {}}
    name = str((saved.get("competition") or {}).get("name") or run.folder.parent.name)
    try:
        settings, whole = _settings_of(saved, name, own)
    except ConfigError:
        settings, whole = [], False
    more = "" if whole else f" with the settings of {run.fold(places[0]) / 'config.yaml'}"
    if not whole and like is not None:
        more += f", predict.* as in {run.fold(like) / 'config.yaml'}"
    return f"`{typed('train', name, *own, *settings)}`{more}"


def _settings_of(saved: dict[str, Any], name: str, own: Sequence[str]) -> tuple[list[str], bool]:
    """Overrides that `train` needs beside the typed ones to be a saved run again, and whether they suffice.

    Raises:
        ConfigError: they cannot be composed.
    """
    # Imported here: only advice needs it.
    from histofold.compose import CONFIGS

    chosen: list[str] = []
    now = _composed(name, own)
    for group in ("model", "target", "loss"):
        theirs, mine = saved.get(group) or {}, now[group]
        choice = theirs.get("name", "default")
        if set(mine) - set(theirs) or mine.get("name") != theirs.get("name"):
            chosen += [f"{group}={choice}"] if (CONFIGS / group / f"{choice}.yaml").is_file() else []
    theirs, mine = _compared(saved), _compared(_composed(name, [*own, *chosen]))
    other = {key: value for key, value in theirs.items() if key not in mine or mine[key] != value}
    chosen += [f"{key}={given.typed_value(value)}" for key, value in other.items()]
    again = _composed(name, [*own, *chosen])
    mine = _compared(again)
    return chosen, difference(saved, again) is None and all(mine.get(key) == theirs[key] for key in theirs)


def _compared(values: dict[str, Any]) -> dict[str, Any]:
    """What makes a run what it is, and how its predictions are made."""
    how = {key: value for key, value in (values.get("predict") or {}).items() if key not in FREE_TO_PREDICT}
    return {**identity(values), **{f"predict.{key}": value for key, value in how.items()}}


def _composed(name: str, more: Sequence[str]) -> dict[str, Any]:
    """The configuration that the advised `train` command would have."""
    from histofold.compose import compose, load

    words = shlex.split(typed("train", name, *more))[2:]
    values = OmegaConf.to_container(OmegaConf.create(OmegaConf.to_yaml(OmegaConf.structured(load(compose(words))))))
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def typed(verb: str, competition: str, *more: str) -> str:
    """What was typed as a command line of another verb, without what only `evaluate` reads."""
    words = shlex.split(given.again(verb, competition, *more))
    return shlex.join(
        word for word in words if word in more or given.key_of(word).partition(".")[0] not in OF_EVALUATE
    )
