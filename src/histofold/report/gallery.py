"""Which samples get a picture, in what order, and how the page's bytes are shared among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histofold.metrics import COUNTS
from histofold.parallel import each
from histofold.report.predictions import Job, Looked, Picture, View, look
from histofold.report.stats import other_metrics

TOTAL = 9_000_000
"""Bytes of the page that its pictures may take together."""

LARGEST = 150_000
"""Bytes that one picture may take, however few there are; a slide's thumbnail needs about that."""

FEW = 30_000_000
"""Pixels in all up to which one process is faster than starting several, each of which imports half the field."""

OUTLINED = ("predicted objects", "predicted %", "missed", "false")
"""Facts beside a picture that are of its outlines, and so of the settings that they were made with."""


@dataclass(frozen=True)
class Item:
    """A card of the gallery."""

    sample_id: str
    fold: int
    stratum: str
    score: float | None
    facts: dict[str, float]
    picture: Picture

    @property
    def search(self) -> str:
        """Text that the search box looks in."""
        return f"{self.sample_id} {self.stratum}".lower()


@dataclass(frozen=True)
class Gallery:
    """Cards from worst to best and what was counted over all samples looked at.

    Attributes:
        histogram: (2, 256) foreground levels against the truth.
        truth, predicted: measures of the samples, as in `predictions.Looked`.
        problems: one line for each sample that could not be read.
    """

    items: list[Item]
    histogram: NDArray[np.int64]
    total: int
    truth: list[dict[str, float]]
    predicted: list[dict[str, float]]
    problems: list[str]


def choose(scores: pd.DataFrame, limit: int) -> list[str]:
    """Ids that get a picture, worst first: all when they fit, else the worst half and an even walk through the rest."""
    ranked = [str(name) for name in scores.sort_values(["score", "sample_id"])["sample_id"]]
    if len(ranked) <= limit:
        return ranked
    worst = ranked[: limit // 2]
    rest = ranked[limit // 2 :]
    places = np.linspace(0, len(rest) - 1, limit - len(worst)).round().astype(int)
    return worst + [rest[place] for place in places]


def allowance(pictures: int, total: int = TOTAL) -> int:
    """Bytes for each of so many pictures."""
    return min(total // max(pictures, 1), LARGEST)


def oof_jobs(
    oof: Path, members: Sequence[tuple[str, float]], scores: pd.DataFrame, chosen: Sequence[str], total: int = TOTAL
) -> tuple[list[Job], list[str]]:
    """A job for each scored sample whose OOF predictions exist, and the ids of those without."""
    drawn, budget = set(chosen), allowance(len(chosen), total)
    jobs, absent = [], []
    for sample, fold in zip(scores["sample_id"].astype(str), scores["fold"].astype(int), strict=True):
        paths = tuple(oof / run / f"fold{fold}" / "predictions" / f"{sample}.tif" for run, _ in members)
        if not all(path.exists() for path in paths):
            absent.append(sample)
            continue
        weights = tuple(weight for _, weight in members)
        jobs.append(Job(sample, paths, weights, budget if sample in drawn else 0))
    return jobs, absent


def gather(
    view: View, jobs: Sequence[Job], scores: pd.DataFrame | None, workers: int, text: str, crossed: bool = False
) -> Gallery:
    """Look at every job's sample in parallel; a sample that cannot be read is named and does not stop the others.

    Args:
        view: how predictions are read; its settings are those of the outlines.
        scores: one row a sample, None where nothing is scored.
        workers: processes, 0 for one a core.
        text: what the progress bar says.
        crossed: whether the scores are cross-fitted, so that their counts are of other settings than the outlines'.
    """
    samples = [view.competition.sample(job.sample_id) for job in jobs]
    if sum(sample.height * sample.width for sample in samples) < FEW:
        workers = 1
    histogram = np.zeros((2, 256), np.int64)
    looked: dict[str, Looked] = {}
    problems = []
    for job, result in each(partial(look, view), jobs, workers, text):
        if isinstance(result, Exception):
            problems.append(f"{job.sample_id}: {result}")
            continue
        histogram += result.histogram
        looked[job.sample_id] = result
    drawn = {name: result.picture for name, result in looked.items() if result.picture}
    items = [_item(name, picture, _row(scores, name), view, crossed) for name, picture in drawn.items()]
    items.sort(key=lambda item: (item.score if item.score is not None else 0.0, item.sample_id))
    names = sorted(looked)
    truth = [measures for name in names if (measures := looked[name].truth)]
    predicted = [measures for name in names if (measures := looked[name].predicted)]
    return Gallery(items, histogram, len(jobs), truth, predicted, sorted(problems))


def _row(scores: pd.DataFrame | None, name: str) -> pd.DataFrame | None:
    """The one row of a sample's scores."""
    if scores is None:
        return None
    rows = scores[scores["sample_id"].astype(str) == name]
    return rows.head(1) if len(rows) else None


def _item(name: str, picture: Picture, row: pd.DataFrame | None, view: View, crossed: bool) -> Item:
    """A card; where nothing is scored the stratum comes from the competition."""
    if row is None:
        return Item(name, -1, view.competition.sample(name).stratum, None, picture.counts, picture)
    first = row.iloc[0]
    drawn, scored = picture.counts, other_metrics(row)
    if crossed:
        drawn = {_said(fact, "final settings", OUTLINED): value for fact, value in drawn.items()}
        scored = {_said(fact, "cross-fitted", COUNTS): value for fact, value in scored.items()}
    facts = {**drawn, **scored}
    return Item(name, int(first["fold"]), str(first["stratum"]), float(first["score"]), facts, picture)


def _said(fact: str, settings: str, concerned: Sequence[str]) -> str:
    """A fact with the settings that it is of, when it is one of those concerned."""
    return f"{fact} ({settings})" if fact in concerned else fact
