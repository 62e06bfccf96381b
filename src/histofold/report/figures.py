"""Figures as PNG files: training curves beside a run, overlays beside predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histofold.errors import DataError
from histofold.files import atomic
from histofold.report.overlay import Image, outlines

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEEDED = ("epoch", "step", "lr", "loss", "score")
LOSS, SCORE, LR = "#c2410c", "#0f766e", "#64748b"


def read_metrics(path: Path) -> pd.DataFrame:
    """Read a fold's metrics.csv, one row a step in order; a step that a resumed run wrote twice keeps its last row.

    Raises:
        DataError: the file is missing, empty, or lacks a column.
    """
    try:
        table = pd.read_csv(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; train the fold first") from error
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as CSV ({error}); train the fold anew") from error
    missing = [name for name in NEEDED if name not in table]
    if missing:
        raise DataError(f"{path}: column {missing[0]!r} is missing, found {', '.join(table.columns)}")
    return table.drop_duplicates("step", keep="last").sort_values("step", ignore_index=True)


def training_curves(metrics_csv: Path, out_png: Path) -> Path:
    """Draw loss, validation score and learning rate of one fold against the epoch; gives `out_png`.

    Raises:
        DataError: metrics.csv is missing, broken, or has no row yet.
    """
    # Imported here, and without pyplot: a figure needs no display, no global state and no time when nobody draws.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    table = read_metrics(metrics_csv)
    if table.empty:
        raise DataError(f"{metrics_csv}: no row yet; curves need at least one epoch")
    figure = Figure(figsize=(7.2, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    loss, score, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.3))
    scored = table.dropna(subset=["score"])
    _line(loss, table, "loss", LOSS, "loss")
    _line(score, scored, "score", SCORE, "validation score")
    _line(rate, table, "lr", LR, "learning rate")
    score.margins(y=0.15)
    if scored.empty:
        score.text(0.5, 0.5, "not validated yet", transform=score.transAxes, ha="center", va="center", color=LR)
    else:
        last = scored.iloc[-1]
        note = f"{last['score']:.4f}"
        score.annotate(note, (last["epoch"], last["score"]), (-4, 6), textcoords="offset points", ha="right")
    rate.set_xlabel("epoch")
    loss.set_title(" / ".join(metrics_csv.absolute().parent.parts[-3:]), loc="left", fontsize=10)
    with atomic(out_png) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return out_png


def distributions_png(out_png: Path, panels: Mapping[str, Mapping[str, Sequence[float]]]) -> Path:
    """Draw histograms side by side, one panel a quantity with one outline a set of samples; gives `out_png`.

    Args:
        panels: title (such as `objects per image`) → name of the set (such as `submission`) → its values, all ≥ 0.
            They are drawn on a logarithmic scale that has room for 0, as shares, so that sets of any size compare.

    Raises:
        DataError: a panel has no value at all.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(panels), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, sets) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        top = max((float(np.max(values)) for values in sets.values() if len(values)), default=-1.0)
        if top < 0:
            raise DataError(f"{out_png}: nothing to draw for {title!r}")
        edges = np.expm1(np.linspace(0, np.log1p(max(top, 1)), 20))
        for (name, values), colour in zip(sets.items(), (SCORE, LOSS, LR), strict=False):
            weights = np.full(len(values), 1 / max(len(values), 1))
            style = {"histtype": "stepfilled", "alpha": 0.35, "color": colour, "edgecolor": colour}
            axes.hist(values, bins=edges, weights=weights, label=f"{name} ({len(values)})", **style)
        axes.set_xscale("symlog", linthresh=1)
        marks = [mark for mark in (0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000) if mark <= top]
        axes.set_xticks(marks, labels=[f"{mark:,}" for mark in marks])
        axes.minorticks_off()
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_ylabel("share of samples")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    with atomic(out_png) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return out_png


def _line(axes: Axes, table: pd.DataFrame, column: str, colour: str, label: str) -> None:
    """One curve with dots where there are few points, a quiet grid and no box."""
    marker = "o" if len(table) <= 40 else ""
    axes.plot(table["epoch"], table[column], color=colour, linewidth=1.6, marker=marker, markersize=3)
    axes.set_ylabel(label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def overlay_png(
    out_png: Path,
    image: Image,
    truth: NDArray[np.generic] | None,
    prediction: NDArray[np.generic] | None,
    thickness: int = 1,
) -> Path:
    """Write the image with the outlines of truth and prediction as PNG; gives `out_png`.

    Raises:
        DataError: sizes differ, or the image is not uint8.
    """
    import cv2

    drawn = outlines(image, truth, prediction, thickness)
    whole, data = cv2.imencode(".png", drawn[..., ::-1])
    if not whole:
        raise DataError(f"{out_png}: an image of {drawn.shape} could not be encoded as PNG")
    with atomic(out_png) as temporary:
        temporary.write_bytes(data.tobytes())
    return out_png
