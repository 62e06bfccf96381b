"""Looking at one sample: its image, its truth, and what the members predicted, for pictures and calibration."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histofold import slides
from histofold.competitions.base import Competition
from histofold.errors import DataError
from histofold.evaluation.oof import MeanBands
from histofold.inference.bandfile import BandFile
from histofold.instances.secondlevel import decode
from histofold.report import pictures
from histofold.upsample import full_size

LONGEST = 1024
ROWS = 512
"""Rows of a band file in memory at a time."""

FOREGROUND = "foreground"


@dataclass(frozen=True)
class View:
    """How predictions become labels: the members' shared bands, a threshold or a decoder, and how large to draw."""

    competition: Competition
    bands: tuple[str, ...]
    threshold: float
    decoder: dict[str, Any] | None
    longest: int = LONGEST
    strata: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Decoders of strata that have one of their own."""
    second: Path | None = None
    """File of the second level that takes the decoders' place."""

    def decoder_of(self, sample_id: str) -> dict[str, Any] | None:
        """The decoder of a sample's stratum, else that of all."""
        return (
            self.strata.get(self.competition.sample(sample_id).stratum, self.decoder) if self.strata else self.decoder
        )


@dataclass(frozen=True)
class Job:
    """One sample to look at.

    Attributes:
        paths, weights: its band files, one a member.
        budget: bytes that its picture may take in the page; 0 draws none.
        measure: decode the prediction for its measures even when no picture is drawn.
    """

    sample_id: str
    paths: tuple[Path, ...]
    weights: tuple[float, ...]
    budget: int
    measure: bool = False

    def mean(self, names: tuple[str, ...]) -> MeanBands:
        """The members' weighted mean of some bands."""
        return MeanBands(self.paths, self.weights, names)


@dataclass(frozen=True)
class Picture:
    """A sample ready for the page."""

    uri: str
    layers: pictures.Layers
    counts: dict[str, float]


@dataclass(frozen=True)
class Looked:
    """What came of a job.

    Attributes:
        histogram: (2, 256) counts of foreground levels on background and on foreground; zeros without a truth.
        truth, predicted: measures of the labels: `share` in percent of the pixels and, for instances, `objects`.
        picture: when asked for.
    """

    histogram: NDArray[np.int64]
    truth: dict[str, float] | None
    predicted: dict[str, float] | None
    picture: Picture | None


def look(view: View, job: Job) -> Looked:
    """Read one sample's predictions, count levels against the truth, and draw it when `job.budget` allows.

    Raises:
        DataError: a band file is missing or broken, or its size does not fit the sample.
    """
    return _slide(view, job) if view.competition.kind == "slides" else _image(view, job)


def _image(view: View, job: Job) -> Looked:
    """An image that fits memory whole."""
    blended = job.mean(view.bands)()
    truth = view.competition.labels(job.sample_id)
    foreground = blended[FOREGROUND]
    histogram = np.zeros((2, 256), np.int64)
    with BandFile(job.paths[0]) as file:
        scale, (height, width) = file.scale, file.full_size
    if truth is not None:
        if truth.shape != (height, width):
            raise DataError(
                f"{job.paths[0]}: of an image of {height, width}, the truth has {truth.shape}; predict it anew"
            )
        levels = np.round(foreground * 255).astype(np.uint8)
        histogram = count(full_size(levels, scale, height, width), truth)
    labels = _full_labels(view, job, blended, scale, (height, width)) if job.budget or job.measure else None
    picture = None
    if labels is not None and job.budget:
        picture = _picture(view.competition.image(job.sample_id), truth, labels, view, job.budget)
    return Looked(histogram, _measures(truth, view), _measures(labels, view), picture)


def _measures(labels: NDArray[Any] | None, view: View) -> dict[str, float] | None:
    """Foreground share in percent, and the number of objects where they are told apart."""
    if labels is None:
        return None
    share = {"share": 100 * float((labels != 0).mean())}
    return {**share, "objects": _objects(labels)} if view.competition.truth == "instances" else share


def _full_labels(
    view: View, job: Job, bands: dict[str, NDArray[np.float32]], scale: float, size: tuple[int, int]
) -> NDArray[np.int32]:
    """Objects (H, W) at full size from bands, by the ensemble's decoder or its threshold."""
    chosen = view.decoder_of(job.sample_id)
    if chosen is None:
        labels = np.asarray(bands[FOREGROUND] >= view.threshold, dtype=np.int32)
    else:
        image = partial(view.competition.image, job.sample_id)
        labels = decode(bands, chosen, view.second, image, scale)
    return full_size(labels, scale, *size)


def _slide(view: View, job: Job) -> Looked:
    """A slide: band rows a few at a time, counted at the bands' reduction, drawn at a thumbnail's."""
    truth = view.competition.mask(job.sample_id)
    mean = job.mean((FOREGROUND,))
    with BandFile(job.paths[0]) as first:
        height, width, scale = first.height, first.width, first.scale
    # Whole cells of this many band pixels are averaged on the way to the thumbnail, so memory stays small.
    step = max(max(height, width) // view.longest, 1)
    histogram = np.zeros((2, 256), np.int64)
    pieces: list[NDArray[np.float32]] = []
    rows = max(ROWS // step, 1) * step
    for top in range(0, height, rows):
        foot = min(top + rows, height)
        levels = mean.rows(FOREGROUND, top, foot)
        if truth is not None:
            start = round(top * scale)
            window = (start, 0, min(round((foot - top) * scale), truth.height - start), truth.width)
            inside = truth.reduced_window(*window, scale) >= 0.5
            histogram += count(levels, inside[: foot - top, :width])
        if job.budget:
            size = (max(width // step, 1), max(round((foot - top) / step), 1))
            pieces.append(cv2.resize(levels.astype(np.float32), size, interpolation=cv2.INTER_AREA))
    share = {"share": 100 * truth.area / (truth.height * truth.width)} if truth is not None else None
    if not job.budget:
        return Looked(histogram, share, None, None)
    image, shrunk = slides.thumbnail(view.competition.source(job.sample_id), view.longest)
    small = cv2.resize(np.concatenate(pieces), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    labels = np.asarray(small >= view.threshold * 255, dtype=np.uint8)
    reduced = None
    if truth is not None:
        reduced = np.asarray(truth.reduced_window(0, 0, truth.height, truth.width, shrunk) >= 0.5, dtype=np.uint8)
    picture = _picture(image, reduced, labels, view, job.budget)
    return Looked(histogram, share, _measures(labels, view), picture)


def count(levels: NDArray[np.uint8], truth: NDArray[Any]) -> NDArray[np.int64]:
    """Histogram (2, 256) of uint8 levels on background (row 0) and on foreground (row 1)."""
    keys = levels.ravel().astype(np.int64) + 256 * (truth.ravel() != 0)
    return np.bincount(keys, minlength=512).reshape(2, 256)


def _picture(
    image: NDArray[np.uint8], truth: NDArray[Any] | None, labels: NDArray[Any], view: View, budget: int
) -> Picture:
    """Encode image and outlines within the budget; outlines give way first, since a blurred image hides more."""
    one_by_one = view.competition.truth == "instances"
    drawn = pictures.layers(truth, labels, one_by_one, round(0.6 * budget))
    uri = pictures.webp(pictures.stretched(image), view.longest, max(budget - len(drawn), budget // 3))
    return Picture(uri, drawn, _counts(truth, labels, one_by_one))


def _counts(truth: NDArray[Any] | None, labels: NDArray[Any], one_by_one: bool) -> dict[str, float]:
    """Facts beside a picture: numbers of objects, or shares of the image."""
    if not one_by_one:
        facts = {"predicted %": round(100 * float((labels != 0).mean()), 2)}
        return facts if truth is None else {"truth %": round(100 * float((truth != 0).mean()), 2), **facts}
    facts = {"predicted objects": _objects(labels)}
    if truth is None:
        return facts
    missed, false = pictures.unmatched(truth, labels)
    return {"true objects": _objects(truth), **facts, "missed": _objects(missed), "false": _objects(false)}


def _objects(labels: NDArray[Any]) -> int:
    """Number of labels in an image."""
    return int(np.count_nonzero(np.bincount(labels.ravel())[1:]))
