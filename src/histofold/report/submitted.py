"""The section on submissions: what was sent, from what, how it scored, and whether it looks like the training truth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histofold.competitions.base import Competition
from histofold.report import plots
from histofold.report.data import Collected, Submission
from histofold.report.gallery import Gallery
from histofold.report.sections import Tile
from histofold.report.stats import estimate

ENOUGH = 8
"""Samples from which on a histogram says more than a median."""


def section(found: Collected, competition: Competition, galleries: Mapping[str, Gallery], truth: Gallery | None) -> Any:
    """Values of the section; None when nothing was submitted or predicted."""
    if not found.submissions and found.log is None:
        return None
    items = [_one(one, found, competition, galleries.get(one.name), truth) for one in found.submissions]
    if found.log is None:
        return {"submissions": items, "board": None, "log_rows": []}
    return {"submissions": items, "board": plots.board(found.log), "log_rows": [_sent(row) for row in _rows(found.log)]}


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table by column name."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _sent(row: Mapping[str, Any]) -> dict[str, Any]:
    """One line of the log for the page."""
    scores = ["–" if pd.isna(row[key]) else f"{row[key]:.4f}" for key in ("cv", "public", "private")]
    return {"date": _time(row["date"]), "name": row["name"], "scores": scores, "status": row["status"]}


def _time(text: Any) -> str:
    """An ISO time without what nobody reads."""
    return str(text)[:16].replace("T", " ")


def _one(
    one: Submission, found: Collected, competition: Competition, gallery: Gallery | None, truth: Gallery | None
) -> dict[str, Any]:
    """One submission folder."""
    tiles = _outdated() if one.outdated else [*_scores(one, found.log), *_csv_tiles(one.csv, competition)]
    tiles += [*_likeness(gallery, truth), *_origin(one)]
    items = gallery.items if gallery else []
    return {
        "name": one.name,
        "tiles": tiles,
        "tables": _tables(one.provenance or {}),
        "figures": _figures(gallery, truth),
        "cards": items,
        "cards_text": _items_text(gallery),
        "strata": sorted({item.stratum for item in items}),
        "wide": competition.kind == "slides",
    }


def _outdated() -> list[Tile]:
    """In place of the scores and the CSV of a submission that was predicted anew: they are of other predictions."""
    return [Tile("Score", "unknown", "predicted anew since; submit again"), Tile("submission.csv", "outdated")]


def _origin(one: Submission) -> list[Tile]:
    """When it was made, and by which code."""
    provenance, finished = one.provenance, one.finished
    if provenance is None:
        return [Tile("Provenance", "unknown", "there is no provenance.json; predict and submit write it")]
    code = f"histofold {provenance.get('version', '?')}, commit {provenance.get('commit') or 'unknown'}"
    return [Tile("Made", f"{_time(finished)} UTC" if finished else "predicted, not submitted", code)]


def _scores(one: Submission, log: pd.DataFrame | None) -> list[Tile]:
    """Scores of a submission: against the test truth where it is known, and Kaggle's where it answered."""
    tiles: list[Tile] = []
    if one.scores is not None and len(one.scores):
        value = estimate(one.scores)
        hint = f"{value.count} samples with known truth"
        if value.low is not None and value.high is not None:
            hint += f", {value.low:.3f} – {value.high:.3f}"
        tiles.append(Tile("Test score", f"{value.mean:.4f}", hint))
    if log is not None:
        own = log[log["name"].astype(str) == one.name]
        for name in ("public", "private"):
            if own[name].notna().any():
                tiles.append(Tile(f"Kaggle, {name}", f"{own[name].dropna().iloc[-1]:.4f}"))
    if not tiles:
        tiles.append(Tile("Score", "unknown", "no test truth here, and Kaggle was not asked"))
    return tiles


def _csv_tiles(path: Path | None, competition: Competition) -> list[Tile]:
    """Rows, samples and empty samples of the CSV."""
    if path is None:
        return [Tile("submission.csv", "none", "label files only, or submit has not run yet")]
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    style = competition.csv
    id_column = style.id_column if style else str(table.columns[0])
    rle_column = style.rle_column if style else str(table.columns[-1])
    empty = table.groupby(id_column)[rle_column].agg(lambda texts: all(text in ("", "1 0") for text in texts))
    kilobytes = path.stat().st_size / 1000
    size = f"{kilobytes / 1000:.1f} MB" if kilobytes >= 1000 else f"{kilobytes:.1f} kB"
    share = f"{int(empty.sum())} of {len(empty)} samples empty"
    return [Tile("submission.csv", f"{len(table):,} rows", f"{share}, {size}")]


def _tables(provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Provenance as tables: simple values first, then each list of records, then what is nested deeper."""
    # The checkpoints are the heart of an ensemble's record, which is long: they get a table of their own.
    ensemble = dict(provenance.get("ensemble") or {})
    checkpoints = ensemble.pop("checkpoints", [])
    nested = {"Checkpoints": checkpoints, **provenance, "ensemble": ensemble}
    simple = [(key, _text(value)) for key, value in provenance.items() if not isinstance(value, dict | list)]
    tables = [{"title": "Provenance", "columns": ["what", "value"], "rows": simple}] if simple else []
    return tables + [_table(key, value) for key, value in nested.items() if value and isinstance(value, dict | list)]


def _table(title: str, value: Any) -> dict[str, Any]:
    """A list of records with a column for each key, or nested values with their dotted names."""
    if isinstance(value, list) and all(isinstance(row, dict) for row in value):
        columns = list(dict.fromkeys(name for row in value for name in row))
        rows = [[_text(row.get(name)) for name in columns] for row in value]
        return {"title": f"{title} ({len(value)})", "columns": columns, "rows": rows}
    return {"title": title, "columns": ["what", "value"], "rows": _flat(value)}


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as dotted names."""
    if isinstance(value, dict):
        return [row for key, part in value.items() for row in _flat(part, f"{prefix}.{key}" if prefix else str(key))]
    return [(prefix, _text(value))]


def _likeness(gallery: Gallery | None, truth: Gallery | None) -> list[Tile]:
    """Medians of what is predicted beside those of the training truth."""
    if gallery is None or truth is None or not gallery.predicted or not truth.truth:
        return []
    tiles = []
    for key, label, unit in (("share", "Foreground, median", " %"), ("objects", "Objects, median", "")):
        if key in gallery.predicted[0] and key in truth.truth[0]:
            own, known = (float(np.median(_column(rows, key))) for rows in (gallery.predicted, truth.truth))
            tiles.append(Tile(label, f"{own:.3g}{unit}", f"training truth {known:.3g}{unit}"))
    return tiles


def _figures(gallery: Gallery | None, truth: Gallery | None) -> list[plots.Figure]:
    """Does the submission look like the training truth? The same quantity of both, as histograms."""
    if gallery is None or truth is None or min(len(gallery.predicted), len(truth.truth)) < ENOUGH:
        return []
    figures = [
        plots.distributions(
            "Foreground share of a sample",
            "percent of the pixels (log scale)",
            {"training truth": _column(truth.truth, "share"), "test prediction": _column(gallery.predicted, "share")},
            log=True,
        )
    ]
    if "objects" in gallery.predicted[0] and "objects" in truth.truth[0]:
        sets = {
            "training truth": _column(truth.truth, "objects"),
            "test prediction": _column(gallery.predicted, "objects"),
        }
        figures.append(plots.distributions("Objects in a sample", "objects (log scale)", sets, log=True))
    return figures


def _column(rows: Sequence[Mapping[str, float]], name: str) -> list[float]:
    return [row[name] for row in rows]


def _items_text(gallery: Gallery | None) -> str:
    """What the test pictures show."""
    if gallery is None or not gallery.items:
        return ""
    known = any(item.picture.layers.truth for item in gallery.items)
    text = f"{len(gallery.items)} of {gallery.total} test samples with the predicted outlines"
    return f"{text} and their truth." if known else f"{text}; their truth is not known here."


def _text(value: Any) -> str:
    """A value for a table's cell; long text is cut, for the page is to be read."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "–"
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 300 else text[:299] + "…"
