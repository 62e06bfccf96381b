"""The report's sections as plain values for the template: leaderboard, curves, CV, threshold, members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histofold.evaluation.oof import of_images
from histofold.evaluation.repeats import repeats as compared
from histofold.metrics import COUNTS, PIXELS, pooled_counts
from histofold.metrics.merged import NOTE, marked
from histofold.report import plots, stats
from histofold.report.charts import padded, whisker
from histofold.report.data import Ensemble, Run
from histofold.report.stats import Estimate

SHOWN_METRICS = 4
INTEREST = ("dice", "ap50", "f1_50", "pq", "aji", "iou")
MEASURES = ("dsb", "ap50", "ap75", "ap90", "f1_50", "pq", "aji", "dice", "iou", "object_f1", "object_dice")
"""Means over images that are shown by stratum, in this order; below them distances and counts of objects."""

DISTANCES = ("object_hausdorff", "hd95")
"""Means in pixels, the less the better."""

OPEN_CURVES = 3
"""Runs whose curves are open from the start."""

HEAT = 38
"""Strongest tint of a table's cell in percent; more would cost the text its contrast."""

SEARCHES = {"equal": "Equal weights", "greedy": "Greedy selection", "optimise": "Direct optimisation"}
"""Searches for weights in words."""


@dataclass(frozen=True)
class Tile:
    """A fact with its label and a small line below."""

    label: str
    value: str
    hint: str = ""


def board(
    runs: Sequence[Run], merged: bool = False, metric: str = "", counts: Mapping[str, int] | None = None
) -> dict[str, Any] | None:
    """Leaderboard of runs; None when nothing is scored.

    Args:
        merged: marks instance scores of merged labels.
        metric: the competition's own, which stands there as the score.
        counts: fold set → number of its folds, see `histofold.evaluation.repeats.partial`.
    """
    lines = stats.leaderboard(runs, metric, counts)
    if not lines:
        return None
    domain = _domain([line.value for line in lines])
    names = [name for line in lines for name in line.others if name != metric]
    others = by_interest(sorted(set(names), key=lambda name: (-names.count(name), names.index(name))))[:SHOWN_METRICS]
    alike = len({tuple(line.folds) for line in lines}) == 1
    text = "Mean score of the samples that each run did not train on, best first."
    if not alike:
        text += " The runs cover different folds, so their scores are not of the same samples: compare with care."
    other = [f"{line.name} ({line.lacking})" for line in lines if line.lacking]
    if other:
        text += f" Other images than their folds hold today, of which so many have no score: {', '.join(other)}."
    if not all(line.value.count or line.gone for line in lines):
        text += f" “–”: the run was not scored by {metric or 'this metric'}; an ensemble of it, from evaluate, is."
    if merged:
        text += f" {NOTE}."
    rows = [{"line": line, "whisker": _whisker(line.value, domain) if line.value.count else ""} for line in lines]
    titles = {name: marked(name, merged) for name in others}
    return {"rows": rows, "others": others, "titles": titles, "text": text, "repeats": repeats(runs, metric, counts)}


def by_interest(names: Sequence[str]) -> list[str]:
    """Metrics that most people ask for first, the others behind them as they come."""
    return sorted(names, key=lambda name: INTEREST.index(name) if name in INTEREST else len(INTEREST))


def repeats(runs: Sequence[Run], metric: str = "", counts: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
    """Runs that differ in seed or fold set only, with mean and spread of their scores on the same samples."""
    known = {name: run for name, run in stats.scored(runs, metric, counts).items() if run.config}
    return [
        {
            "names": list(one.names),
            "text": stats.describe(dict(known[one.names[0]].config)),
            "mean": one.mean,
            "spread": one.spread,
            "folds": "" if one.folds is None else ", ".join(map(str, one.folds)),
        }
        for one in compared(known, counts or {})
    ]


def curves(
    runs: Sequence[Run], metric: str = "", counts: Mapping[str, int] | None = None
) -> dict[str, Any] | None:
    """Loss and score of each run that has curves, the best runs by a metric first and the others folded away."""
    ranked = [line.name for line in stats.leaderboard(runs, metric, counts)]
    ordered = sorted(runs, key=lambda run: ranked.index(run.name) if run.name in ranked else len(ranked))
    figures = [found for found in (plots.curves(run) for run in ordered) if found]
    if not figures:
        return None
    first, rest = figures[:OPEN_CURVES], figures[OPEN_CURVES:]
    return {"first": _shared_rows(first), "rest": _shared_rows(rest), "more": len(rest)}


def _shared_rows(figures: list[list[plots.Figure]]) -> list[list[plots.Figure]]:
    """Figures of a run side by side; runs that were not validated on the way, and have but one, share a row."""
    return figures if any(len(one) > 1 for one in figures) else [[figure for one in figures for figure in one]]


def cv(scores: pd.DataFrame, whose: str, note: str = "") -> dict[str, Any]:
    """Table by stratum and fold, and all samples as dots; `note` is what else has to be said about the scores."""
    table = stats.cv_table(scores)
    means = [cell.mean for _, cells, _ in table.rows for cell in cells if cell.count]
    domain = _domain([whole for _, _, whole in table.rows])
    rows = [
        {"name": name, "all": whole, "whisker": _whisker(whole, domain), "cells": [_cell(c, means) for c in cells]}
        for name, cells, whole in table.rows
    ]
    figures = [plots.strips(scores, column) for column in ("stratum", "fold") if len(scores[column].unique()) > 1]
    text = (
        f"Scores of {whose}. Each sample was predicted by networks that did not see it. Intervals are 95 % bootstrap "
        "intervals that draw whole groups (patients, fields), because samples of one group are not independent."
    )
    text += f" {note}." if note else ""
    return {"table": table, "rows": rows, "figures": figures, "text": text}


def measures(scores: pd.DataFrame, merged: bool = False) -> dict[str, Any] | None:
    """Every metric by stratum and over all samples, counts of objects added up; None with fewer than two metrics.

    Args:
        merged: marks instance scores of merged labels.
    """
    names = [name for name in MEASURES if name in scores]
    if len(names) < 2:
        return None
    strata = [(str(name) or "(none)", part) for name, part in scores.groupby("stratum")]
    rows = []
    for name, part in [*(strata if len(strata) > 1 else []), ("all", scores)]:
        cells = [f"{part[measure].mean():.3f}" for measure in names]
        cells += list(_pooled(part).values())
        cells += [f"{part[distance].mean():.1f}" for distance in DISTANCES if distance in scores]
        cells += [f"{int(part[count].sum()):,}" for count in COUNTS if count in scores]
        rows.append({"name": name, "count": len(part), "cells": cells})
    titles = [marked(name, merged) for name in names]
    titles += list(_pooled(scores))
    # Of the foreground as a whole hd95 is: touching objects that were merged make no difference to it.
    titles += [f"{name if name == 'hd95' else marked(name, merged)}, px" for name in DISTANCES if name in scores]
    titles += [marked(name, merged) for name in COUNTS if name in scores]
    return {"titles": titles, "rows": rows, "note": NOTE if merged else ""}


def _pooled(scores: pd.DataFrame) -> dict[str, str]:
    """Dice and IoU of all pixels of all images together, where their pixels were counted."""
    if not set(PIXELS) <= set(scores):
        return {}
    whole = pooled_counts(*(int(scores[name].sum()) for name in PIXELS))
    return {f"{name}, pooled": f"{value:.3f}" for name, value in whole.items()}


def _cell(cell: Estimate, means: Sequence[float]) -> dict[str, Any]:
    """A cell with its tint, darker for better."""
    low, high = min(means), max(means)
    heat = 0.0 if not cell.count or high <= low else HEAT * (cell.mean - low) / max(high - low, 0.1)
    title = f"{cell.count} samples"
    if cell.low is not None and cell.high is not None:
        title += f", 95 % interval {cell.low:.3f} – {cell.high:.3f}"
    return {"mean": cell.mean, "count": cell.count, "heat": round(heat), "title": title}


def _domain(values: Sequence[Estimate]) -> tuple[float, float]:
    """Common scale of the whiskers of one table."""
    ends = [end for value in values for end in (value.low, value.mean, value.high) if end is not None]
    return padded(ends, 0.05, 0.01)


def _whisker(value: Estimate, domain: tuple[float, float]) -> str:
    """The mean with its interval, or the mean alone."""
    low = value.mean if value.low is None else value.low
    high = value.mean if value.high is None else value.high
    return whisker(value.mean, low, high, domain)


def tuning(ensemble: Ensemble | None, histogram: NDArray[np.int64], threshold: float) -> dict[str, Any] | None:
    """Threshold curve and calibration; None when there is neither."""
    figures: list[plots.Figure] = []
    curve = ensemble.record.get("threshold_curve") if ensemble else None
    result = stats.reliability(histogram)
    if curve:
        # The curve of a decoder is that of its own option, with the others as chosen.
        record = ensemble.record if ensemble else {}
        chosen = record["threshold"] if record.get("threshold") is not None else _option(record, "threshold")
        figures.append(plots.threshold(curve, chosen))
    elif result:
        curve = stats.dice_by_threshold(histogram)
        # Where instances are decoded there is no single threshold to mark.
        decoded = ensemble is not None and ensemble.record.get("threshold") is None
        figures.append(
            plots.pooled_threshold(curve, None if decoded else threshold, "chosen" if ensemble else "untuned")
        )
    if result:
        figures.append(plots.calibration(result))
    if not figures:
        return None
    pixels = int(histogram.sum())
    return {"figures": figures, "text": f"From the out-of-fold predictions: {pixels:,} pixels against their truth."}


def _option(record: dict[str, Any], name: str) -> float | None:
    """A number among the decoder's options; None where it has none of that name, or there is no decoder."""
    value = (record.get("instances") or {}).get(name)
    return None if value is None else float(value)


def members(ensemble: Ensemble, runs: Sequence[Run], score: float | None) -> dict[str, Any]:
    """Weights, the score of each member alone, and what each adds to the ensemble."""
    alone = dict(ensemble.score.get("per_run") or {})
    adds = dict((ensemble.record.get("extra") or {}).get("adds") or {})
    total = sum(float(member["weight"]) for member in ensemble.record["members"]) or 1.0
    by_name = {run.name: run for run in runs}
    rows: list[dict[str, Any]] = []
    for member in ensemble.record["members"]:
        name, weight = str(member["run"]), float(member["weight"])
        run = by_name.get(name)
        own = _alone(run, ensemble, _number(alone.get(name)))
        rows.append(
            {
                "name": name,
                "text": stats.describe(run.config) if run else "the run folder is gone",
                "weight": weight,
                "share": round(100 * weight / total, 1),
                "alone": own,
                "gain": score - own if own is not None and score is not None else None,
                "adds": _number(adds.get(name)),
                "folds": ", ".join(str(fold.number) for fold in run.folds) if run else "–",
            }
        )
    text = (
        "“Alone” is the run's own out-of-fold score with the default settings; “Ensemble − alone” is what tuning "
        "and the other members give it." + (_adds_text(ensemble, [row["weight"] for row in rows]) if adds else "")
    )
    if any(row["alone"] is None for row in rows):
        text += f" “–”: the run has no score by {ensemble.metric or 'this metric'} of all of its images."
    table = {"rows": rows, "adds": bool(adds), "text": text, "correlation": _correlation(runs, ensemble)}
    return table | {"searches": _searches(ensemble.score.get("search"), ensemble.single)}


def _alone(run: Run | None, ensemble: Ensemble, recorded: float | None) -> float | None:
    """A run's own score by the ensemble's metric on its images; None where one of them was not scored by that metric.

    Args:
        recorded: what `evaluate` found, which stands where the run or its scores of these folds are gone.
    """
    table = run.scored(ensemble.metric) if run and ensemble.metric else None
    own = None if table is None else table[table["fold"].isin(ensemble.record.get("folds") or [])]
    if own is None or not len(own):
        return recorded
    # folds.csv may have been changed since: a mean of other images is no score beside the ensemble's.
    own = own if ensemble.scores is None else of_images(own, ensemble.scores)
    return _number(own["score"].mean(skipna=False))


def _number(value: Any) -> float | None:
    """A number of a JSON file; None where it is null or NaN."""
    return None if value is None or not np.isfinite(value) else float(value)


def _adds_text(ensemble: Ensemble, weights: Sequence[float]) -> str:
    """What “Adds” means for members of these weights, as `evaluation.search.worth` measures it."""
    with_weight = sum(weight > 0 for weight in weights)
    text = " “Adds” is what the mean score loses without a member, the others keeping their proportions"
    if with_weight == 1:
        text = " “Adds” is, for the only member with a weight, its lead over the best other one alone"
    if with_weight < len(weights):
        text += "; for a member of weight 0, what an equal share of it would change"
    # A decoder has hundreds of settings: `evaluation.gridsearch.sparse` is what is tried.
    setting = (
        "decoder's setting is the best of a handful" if ensemble.record.get("instances") else "threshold is the best"
    )
    return f"{text}. With and without it the {setting} on all samples, so these numbers are not cross-fitted."


def _searches(searched: dict[str, Any] | None, single: bool) -> dict[str, Any] | None:
    """The searches for weights beside one another; None where none was made."""
    if not searched:
        return None
    rows = [
        {
            "name": SEARCHES.get(one["strategy"], one["strategy"]),
            "chosen": bool(one["chosen"]),
            "cross_fitted": float(one["cross_fitted"]),
            "optimistic": float(one["optimistic"]),
            "weights": ", ".join(f"{run} {weight:.2f}" for run, weight in one["weights"].items() if weight > 0),
        }
        for one in searched["found"]
    ]
    honest = "each fold is scored with the weights that the other folds chose"
    if single:
        honest = "there is one fold only, which chose its weights itself, so this is optimistic, too"
    text = (
        f"“Cross-fitted”: {honest}; “Optimistic”: the weights "
        f"shown, on the samples that chose them. Searched {searched['how']}, at the predictions' own scale."
    )
    if searched["nested"] is not None:
        text += (
            " Kept is the simplest that a bootstrap over groups does not find worse than the best. With this choice "
            f"left to the other folds, too, it is {float(searched['nested']):.4f}."
        )
    return {"rows": rows, "text": text}


def _correlation(runs: Sequence[Run], ensemble: Ensemble) -> dict[str, Any] | None:
    """Correlation of the runs' scores, on the ensemble's folds and by its metric, as tinted cells."""
    found = stats.correlation(runs, ensemble.metric, ensemble.record.get("folds"))
    if found is None:
        return None
    names, matrix = found
    rows = []
    for name, line in zip(names, matrix, strict=True):
        cells = [{"text": f"{v:.2f}", "heat": round(HEAT * max(v, 0.0))} if np.isfinite(v) else _UNKNOWN for v in line]
        rows.append((name, cells))
    return {"names": names, "rows": rows}


_UNKNOWN: dict[str, Any] = {"text": "–", "heat": 0}
