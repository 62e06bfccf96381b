"""Training curves as a PNG file beside a run, and the table that they are drawn from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from histofold.errors import DataError
from histofold.files import atomic

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


def _line(axes: Axes, table: pd.DataFrame, column: str, colour: str, label: str) -> None:
    """One curve with dots where there are few points, a quiet grid and no box."""
    marker = "o" if len(table) <= 40 else ""
    axes.plot(table["epoch"], table[column], color=colour, linewidth=1.6, marker=marker, markersize=3)
    axes.set_ylabel(label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
