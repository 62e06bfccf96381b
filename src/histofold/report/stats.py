"""Numbers of the report: leaderboard, scores by fold and stratum with intervals, calibration, members' errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histofold.evaluation.crossfit import FEW_GROUPS, interval
from histofold.evaluation.repeats import Scored, partial
from histofold.metrics import PIXELS
from histofold.report.data import ID_COLUMNS, Run

DRAWS = 1000


@dataclass(frozen=True)
class Estimate:
    """A mean score with its bootstrap 95 % interval, None below three groups, where an interval means nothing."""

    mean: float
    count: int
    low: float | None = None
    high: float | None = None


def estimate(table: pd.DataFrame) -> Estimate:
    """Mean and interval of the `score` column, groups drawn whole."""
    scores = table["score"].to_numpy(dtype=float)
    if not len(scores):
        return Estimate(float("nan"), 0)
    ends = interval(scores, _groups(table), DRAWS)
    return Estimate(float(scores.mean()), len(scores), *(ends or ()))


def enough_groups(table: pd.DataFrame) -> bool:
    """Whether there are groups enough to draw from for an interval of the mean score."""
    return len(np.unique(_groups(table))) >= FEW_GROUPS


def _groups(table: pd.DataFrame) -> NDArray[np.str_]:
    """Group of each sample; a sample without one is its own."""
    groups = table["group"].astype(str)
    return groups.where(groups != "", table["sample_id"].astype(str)).to_numpy(dtype=str)


@dataclass(frozen=True)
class Cell:
    """One row or cell of a table of estimates."""

    label: str
    value: Estimate


@dataclass(frozen=True)
class CvTable:
    """Scores by stratum (rows) and fold (columns) with margins; `rows[-1]` is all strata."""

    folds: list[int]
    rows: list[tuple[str, list[Estimate], Estimate]]


def cv_table(scores: pd.DataFrame) -> CvTable:
    """Cross-tabulate the samples' scores by stratum and fold."""
    folds = sorted(int(fold) for fold in scores["fold"].unique())
    strata = sorted(scores["stratum"].unique())
    blocks = [(name or "(none)", scores[scores["stratum"] == name]) for name in strata]
    if len(blocks) > 1:
        blocks.append(("all", scores))
    else:
        blocks = [("all", scores)]
    rows = [(name, [estimate(block[block["fold"] == f]) for f in folds], estimate(block)) for name, block in blocks]
    return CvTable(folds, rows)


@dataclass(frozen=True)
class Standing:
    """One line of the leaderboard.

    Attributes:
        lacking, gone: see `histofold.evaluation.repeats.Scored`.
    """

    name: str
    folds: list[int]
    value: Estimate
    others: dict[str, float]
    minutes: float | None
    epochs: int | None
    text: str
    partial: bool = False
    lacking: int = 0
    gone: int = 0


def scored(runs: Sequence[Run], metric: str = "", counts: Mapping[str, int] | None = None) -> dict[str, Scored]:
    """Runs that have scores by a metric, by name; samples that were not scored by it are left out.

    Args:
        metric: that is their score.
        counts: as of `leaderboard`.
    """
    return {name: one for name, one in _today(runs, metric, counts).items() if len(one.table)}


def _today(runs: Sequence[Run], metric: str, counts: Mapping[str, int] | None) -> dict[str, Scored]:
    """Finished runs with their scores by a metric, of what their folds hold today where that is known."""
    tables = {run.name: (run.config, run.scored(metric)) for run in runs}
    known = {name: (config, table) for name, (config, table) in tables.items() if table is not None}
    return {name: Scored.today(config, table, counts or {}) for name, (config, table) in known.items()}


def leaderboard(runs: Sequence[Run], metric: str = "", counts: Mapping[str, int] | None = None) -> list[Standing]:
    """Scored runs from best to worst; a run with fewer folds is not comparable, which `folds` and `partial` say.

    Runs that were not scored by the metric, or on nothing that their folds hold today, come last, with NaN of no
    sample.

    Args:
        metric: that is their score.
        counts: fold set → number of its folds, see `histofold.evaluation.repeats.partial`; `FoldSets` tell, too, which
            images count.
    """
    lines, today = [], _today(runs, metric, counts)
    known = {name: one for name, one in today.items() if len(one.table)}
    unfinished = partial(known, counts or {})
    for run in runs:
        scores = known[run.name].table if run.name in known else run.scores
        if scores is None or scores.empty:
            continue
        lacking, gone = today[run.name].lacking, today[run.name].gone
        curves = [fold.metrics for fold in run.folds if fold.metrics is not None and not fold.metrics.empty]
        lines.append(
            Standing(
                name=run.name,
                folds=sorted(int(fold) for fold in scores["fold"].unique()),
                value=estimate(scores) if run.name in known else Estimate(float("nan"), 0),
                others=other_metrics(scores) if run.name in known or not gone else {},
                minutes=run.minutes,
                epochs=int(max(curve["epoch"].max() for curve in curves)) if curves else None,
                text=describe(run.config),
                partial=run.name in unfinished,
                lacking=lacking,
                gone=gone,
            )
        )
    return sorted(lines, key=lambda line: (not line.value.count, -line.value.mean))


def other_metrics(scores: pd.DataFrame) -> dict[str, float]:
    """Mean of each numeric metric besides the score; pixels are counted to be added up, not for a mean."""
    left = (*ID_COLUMNS, *PIXELS, "score")
    names = [name for name in scores.select_dtypes("number").columns if name not in left]
    return {str(name): float(scores[name].mean()) for name in names}


def describe(config: dict[str, Any]) -> str:
    """Model, encoder and target of a run in a few words."""
    model, target = config.get("model") or {}, config.get("target") or {}
    parts = [model.get("arch") or model.get("name"), model.get("encoder")]
    words = " · ".join(str(part) for part in parts if part)
    return f"{words} → {target['name']}" if target.get("name") else words


@dataclass(frozen=True)
class Reliability:
    """Predicted probability against observed share of foreground in bins, and the expected calibration error."""

    predicted: list[float]
    observed: list[float]
    pixels: list[int]
    error: float


def reliability(histogram: NDArray[np.int64], bins: int = 16) -> Reliability | None:
    """From a (2, 256) histogram of a uint8 band (row 0 background, row 1 foreground); None when it is empty."""
    total = histogram.sum()
    if not total:
        return None
    values = np.arange(256) / 255.0
    # 256 levels into equal bins: level 255 belongs to the last one.
    place = np.minimum(np.arange(256) * bins // 256, bins - 1)
    both = histogram.sum(axis=0)
    pixels = np.bincount(place, both, bins)
    mean = np.bincount(place, both * values, bins)
    truth = np.bincount(place, histogram[1], bins)
    used = pixels > 0
    predicted, observed = mean[used] / pixels[used], truth[used] / pixels[used]
    error = float((np.abs(predicted - observed) * pixels[used]).sum() / total)
    return Reliability(predicted.tolist(), observed.tolist(), pixels[used].astype(int).tolist(), error)


def dice_by_threshold(histogram: NDArray[np.int64]) -> list[tuple[float, float]]:
    """Dice of all pixels together at each threshold 1/255 … 1, from a (2, 256) histogram."""
    above = histogram[:, ::-1].cumsum(axis=1)[:, ::-1].astype(float)
    truth = float(histogram[1].sum())
    total = above.sum(axis=0) + truth
    dice = np.where(total > 0, 2 * above[1] / np.maximum(total, 1), 1.0)
    return [(level / 255, float(dice[level])) for level in range(1, 256)]


def correlation(
    runs: Sequence[Run], metric: str = "", folds: Sequence[int] | None = None
) -> tuple[list[str], NDArray[np.float64]] | None:
    """Correlation of the runs' scores over the samples that all of them scored; None below two runs or five samples.

    Runs that fail on the same samples (near 1) add little to each other.

    Args:
        metric: that is their score.
        folds: whose samples count; None: all.
    """
    tables = {name: run.table for name, run in scored(runs, metric).items()}
    if folds is not None:
        tables = {name: table[table["fold"].isin(folds)] for name, table in tables.items()}
    columns = {name: table.set_index("sample_id")["score"] for name, table in tables.items()}
    table = pd.DataFrame({name: column[~column.index.duplicated()] for name, column in columns.items()}).dropna()
    if len(columns) < 2 or len(table) < 5:
        return None
    return list(columns), table.corr().to_numpy(dtype=float)
