"""What made the OOF predictions: the very weights that the ensemble will use, and all folds of a run in one way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from histofold.errors import DataError
from histofold.evaluation.again import train_again
from histofold.evaluation.oof import Run
from histofold.evaluation.tune import Members
from histofold.given import typed_value
from histofold.inference.ensemble import CheckpointFile
from histofold.inference.predict import Origin, members_of, origin

SETTINGS = ("tile", "step", "margin", "window", "tta", "skip_background")
"""Settings of `predict.*` that the second part of a band file's tag is made of."""

Made = Mapping[Path, Origin]


def check(runs: Sequence[Run], members: Members, checkpoints: Sequence[CheckpointFile]) -> None:
    """Make sure that every OOF prediction is of its fold's `model.ckpt`, and those of a run are made in one way.

    Files of earlier versions, which do not say what made them, pass.

    Raises:
        DataError: the score would be one of other networks than predict uses, or of several ways to predict.
    """
    hashes = {(one.run, one.fold): one.sha256 for one in checkpoints}
    for at, run in enumerate(runs):
        paths = [bands.paths[at] for bands in members.bands]
        folds = dict(sorted(zip(paths, map(int, members.rows["fold"]), strict=True), key=lambda item: item[1]))
        made = {path: found for path in folds if (found := origin(path)) is not None}
        for fold in members.folds:
            own = {path: found for path, found in made.items() if folds[path] == fold}
            _weights(run, fold, own, hashes[run.name, fold])
        _alike(run, folds, made)


def _weights(run: Run, fold: int, made: Made, sha256: str) -> None:
    """Compare what made the predictions of a fold with its checkpoint."""
    known = members_of(sha256, _size(run, fold))
    others = [path for path, found in made.items() if found.members not in known]
    if others:
        raise DataError(
            f"{others[0]}: {len(others)} of {len(made)} OOF predictions of fold {fold} were made by other weights than "
            f"{run.fold(fold) / 'model.ckpt'}, which predict would use; delete {run.fold(fold) / 'scores.csv'}, then "
            f"{train_again(run, fold)} makes predictions and scores anew, without training; or put back the model.ckpt "
            "that made them"
        )


def _size(run: Run, fold: int) -> float:
    return float((run.config(fold).get("predict") or {}).get("size", 0.0))


def _alike(run: Run, folds: Mapping[Path, int], made: Made) -> None:
    """Compare how the predictions of a run were made, with those of its first fold."""
    if not made:
        return
    first = next(iter(made))
    other = next((path for path, found in made.items() if found.settings != made[first].settings), None)
    if other is None:
        return
    one, two = folds[first], folds[other]
    if setting := _setting(run, one, two):
        key, wanted, theirs = setting
        raise DataError(
            f"{run.fold(two)}: its OOF predictions were made with predict.{key}={theirs}, those of {run.fold(one)} "
            f"with {wanted}, but one cross-validation is of one way to predict; delete {run.fold(two) / 'scores.csv'}, "
            f"then {train_again(run, two, like=one)} makes predictions and scores anew, without training"
        )
    again = dict.fromkeys((one, two))
    raise DataError(
        f"{other}: was predicted with other predict.* than {first}, of which config.yaml says nothing; delete "
        f"{' and '.join(str(run.fold(fold) / 'scores.csv') for fold in again)}, then "
        f"{' and '.join(train_again(run, fold) for fold in again)} makes predictions and scores anew, without training"
    )


def _setting(run: Run, one: int, other: int) -> tuple[str, str, str] | None:
    """The first setting that the configurations of two folds predict with differently, with both values."""
    first, second = ((run.config(fold).get("predict") or {}) for fold in (one, other))
    key = next((key for key in SETTINGS if first.get(key) != second.get(key)), None)
    return None if key is None else (key, typed_value(first.get(key)), typed_value(second.get(key)))
