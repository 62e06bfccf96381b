"""From collected data to the HTML page: which sections there are, what the summary says, and what it cannot show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from histofold.competitions.base import Competition
from histofold.kaggle import log
from histofold.metrics.merged import MARK, NOTE, marked
from histofold.report import sections, stats, submitted
from histofold.report.data import Collected, Ensemble
from histofold.report.gallery import Gallery, Item
from histofold.report.sections import Tile

HERE = Path(__file__).parent

NAMES = {
    "runs": "Runs",
    "curves": "Curves",
    "cv": "CV",
    "threshold": "Threshold",
    "members": "Members",
    "gallery": "Gallery",
    "submitted": "Submitted",
}


SINGLE = "one fold only: its settings were chosen on itself, so even the cross-fitted score is optimistic"
"""What `evaluate` says of such an ensemble, too."""

METRICS = {
    "dsb": "DSB score (mean precision over IoU 0.5 to 0.95)",
    "dice": "Dice",
    "iou": "IoU",
    "aji": "AJI",
    "pq": "panoptic quality",
    "ap50": "AP at IoU 0.5",
    "f1_50": "F1 at IoU 0.5",
    "f2_50": "F2 at IoU 0.5",
}
"""Metrics in words; one that is not here goes by its own name."""


@dataclass(frozen=True)
class Content:
    """All that the page is made of.

    Attributes:
        scores: one row a sample, the ensemble's cross-fitted ones or the best run's.
        whose: in words, whose scores these are.
        oof: pictures and histogram of the training samples, None when no prediction could be read.
        tests: the same for each submission, by its name.
        counts: fold set → number of its folds, where they are known.
    """

    competition: Competition
    found: Collected
    ensemble: Ensemble | None
    scores: pd.DataFrame | None
    whose: str
    threshold: float
    oof: Gallery | None
    tests: Mapping[str, Gallery]
    notes: list[tuple[str, str]]
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The metric of all scores on the page: the ensemble's, which may not be the competition's of today."""
        return (self.ensemble.metric if self.ensemble else "") or self.competition.metric


def render(content: Content) -> str:
    """The whole page as HTML; every text that comes from data is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    # The style sheet and the script are ours and go in as they are; nothing else does.
    environment.filters["breaks"] = lambda text: escape(text).replace("_", Markup("_<wbr>"))
    css, js = (Markup((HERE / name).read_text(encoding="utf-8")) for name in ("style.css", "script.js"))
    return environment.get_template("template.html").render(page=values(content), css=css, js=js)


def values(content: Content) -> dict[str, Any]:
    """The template's values."""
    score = _score(content)
    slides = content.competition.kind == "slides"
    page: dict[str, Any] = {
        "title": f"{content.competition.name}: histofold report",
        "competition": content.competition.name,
        "notes": [{"what": what, "how": how} for what, how in content.notes],
        "board": sections.board(content.found.runs, content.competition.merged, content.metric, content.counts),
        "curves": sections.curves(content.found.runs, content.metric, content.counts),
        "cv": _cv(content),
        "tuning": _tuning(content),
        "members": _members(content, score),
        "gallery": _gallery(content, slides),
        "sent": submitted.section(content.found, content.competition, content.tests, content.oof),
        "footer": f"Made by histofold on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC from the files of this competition's "
        "runs, ensembles and submissions. The page is self-contained: it loads nothing from anywhere.",
    }
    there = {"runs": "board", "threshold": "tuning", "submitted": "sent"}
    page["sections"] = [
        (anchor, "Slides" if anchor == "gallery" and slides else text)
        for anchor, text in NAMES.items()
        if page[there.get(anchor, anchor)]
    ]
    return page | _summary(content, score)


def _cv(content: Content) -> dict[str, Any] | None:
    """Score by fold and stratum, and every metric by stratum."""
    if content.scores is None:
        return None
    single = SINGLE.capitalize() if content.ensemble is not None and content.ensemble.single else ""
    table = sections.cv(content.scores, content.whose, ". ".join(text for text in (single, _note(content)) if text))
    return {**table, "measures": sections.measures(content.scores, content.competition.merged)}


def _note(content: Content) -> str:
    """What has to be said about the score where touching objects are one in the labels; empty otherwise."""
    return NOTE if marked(content.metric, content.competition.merged) != content.metric else ""


def _score(content: Content) -> float | None:
    """The number at the top: cross-fitted where there is an ensemble, else the best run's mean."""
    if content.ensemble is not None:
        value = content.ensemble.score.get("cross_fitted")
        return float(value) if value is not None else None
    return float(content.scores["score"].mean()) if content.scores is not None else None


def _tuning(content: Content) -> dict[str, Any] | None:
    """Threshold and calibration need predictions or an ensemble's curve."""
    histogram = content.oof.histogram if content.oof else np.zeros((2, 256), np.int64)
    return sections.tuning(content.ensemble, histogram, content.threshold)


def _members(content: Content, score: float | None) -> dict[str, Any] | None:
    return sections.members(content.ensemble, content.found.runs, score) if content.ensemble else None


def _gallery(content: Content, slides: bool) -> dict[str, Any] | None:
    """The gallery's values; None without a picture."""
    if content.oof is None or not content.oof.items:
        return None
    items = content.oof.items
    what = "slides" if slides else "samples"
    shown = (
        f"All {len(items)} {what}" if len(items) == content.oof.total else f"{len(items)} of {content.oof.total} {what}"
    )
    settings = "Outlines are drawn with the final settings, scores are cross-fitted."
    if content.ensemble is not None and content.ensemble.single:
        settings = "Outlines and scores are of settings which this one fold chose itself."
    if content.ensemble is None:
        settings = "Outlines and scores are of default settings, as nothing is tuned yet."
    kind = "objects without a partner" if content.competition.truth == "instances" else "pixels"
    text = (
        f"{shown}, worst first, with the outlines of {content.whose}. “Difference” fills {kind} that are missed (cyan) "
        f"or false (orange). Select a picture to enlarge it. {settings} "
        "Very dark images are shown brighter than they are."
    )
    return {
        "title": "Slides, worst to best" if slides else "Gallery, worst to best",
        "text": text,
        "cards": items,
        "strata": sorted({item.stratum for item in items}),
        "folds": sorted({item.fold for item in items}),
        "wide": slides,
    }


def _summary(content: Content, score: float | None) -> dict[str, Any]:
    """Headline, number, tiles and three pictures."""
    found, ensemble = content.found, content.ensemble
    partial = bool(ensemble.record.get("partial")) if ensemble else False
    tiles = _tiles(content)
    metric = METRICS.get(content.metric, content.metric)
    metric += MARK if _note(content) else ""
    if ensemble:
        text = f"{'Mean' if ensemble.single else 'Cross-fitted'} {metric} on out-of-fold predictions"
        optimistic = ensemble.score.get("optimistic")
        if ensemble.single:
            text += f"; {SINGLE}"
        elif optimistic is not None:
            text += f" (optimistic {float(optimistic):.4f})"
        text += "; a partial CV, not all folds are in it." if partial else "."
        # Files of earlier versions have an interval of any number of groups.
        enough = content.scores is not None and stats.enough_groups(content.scores)
        interval = ensemble.score.get("interval") if enough else None
        headline = f"Ensemble {ensemble.name}"
    else:
        text = f"Mean {metric} of {content.whose}, no ensemble yet." if score is not None else ""
        value = stats.estimate(content.scores) if content.scores is not None else None
        interval = (value.low, value.high) if value and value.low is not None else None
        best = stats.leaderboard(found.runs, content.metric, content.counts)
        headline = f"Best run: {best[0].name}" if content.scores is not None else "Nothing scored yet"
    return {
        "eyebrow": f"Report · {content.competition.name} · {datetime.now(UTC):%d %B %Y}",
        "headline": headline,
        "score": score,
        "interval": interval,
        "score_text": text,
        "tiles": tiles,
        "trio": _trio(content.oof.items if content.oof else []),
    }


def _tiles(content: Content) -> list[Tile]:
    """The facts beside the number."""
    tiles: list[Tile] = []
    ensemble, scores = content.ensemble, content.scores
    if scores is not None:
        folds = ", ".join(str(int(fold)) for fold in sorted(scores["fold"].unique()))
        tiles.append(Tile("Scored", f"{len(scores):,} samples", f"folds {folds}"))
    if ensemble:
        members = ensemble.record["members"]
        hint = ", ".join(str(member["run"]) for member in members)
        tiles.append(Tile("Members", f"{len(members)} run{'s' if len(members) != 1 else ''}", hint))
        decoder = ensemble.record.get("instances")
        if decoder:
            options = ", ".join(f"{key} {value}" for key, value in decoder.items() if key != "name")
            own = ", ".join(sorted(ensemble.record.get("strata") or {}))
            tiles.append(
                Tile("Instances", decoder["name"], f"{options}; settings of their own: {own}" if own else options)
            )
            second = ensemble.record.get("second")
            if second:
                tiles.append(Tile("Second level", f"{float(second['gain']):+.4f}", "against the decoder alone"))
        elif ensemble.record.get("threshold") is not None:
            tiles.append(Tile("Threshold", f"{float(ensemble.record['threshold']):.3f}"))
        extra = ensemble.record.get("extra") or {}
        for name in sections.by_interest([name for name in extra if name != content.metric]):
            # The score is the large number already.
            if isinstance(extra[name], int | float) and not isinstance(extra[name], bool) and len(tiles) < 7:
                tiles.append(Tile(name, f"{extra[name]:.4f}"))
    predicted = [one.name for one in content.found.submissions if one.csv or one.provenance]
    sent = content.found.log
    # A notebook may have been sent though the test set was never predicted here.
    others = [] if sent is None else [str(name) for name in sent.loc[sent["status"] != log.FAILED, "name"]]
    names = ", ".join(dict.fromkeys([*predicted, *others]))
    tiles.append(Tile("Submitted", names or "nothing yet", _outcome(content)))
    return tiles


def _outcome(content: Content) -> str:
    """How the submissions did, in a few words."""
    log = content.found.log
    if log is not None and log["public"].notna().any():
        return f"best public score {log['public'].max():.4f}"
    scored = [one for one in content.found.submissions if one.scores is not None and len(one.scores)]
    if scored and scored[-1].scores is not None:
        return f"{scored[-1].scores['score'].mean():.4f} against the test truth ({scored[-1].name})"
    return ""


def _trio(items: list[Item]) -> list[tuple[str, Item]]:
    """A median sample large, the worst and the best below."""
    if not items:
        return []
    if len(items) < 3:
        return [("Sample", items[-1])]
    return [("Median", items[len(items) // 2]), ("Worst", items[0]), ("Best", items[-1])]
