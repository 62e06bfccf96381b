"""The CV table as text: by fold, by stratum, overall with its interval, honest beside optimistic."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from histofold.evaluation.crossfit import interval_text
from histofold.inference.ensemble import Ensemble
from histofold.metrics import COUNTS, PIXELS, Matching, pooled_counts
from histofold.metrics.merged import MARK, NOTE, marked

SHOWN = ("score", "dice", "iou", "ap50", "ap75", "ap90", "f1_50", "pq", "aji")


def cv_table(ensemble: Ensemble, scores: pd.DataFrame, merged: bool = False) -> str:
    """The table that `evaluate` prints; `merged` marks instance scores whose truth merges touching objects."""
    ends = ensemble.score["interval"]
    around = f"95 % interval {interval_text(ends)}" if ends else interval_text(ends)
    kind = f"PARTIAL CV, folds {list(ensemble.folds)} only" if ensemble.partial else "CV"
    chosen = f"threshold {ensemble.threshold:.3f}" if ensemble.threshold is not None else str(ensemble.instances)
    return "\n".join(
        [
            f"{kind} of {ensemble.competition}, ensemble {ensemble.name} ({marked(ensemble.metric, merged)})",
            *mean_lines(scores, ensemble.metric, {"fold": "fold ", "stratum": ""}, merged),
            *pooled_lines(scores, merged),
            f"cross-fitted {ensemble.score['cross_fitted']:.4f}, {around}; "
            f"optimistic {ensemble.score['optimistic']:.4f}",
            f"for the submission: {chosen}",
            *(f"  {name}: {options}" for name, options in sorted(ensemble.strata.items())),
            *_second(ensemble),
            *_single(ensemble),
            *([NOTE] if merged else []),
        ]
    )


def mean_lines(scores: pd.DataFrame, metric: str, by: Mapping[str, str], merged: bool = False) -> list[str]:
    """Means of the scores as the lines of a table: its head, the parts of the samples, and all of them.

    Args:
        scores: a row a sample.
        metric: the competition's.
        by: column → what stands before its values; for each of them a line.
        merged: marks instance scores whose truth merges touching objects.
    """
    # `score` is the competition's metric, which has a column of its own name, too.
    columns = [column for column in SHOWN if column in scores and column != metric]
    rows = [row for column, prefix in by.items() for row in _rows(scores, column, prefix, columns)]
    rows.append(("all", len(scores), [float(scores[column].mean()) for column in columns]))
    width = max(len(name) for name, _, _ in rows)
    titles = [marked(metric if column == "score" else column, merged) for column in columns]
    head = f"{'':{width}}  {'n':>5}  " + "  ".join(f"{title:>8}" for title in titles)
    return [head, *(_line(name, count, values, width) for name, count, values in rows)]


def pooled_lines(scores: pd.DataFrame, merged: bool = False) -> list[str]:
    """What the pixels and objects of all images say together, and the numbers of the GlaS contest."""
    return [*_pixels(scores), *(f"{line}{MARK if merged else ''}" for line in _objects(scores))]


def _pixels(scores: pd.DataFrame) -> list[str]:
    """Dice and IoU as if all images were one, and how far the outlines of the foreground are apart."""
    if PIXELS[0] not in scores:
        return []
    whole = pooled_counts(*(int(scores[name].sum()) for name in PIXELS))
    line = f"all pixels as one image: Dice {whole['dice']:.4f}, IoU {whole['iou']:.4f}"
    return [f"{line}; HD95 {scores['hd95'].mean():.1f} px, mean of images" if "hd95" in scores else line]


def _objects(scores: pd.DataFrame) -> list[str]:
    """How many objects of all images are found, missed and false, and the three numbers of the GlaS contest."""
    if "found" not in scores:
        return []
    found, missed, false = (int(scores[name].sum()) for name in COUNTS)
    whole = Matching(0.5, found, false, missed, 0.0)
    lines = [
        f"objects at IoU .5: {found} found, {missed} missed, {false} false; over all of them precision "
        f"{whole.precision:.4f}, recall {whole.recall:.4f}, F1 {whole.f1:.4f}"
    ]
    if "object_hausdorff" in scores:
        means = {name: float(scores[name].mean()) for name in ("object_f1", "object_dice", "object_hausdorff")}
        lines.append(
            f"by the GlaS rule: object F1 {means['object_f1']:.4f}, object Dice {means['object_dice']:.4f}, "
            f"object Hausdorff {means['object_hausdorff']:.1f} px"
        )
    return lines


def _second(ensemble: Ensemble) -> list[str]:
    if ensemble.second is None:
        return []
    return [f"  in its place a second level, {ensemble.second['gain']:+.4f}: the best of several settings' candidates"]


def _single(ensemble: Ensemble) -> list[str]:
    if len(ensemble.folds) > 1:
        return []
    return ["one fold only: its settings were chosen on itself, so even the cross-fitted score is optimistic"]


def _rows(scores: pd.DataFrame, by: str, prefix: str, columns: list[str]) -> list[tuple[str, int, list[float]]]:
    return [
        (f"{prefix}{name}", len(part), [float(part[column].mean()) for column in columns])
        for name, part in scores.groupby(by)
    ]


def _line(name: str, count: int, values: list[float], width: int) -> str:
    return f"{name:{width}}  {count:>5}  " + "  ".join(f"{value:>8.4f}" for value in values)
