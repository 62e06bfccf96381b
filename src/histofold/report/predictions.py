"""Looking at one sample: its image, its truth, and what the members predicted, for pictures and calibration."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from histofold import rle, slides
from histofold.competitions.base import Competition
from histofold.errors import DataError
from histofold.evaluation.oof import MeanBands
from histofold.inference.bandfile import BandFile
from histofold.instances.secondlevel import decode
from histofold.report import pictures
from histofold.rle import RunMask
from histofold.submission.encode import cleaned, mask_text
from histofold.tiles.grid import rational
from histofold.upsample import full_size

LONGEST = 1024
ROWS = 512
"""Rows of a band file in memory at a time."""

MOST_ROWS = 2048
"""As many where fewer would not begin at whole pixels of the slide."""

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
    min_area: int = 0
    """Full-size pixels below which an object is dropped, as `submit.min_area`."""
    max_hole: int = 0
    """Full-size pixels up to which a hole is filled, as `submit.max_hole`."""

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
        labels: label image that was submitted; it is shown in place of decoding the bands anew.
        text: the same of a slide, as the run-length text of the submission's CSV.
    """

    sample_id: str
    paths: tuple[Path, ...]
    weights: tuple[float, ...]
    budget: int
    measure: bool = False
    labels: Path | None = None
    text: str | None = None

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
        DataError: a band file or a label image is missing or broken, or its size does not fit the sample.
        RleError: the text of a slide does not fit it.
    """
    return _slide(view, job) if view.competition.kind == "slides" else _image(view, job)


def _image(view: View, job: Job) -> Looked:
    """An image that fits memory whole."""
    # Labels that lie there need no decoding, so only what the histogram counts is read.
    blended = job.mean(view.bands if job.labels is None else (FOREGROUND,))()
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
    labels: NDArray[np.int32] | None = None
    if job.budget or job.measure:
        size = (height, width)
        labels = _written(job.labels, size) if job.labels else _full_labels(view, job, blended, scale, size)
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
    """Objects (H, W) at full size from bands, by the ensemble's decoder or its threshold, cleaned as submitted."""
    chosen = view.decoder_of(job.sample_id)
    if chosen is not None:
        image = partial(view.competition.image, job.sample_id)
        labels = full_size(decode(bands, chosen, view.second, image, scale), scale, *size)
        return np.asarray(cleaned(labels, view.min_area, view.max_hole), dtype=np.int32)
    if len(job.paths) == 1:
        # The very text that `submit` makes of a band file, so that the picture is the CSV's.
        with BandFile(job.paths[0]) as file:
            text = mask_text(file, view.threshold, size, "rows", view.min_area, view.max_hole)
        return np.asarray(rle.decode(text, size, "rows"), dtype=np.int32)
    return full_size(np.asarray(bands[FOREGROUND] >= view.threshold, dtype=np.int32), scale, *size)


def _written(path: Path, size: tuple[int, int]) -> NDArray[np.int32]:
    """A label image (H, W) that `submit` wrote."""
    try:
        with warnings.catch_warnings():
            # A microscope image has no place on the earth, and each file would say so.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as file:
                labels = np.asarray(file.read(1), dtype=np.int32)
    except (RasterioError, OSError) as error:
        raise DataError(f"{path}: not readable as a label image ({error}); run submit again") from error
    if labels.shape != size:
        raise DataError(f"{path}: a label image of {labels.shape} for a prediction of {size}; run submit again")
    return labels


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
    rows = _rows_at_once(step, scale)
    for top in range(0, height, rows):
        foot = min(top + rows, height)
        levels = mean.rows(FOREGROUND, top, foot)
        if truth is not None:
            histogram += count(levels, _reduced_rows(truth, top, foot, width, scale))
        if job.budget and job.text is None:
            size = (max(width // step, 1), max(round((foot - top) / step), 1))
            pieces.append(cv2.resize(levels.astype(np.float32), size, interpolation=cv2.INTER_AREA))
    share = _share(truth) if truth is not None else None
    submitted = _submitted(view, job)
    predicted = _share(submitted) if submitted is not None else None
    if not job.budget:
        return Looked(histogram, share, predicted, None)
    image, shrunk = slides.thumbnail(view.competition.source(job.sample_id), view.longest)
    if submitted is not None:
        labels = submitted.reduced_mask(0, 0, submitted.height, submitted.width, shrunk)
    else:
        small = cv2.resize(np.concatenate(pieces), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        labels = np.asarray(small >= view.threshold * 255, dtype=np.uint8)
    reduced = truth.reduced_mask(0, 0, truth.height, truth.width, shrunk) if truth is not None else None
    picture = _picture(image, reduced, labels, view, job.budget)
    return Looked(histogram, share, predicted or _measures(labels, view), picture)


def _rows_at_once(step: int, scale: float) -> int:
    """How many band rows to take together: whole cells of `step`, if possible from whole pixels of the slide on."""
    # At 2.7 every tenth row of the bands begins with a pixel; elsewhere a cell's truth would be cut in two.
    aligned = math.lcm(step, rational(scale).denominator)
    unit = aligned if aligned <= MOST_ROWS else step
    return max(ROWS // unit, 1) * unit


def _reduced_rows(truth: RunMask, top: int, foot: int, width: int, scale: float) -> NDArray[np.uint8]:
    """The truth of band rows [top, foot), (foot - top, width) of 0 and 1."""
    start = min(round(top * rational(scale)), truth.height - 1)
    # A pixel more than the cells take, since rounding may never cost a row; what lies beyond the slide does not count.
    height, across = (math.ceil(length * scale) + 1 for length in (foot - top, width))
    return truth.reduced_mask(start, 0, height, across, scale)[: foot - top, :width]


def _submitted(view: View, job: Job) -> RunMask | None:
    """The mask of a slide that stands in the submission's CSV; None where there is none."""
    if job.text is None or view.competition.csv is None:
        return None
    sample = view.competition.sample(job.sample_id)
    return RunMask(job.text, (sample.height, sample.width), view.competition.csv.dialect)


def _share(mask: RunMask) -> dict[str, float]:
    """Foreground of a slide in percent."""
    return {"share": 100 * mask.area / (mask.height * mask.width)}


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
