"""Runs on disk and their out-of-fold predictions: which there are, whether they are complete, and their average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from omegaconf import OmegaConf

from histofold.errors import DataError
from histofold.evaluation.again import train_again, typed
from histofold.inference.bandfile import BandFile
from histofold.targets.base import Band, in_common, unlike
from histofold.tiles.folds import TEXTS

MISSING = ["", "nan", "NaN", "NA"]
"""What stands for no number."""


@dataclass(frozen=True)
class Run:
    """One run folder `oof/<competition>/<run>`.

    Attributes:
        folds: those that are finished (weights, scores and predictions are there), sorted.
        unfinished: those that were begun only.
    """

    name: str
    folder: Path
    folds: tuple[int, ...]
    unfinished: tuple[int, ...]

    def fold(self, fold: int) -> Path:
        """Folder of one fold."""
        return self.folder / f"fold{fold}"

    def config(self, fold: int | None = None) -> dict[str, Any]:
        """The saved configuration of a fold, by default the first finished one's."""
        path = self.fold(self.folds[0] if fold is None else fold) / "config.yaml"
        values = OmegaConf.to_container(OmegaConf.load(path))
        if not isinstance(values, dict):
            raise DataError(f"{path}: expected the saved configuration of a run, found {type(values).__name__}")
        return {str(key): value for key, value in values.items()}

    def scores(self, metric: str | None = None) -> pd.DataFrame:
        """`scores.csv` of all finished folds, one row a sample.

        Args:
            metric: that `score` is to be, NaN where a fold was not scored by it; by default the one that it was scored
                with.
        """
        tables = [read_table(self.fold(fold) / "scores.csv") for fold in self.folds]
        return scored_by(pd.concat(tables, ignore_index=True), metric)


def read_table(path: Path) -> pd.DataFrame:
    """Read folds.csv or scores.csv: ids, strata and groups are texts, also `007` and `NA`; other empty cells are NaN.

    Raises:
        FileNotFoundError, pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError: it cannot be read.
    """
    numbers = [name for name in pd.read_csv(path, nrows=0).columns if name not in TEXTS]
    return pd.read_csv(path, dtype=TEXTS, keep_default_na=False, na_values=dict.fromkeys(numbers, MISSING))


def scored_by(table: pd.DataFrame, metric: str | None) -> pd.DataFrame:
    """A table of scores whose column `score` is a metric of it, NaN where it has none; as it is without a metric."""
    if metric is None:
        return table
    if metric == "f2_50" and {"found", "missed", "false"} <= set(table):
        table = table.assign(f2_50=_f2(table))
    # Another metric's score is none beside the others'.
    return table.assign(score=table.get(metric, np.nan))


def _f2(table: pd.DataFrame) -> pd.Series:
    """`f2_50` from the counts of objects: scores of earlier versions have no such column."""
    true, missed, false = 5.0 * table["found"], 4.0 * table["missed"], table["false"]
    return (true / (true + missed + false)).fillna(1.0)  # 0 / 0: an empty image that is left empty


def of_images(scores: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """A run's score of each row of `images` (`sample_id` and `fold`) in its order, NaN where there is none."""
    keys = ["sample_id", "fold"]
    known = scores[[*keys, "score"]].drop_duplicates(keys)
    return images[keys].merge(known, on=keys, how="left")


def find_runs(folder: Path) -> list[Run]:
    """All runs of a competition that have at least one fold folder, sorted by name."""
    runs = []
    for place in sorted(path for path in folder.glob("*") if path.is_dir() and path.name != "ensembles"):
        folds = sorted(int(path.name[4:]) for path in place.glob("fold*") if path.name[4:].isdigit())
        done = tuple(fold for fold in folds if (place / f"fold{fold}" / "scores.csv").exists())
        if folds:
            runs.append(Run(place.name, place, done, tuple(fold for fold in folds if fold not in done)))
    return runs


def find_run(folder: Path, name: str) -> Run:
    """One run that has a finished fold.

    Raises:
        DataError: there is no such run, or none of its folds is finished.
    """
    runs = {run.name: run for run in find_runs(folder)}
    if name not in runs:
        # Imported here: only what is mistyped needs it.
        from histofold.compose import nearest

        how = typed("train", folder.name, f"run={name}", "fold=0")
        raise DataError(
            f"{folder / name}: no such run{nearest(name, runs) or ';'} found {', '.join(runs) or 'none'}; a new one is "
            f"trained with `{how}`"
        )
    run = runs[name]
    if not run.folds:
        raise DataError(f"{run.folder}: no fold is finished yet; go on with {train_again(run, run.unfinished[0])}")
    return run


def predictions(run: Run, table: pd.DataFrame, folds: list[int]) -> dict[str, Path]:
    """The OOF prediction of every training sample of `folds`, each made by the network that did not see it.

    Args:
        table: folds.csv.

    Raises:
        DataError: a fold is not finished, or a sample has no prediction or more than one.
    """
    missing = [fold for fold in folds if fold not in run.folds]
    if missing:
        raise DataError(
            f"{run.folder}: fold {missing[0]} is not finished; train it with {train_again(run, missing[0])}, or "
            f"evaluate a partial CV with folds=[{','.join(map(str, run.folds))}]"
        )
    found: dict[str, Path] = {}
    for fold in run.folds:
        for path in sorted((run.fold(fold) / "predictions").glob("*.tif")):
            if path.stem in found:
                raise DataError(f"{path}: a second OOF prediction of this sample (also {found[path.stem]}); delete one")
            found[path.stem] = path
    wanted = table[(table["split"] == "train") & table["fold"].isin(folds)]
    for row in wanted.itertuples():
        there = found.get(str(row.sample_id))
        if there is not None and there.parent.parent.name != f"fold{row.fold}":
            raise DataError(
                f"{run.folder}: sample {row.sample_id} is in fold {row.fold}, but its OOF prediction is {there}; "
                "the folds were changed after training: train again or restore folds.csv"
            )
    lost = wanted[~wanted["sample_id"].astype(str).isin(set(found))]
    if len(lost):
        sample_id, fold = str(lost["sample_id"].iloc[0]), int(lost["fold"].iloc[0])
        trained = (run.fold(fold) / "model.ckpt").exists()
        raise DataError(
            f"{run.fold(fold) / 'predictions' / sample_id}.tif: no such file; {len(lost)} of {len(wanted)} OOF "
            f"predictions are lost; {train_again(run, fold)} "
            + (f"makes those of fold {fold} anew, without training" if trained else f"trains fold {fold} again")
        )
    return {str(sample_id): found[str(sample_id)] for sample_id in wanted["sample_id"]}


FOREGROUND, SPREAD = "foreground", "spread"
"""Bands; `spread` is the foreground's standard deviation over the views and members of a file."""


@dataclass(frozen=True)
class MeanBands:
    """The weighted mean of several members' band files of one sample; picklable, opens its files when asked.

    Attributes:
        paths: one band file a member.
        weights: theirs; they need not sum to one.
        names: the bands to give, which all members share.
    """

    paths: tuple[Path, ...]
    weights: tuple[float, ...]
    names: tuple[str, ...]

    def __call__(self) -> dict[str, NDArray[np.float32]]:
        """All bands as decoders read them (`Band.relative`), each (H, W) float32 at the prediction's scale."""
        total = sum(self.weights)
        mean: dict[str, NDArray[np.float32]] = {}
        square: NDArray[np.float32] = np.zeros(1, np.float32)
        for path, weight in zip(self.paths, self.weights, strict=True):
            with BandFile(path) as file:
                bands = file.read()
            for name in self.names:
                part = bands[name] * np.float32(weight / total)
                mean[name] = mean[name] + part if name in mean else part
            if SPREAD in self.names:
                square = square + (bands[SPREAD] ** 2 + bands[FOREGROUND] ** 2) * np.float32(weight / total)
        if SPREAD in self.names:
            # Over all views of all members: what they disagree on among each other counts, too.
            mean[SPREAD] = np.sqrt(np.maximum(square - mean[FOREGROUND] ** 2, 0)).astype(np.float32)
        return mean

    @property
    def scale(self) -> float:
        """The reduction of the predictions."""
        with BandFile(self.paths[0]) as file:
            return file.scale

    def rows(self, name: str, first: int, last: int) -> NDArray[np.uint8]:
        """Rows [first, last) of one band, quantised as on disk."""
        if len(self.paths) == 1:
            with BandFile(self.paths[0]) as file:
                return file.rows(first, last)[self._index(file, name)]
        total = np.zeros(0, np.float32)
        for path, weight in zip(self.paths, self.weights, strict=True):
            with BandFile(path) as file:
                part = file.rows(first, last)[self._index(file, name)] * np.float32(weight / sum(self.weights))
            total = total + part if total.size else part
        return np.asarray(np.rint(total), np.uint8)

    @staticmethod
    def _index(file: BandFile, name: str) -> int:
        return [band.name for band in file.bands].index(name)


def shared_bands(paths: Sequence[Path]) -> tuple[str, ...]:
    """Names of the bands that all the files have with one range, in the first one's order.

    Raises:
        DataError: there is none.
    """
    bands = _bands_of(paths)
    shared = tuple(band.name for band in in_common(bands))
    if not shared:
        names = [band.name for band in bands[0]]
        raise DataError(f"{paths[0]}: its bands {names} and those of the other members have nothing in common")
    return shared


def left_out(paths: Sequence[Path]) -> tuple[str, ...]:
    """What bands `shared_bands` leaves out though all the files name them, a line each, for the person who asked."""
    return unlike(_bands_of(paths))


def _bands_of(paths: Sequence[Path]) -> list[tuple[Band, ...]]:
    found = []
    for path in paths:
        with BandFile(path) as file:
            found.append(file.bands)
    return found


def one_scale(runs: list[str], paths: list[Path]) -> None:
    """Make sure that the runs' predictions of a sample lie on one grid.

    Args:
        runs, paths: names, and one file of each.

    Raises:
        DataError: they were made at different reductions.
    """
    scales = []
    for path in paths:
        with BandFile(path) as file:
            scales.append(file.scale)
    for name, scale in zip(runs, scales, strict=True):
        if scale != scales[0]:
            raise DataError(
                f"runs {runs[0]} and {name}: predicted at prepare.scale={scales[0]:g} and {scale:g}; only runs of one "
                "scale can be averaged"
            )
