"""The report's charts: each takes plain numbers and gives a titled figure with its legend."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from markupsafe import Markup

from histofold.report.charts import Axis, Chart, Point, number, padded
from histofold.report.data import Run
from histofold.report.stats import Reliability


@dataclass(frozen=True)
class Figure:
    """A chart with a visible title, a legend of (style, text), and a sentence that says how to read it."""

    title: str
    svg: Markup
    legend: list[tuple[str, str]] = field(default_factory=list)
    note: str = ""


DOTS = 1500
"""Dots of a chart at most, about."""


def style(index: int) -> str:
    """Style class of the index-th series."""
    return f"s{index % 8}"


def curves(run: Run) -> list[Figure]:
    """Loss and validation score of every fold of a run against the epoch.

    The last epoch is scored by the out-of-fold predictions, so their mean closes the curve of the score. Where nothing
    was scored before it there is no curve: the scores then stand as words below the loss.
    """
    tables = {fold.number: fold.metrics for fold in run.folds if fold.metrics is not None and not fold.metrics.empty}
    figures: list[Figure] = []
    for column, label in (("loss", "training loss"), ("score", "validation score")):
        lines = {number: _points(table, column) for number, table in tables.items()}
        if column == "score":
            for fold in run.folds:
                if fold.number in lines and fold.scores is not None and len(fold.scores):
                    lines[fold.number] = _closed(lines[fold.number], tables[fold.number], fold.scores)
        lines = {number: line for number, line in lines.items() if line}
        if column == "score" and figures and lines and all(len(line) == 1 for line in lines.values()):
            figures[0] = replace(figures[0], note=f"No score on the way; {_ends(lines)}.")
        elif lines:
            figures.append(_curves(run.name, label, lines))
    return figures


def _ends(lines: Mapping[int, list[Point]]) -> str:
    """The last value of each fold in words."""
    return ", ".join(f"fold {fold} ends at {line[-1][1]:.3f}" for fold, line in lines.items())


def _points(table: pd.DataFrame, column: str) -> list[Point]:
    """Epoch and value of the rows that have one."""
    rows = table.dropna(subset=[column])
    return list(zip(rows["epoch"].astype(float), rows[column].astype(float), strict=True))


def _closed(line: list[Point], table: pd.DataFrame, scores: pd.DataFrame) -> list[Point]:
    """The line with the fold's out-of-fold score at its last epoch."""
    last = float(table["epoch"].max())
    return [*(point for point in line if point[0] < last), (last, float(scores["score"].mean()))]


def _curves(name: str, label: str, lines: Mapping[int, list[Point]]) -> Figure:
    """One quantity of all folds."""
    xs = [x for line in lines.values() for x, _ in line]
    first, last = min(xs), max(xs)
    low, high = (first, last) if last > first else (first - 1, last + 1)  # a single epoch stands in the middle
    values = [y for line in lines.values() for _, y in line]
    axis = Axis(
        low,
        high,
        "epoch",
        count=min(6, int(high - low) + 1),
        format=lambda v: f"{v:.0f}" if v == int(v) and first <= v <= last else "",
    )
    chart = Chart(f"{label} of {name}", _ends(lines), axis, Axis(*padded(values, floor=0.01), label), height=220)
    for index, (fold, line) in enumerate(lines.items()):
        chart.line(line, style(index), f"fold {fold}")
    return Figure(f"{name}: {label}", chart.render(), [(style(i), f"fold {fold}") for i, fold in enumerate(lines)])


def threshold(curve: Sequence[Sequence[float]], chosen: float | None, word: str = "chosen") -> Figure:
    """Score against the threshold, with the chosen one marked."""
    points = [(float(x), float(y)) for x, y in curve]
    best = max(points, key=lambda point: point[1])
    low, high = min(p[0] for p in points), max(p[0] for p in points)
    said = f"best {best[1]:.4f} at {best[0]:.3f}" + (f"; chosen {chosen:.3f}" if chosen is not None else "")
    chart = Chart(
        "Score by threshold", said, Axis(low, high, "threshold"), Axis(*padded([p[1] for p in points]), "score")
    )
    chart.line(points, "s0", "threshold", dots=len(points) <= 40)
    if chosen is not None:
        chart.rule_x(chosen, f"{word} {number(chosen)}")
    note = (
        "A broad top means that the threshold hardly matters; a narrow one that it may not carry over to the test set."
    )
    return Figure("Score by threshold", chart.render(), note=note)


def pooled_threshold(curve: Sequence[Point], chosen: float | None, word: str) -> Figure:
    """Dice of all pixels together against the threshold: shown where the ensemble holds no curve of its own metric."""
    shown = curve[::3]
    figure = threshold(shown, chosen, word)
    note = "Dice of all pixels together, from the predictions' histograms: not the competition's metric, but its shape."
    return Figure("Pixel Dice by threshold", figure.svg, note=note)


def calibration(result: Reliability) -> Figure:
    """Reliability diagram; a dot's size tells how many pixels stand behind it."""
    said = f"expected calibration error {result.error:.4f}"
    share = Axis(0, 1, "predicted probability")
    chart = Chart("Calibration", said, share, Axis(0, 1, "share that is foreground"), height=300)
    chart.segment((0, 0), (1, 1), "dashed")
    points = list(zip(result.predicted, result.observed, strict=True))
    chart.line(points, "s0", dots=False)
    top = max(result.pixels)
    for (x, y), pixels in zip(points, result.pixels, strict=True):
        text = f"predicted {x:.2f}, true {y:.2f}, {pixels:,} pixels"
        chart.dot(x, y, "s0", text, radius=round(2.5 + 4.5 * float(np.sqrt(pixels / top)), 1))
    note = (
        f"Expected calibration error {result.error:.3f}. On the dashed line a probability means what it says; below it "
        "the ensemble is too sure of foreground, above it too shy. Larger dots hold more pixels."
    )
    return Figure("Calibration", chart.render(), note=note)


def strips(scores: pd.DataFrame, column: str) -> Figure:
    """Every sample's score as a dot, one strip for each value of `column` (stratum or fold), with the mean as a bar."""
    names = sorted(scores[column].unique())
    words = [f"fold {name}" if column == "fold" else str(name or "all") for name in names]
    means = [float(scores.loc[scores[column] == name, "score"].mean()) for name in names]
    said = "; ".join(f"{word}: mean {mean:.3f}" for word, mean in zip(words, means, strict=True))
    low, high = padded(scores["score"].tolist(), 0.1, 0.02)
    title = f"Scores of all samples by {column}"
    chart = Chart(title, said, Axis(0, len(names), at=((-1, ""),)), Axis(low, high, "score"), height=280)
    for index, name in enumerate(names):
        block = scores[scores[column] == name].sort_values("score")
        # Thousands of dots are a smear, and megabytes: an even walk through the ranks looks the same.
        block = block.iloc[:: max(len(block) * len(names) // DOTS, 1)]
        for sample, value in zip(block["sample_id"], block["score"].astype(float), strict=True):
            # The shift sideways comes from the name, so that the page is the same each time.
            shift = (zlib.crc32(str(sample).encode()) % 1000) / 1000 - 0.5
            chart.dot(index + 0.5 + 0.55 * shift, value, f"{style(index)} faint", f"{sample}: {value:.4f}", 2.4)
        chart.segment((index + 0.22, means[index]), (index + 0.78, means[index]), f"mean {style(index)}")
    # Long names take two lines by turns, and are cut when even that is not enough.
    turns = 2 if sum(map(len, words)) > 44 else 1
    room = int(48 * turns / len(words))
    for index, word in enumerate(words):
        chart.text(index + 0.5, low, _short(word, room), "middle", dy=18 + 16 * (index % turns))
    return Figure(title, chart.render(), note=f"One dot a sample; the bar is the mean of its {column}.")


def board(log: pd.DataFrame) -> Figure | None:
    """Leaderboard score against CV over submissions; None without a submission that has both."""
    columns = [name for name in ("public", "private") if log[name].notna().any()]
    rows = log.dropna(subset=["cv"])
    values = [*rows["cv"], *(value for name in columns for value in rows[name].dropna())]
    if not len(rows) or not columns:
        return None
    x, y = padded(rows["cv"].tolist(), 0.15, 0.005), padded(values, 0.1, 0.005)
    chart = Chart(
        "Leaderboard against CV", f"{len(rows)} submissions", Axis(*x, "cross-validation"), Axis(*y, "leaderboard")
    )
    low, high = max(x[0], y[0]), min(x[1], y[1])
    if high > low:
        chart.segment((low, low), (high, high), "dashed")
    for index, name in enumerate(columns):
        for row in rows.dropna(subset=[name]).to_dict("records"):
            text = f"{row['name']}: CV {row['cv']:.4f}, {name} {row[name]:.4f}"
            chart.dot(float(row["cv"]), float(row[name]), style(index), text, 4.5)
    note = "Dots along a line: the CV can be trusted to choose. A cloud: the leaderboard, or the CV, is noise."
    return Figure("Leaderboard against CV", chart.render(), [(style(i), name) for i, name in enumerate(columns)], note)


def distributions(title: str, label: str, sets: Mapping[str, Sequence[float]], log: bool = False) -> Figure:
    """Histograms of one quantity for several sets of samples, as shares so that sets of any size compare."""
    values = np.array([v for one in sets.values() for v in one], dtype=float)
    if log:
        values = np.log10(values + 1)
    low, high = 0.0 if log else float(values.min()), float(max(values.max(), values.min() + 1e-6))
    edges = np.linspace(low, high, 19)
    shares = {}
    for name, one in sets.items():
        raw = np.asarray(one, dtype=float)
        counts, _ = np.histogram(np.log10(raw + 1) if log else raw, edges)
        shares[name] = counts / max(counts.sum(), 1)
    steps = (0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 100_000, 1_000_000)
    marks = tuple((float(np.log10(step + 1)), f"{step:,}") for step in steps)
    axis = Axis(low, high, label, at=marks if log else ())
    top = max(float(share.max()) for share in shares.values())
    said = "; ".join(
        f"{name}: median {number(float(np.median(np.asarray(one))))}" for name, one in sets.items() if len(one)
    )
    percent = Axis(0, top * 1.05, "share of samples", format=lambda v: f"{100 * v:.0f} %")
    chart = Chart(title, said, axis, percent, height=220)
    for index, (name, share) in enumerate(shares.items()):
        step: list[Point] = []
        for left, right, value in zip(edges[:-1], edges[1:], share, strict=True):
            step += [(float(left), float(value)), (float(right), float(value))]
        chart.area([(x, 0.0) for x, _ in step], step, style(index))
        chart.line(step, style(index), name, dots=False)
    return Figure(title, chart.render(), [(style(i), name) for i, name in enumerate(shares)], said)


def _short(text: str, length: int) -> str:
    """Text cut in the middle of nowhere but marked so."""
    return text if len(text) <= length else text[: length - 1] + "…"
