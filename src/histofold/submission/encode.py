"""One predicted sample becomes its rows of the submission (or its label image), in a process of its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histofold import rle
from histofold.competitions.base import Competition, Sample
from histofold.errors import DataError
from histofold.files import atomic
from histofold.inference.bandfile import BandFile
from histofold.instances.cleanup import fill_holes, renumber
from histofold.instances.secondlevel import decode
from histofold.upsample import full_size

ROWS = 512
"""Rows of a band file that are read together."""


@dataclass(frozen=True)
class EncodeTask:
    """What a process needs to encode one sample.

    Attributes:
        path: its band file.
        labels: the label image to write (its GeoJSON goes to the folder geojson/ beside its own), None for slides.
        threshold, instances: of the ensemble; one of them is None.
        min_area, max_hole: full-size pixels; smaller objects are dropped, holes up to that size filled.
        scored: whether the truth is asked for; a notebook on Kaggle has none.
        second: file of the second level that takes the decoder's place, where there is one.
    """

    competition: Competition
    sample: Sample
    path: Path
    labels: Path | None
    threshold: float | None
    instances: dict[str, Any] | None
    min_area: int
    max_hole: int
    scored: bool = True
    second: Path | None = None


@dataclass(frozen=True)
class Encoded:
    """RLE texts of a sample, one a row of the CSV, and its scores where the truth is known."""

    texts: tuple[str, ...]
    scores: dict[str, float] | None


def encode(task: EncodeTask) -> Encoded:
    """Decode, write labels, encode and score one sample.

    Raises:
        DataError: the band file or the truth cannot be read.
    """
    return _encode_instances(task) if task.instances is not None else _encode_mask(task)


def _encode_instances(task: EncodeTask) -> Encoded:
    assert task.instances is not None
    image = partial(task.competition.image, task.sample.sample_id)
    with BandFile(task.path) as file:
        _check_size(file, task.sample)
        labels = decode(file.read(), task.instances, task.second, image, file.scale)
        labels = full_size(labels, file.scale, task.sample.height, task.sample.width)
    labels = cleaned(labels, task.min_area, task.max_hole)
    _keep(task, labels)
    dialect = task.competition.csv.dialect if task.competition.csv else "columns"
    texts = tuple(rle.encode_labels(labels, dialect).values()) or ("",)
    truth = task.competition.labels(task.sample.sample_id) if task.scored else None
    if truth is None:
        return Encoded(texts, None)
    # Imported here: a notebook has no metrics.
    from histofold.metrics import final_scores

    values = final_scores(truth, labels)
    return Encoded(texts, {"score": values[task.competition.metric], **values})


def _keep(task: EncodeTask, labels: NDArray[Any]) -> None:
    """Write the label image and, in a folder beside it, the same as GeoJSON."""
    if task.labels is None:
        return
    from histofold.submission.geojson import write_geojson

    write_labels(task.labels, labels)
    place = task.labels.parent.with_name("geojson") / f"{task.sample.sample_id}.geojson"
    write_geojson(place, labels, task.instances is not None)


def _encode_mask(task: EncodeTask) -> Encoded:
    assert task.threshold is not None
    sample, competition = task.sample, task.competition
    dialect = competition.csv.dialect if competition.csv else "columns"
    size = (sample.height, sample.width)
    with BandFile(task.path) as file:
        _check_size(file, sample)
        text = mask_text(file, task.threshold, size, dialect, task.min_area, task.max_hole)
    if task.labels is not None:
        _keep(task, rle.decode(text, size, dialect))
    return Encoded((text,), _mask_scores(task, text) if task.scored else None)


def _check_size(file: BandFile, sample: Sample) -> None:
    """Look whether a band file is of the sample as it is now.

    Raises:
        DataError: it was predicted from an image of another size.
    """
    if file.full_size != (sample.height, sample.width):
        raise DataError(
            f"{file.path}: was predicted from an image of {file.full_size[0]} × {file.full_size[1]} pixels, and sample "
            f"{sample.sample_id} has {sample.height} × {sample.width}; run predict again"
        )


def mask_text(
    file: BandFile, threshold: float, size: tuple[int, int], dialect: str, min_area: int, max_hole: int
) -> str:
    """The mask of a band file at full size (height, width) as a run-length text.

    Args:
        file: open; its band `foreground` counts.
        threshold: 0..1, from which on it is foreground.
        size: full-size (height, width).
        dialect: of the text.
        min_area, max_hole: pixels; smaller objects are dropped, then holes up to that size filled; 0 leaves all.

    Raises:
        DataError: it has no foreground, or is broken.
    """
    band = file.index("foreground")
    return rle.encode_upsampled(_rows(file, band), file.scale, *size, threshold, dialect, min_area, max_hole)


def cleaned(labels: NDArray[Any], min_area: int, max_hole: int) -> NDArray[Any]:
    """Instances (H, W) without those of fewer than `min_area` pixels, then with holes up to `max_hole` pixels filled.

    As of masks: what was dropped belongs to the hole that it was in. Only holes inside of a single instance are filled.
    Numbers become consecutive where instances may be dropped; 0 and 0 leave labels as they are.
    """
    if min_area > 1:
        labels = renumber(labels, min_area)
    return fill_holes(labels, max_hole) if max_hole > 0 else labels


def _rows(file: BandFile, band: int) -> Iterator[NDArray[np.uint8]]:
    for top in range(0, file.height, ROWS):
        yield file.rows(top, min(top + ROWS, file.height))[band]


def _mask_scores(task: EncodeTask, text: str) -> dict[str, float] | None:
    """Dice and IoU of the text itself with the truth, so that what is scored is what is submitted."""
    competition, sample = task.competition, task.sample
    dialect = competition.csv.dialect if competition.csv else "columns"
    shape = (sample.height, sample.width)
    predicted = rle.RunMask(text, shape, dialect)
    if competition.kind == "slides":
        truth = competition.mask(sample.sample_id)
    else:
        labels = competition.labels(sample.sample_id)
        truth = None if labels is None else rle.RunMask.from_mask((labels > 0).astype(np.uint8), dialect)
    if truth is None:
        return None
    # Imported here: a notebook has no metrics.
    from histofold.metrics import PIXELS, pooled_counts

    areas = (predicted.intersection(truth), truth.area, predicted.area)
    scores = pooled_counts(*areas)
    return {"score": scores[competition.metric], **scores, **dict(zip(PIXELS, map(float, areas), strict=True))}


def write_labels(path: Path, labels: NDArray[Any]) -> None:
    """Write a label image as a compressed TIFF of the smallest type that holds it, uint8 to uint32."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    top = int(labels.max(initial=0))
    kind = "uint8" if top < 2**8 else "uint16" if top < 2**16 else "uint32"
    height, width = labels.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": kind}
    with warnings.catch_warnings(), atomic(path) as temporary:
        # A microscope image has no place on the earth, and each file would say so.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(temporary, "w", compress="deflate", predictor=2, **profile) as file:
            file.write(labels.astype(kind), 1)
