"""From a competition's sample to what the predictor reads, at the scale that networks work at."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from histofold import slides
from histofold.competitions.base import Competition, Sample
from histofold.errors import DataError
from histofold.files import digest, file_digest, reading
from histofold.inference.batches import CHUNK
from histofold.inference.planning import SampleSize
from histofold.inference.predict import Job
from histofold.inference.sources import ArraySource, SlideSource, Source
from histofold.slides.reduce import reduce_array
from histofold.tiles.grid import reduced


def open_source(competition: Competition, sample: Sample, scale: float) -> Source:
    """Open a slide, or read an image, at a reduction ≥ 1.

    Raises:
        DataError: the file is missing or broken.
    """
    path = competition.source(sample.sample_id)
    with reading(path):
        if competition.kind == "slides":
            return SlideSource(slides.open(path), scale)
        image = competition.image(sample.sample_id)
    return ArraySource(image if scale == 1 else reduce_array(image, scale), scale, (sample.height, sample.width))


def job(competition: Competition, sample: Sample, scale: float, folder: Path) -> Job:
    """A sample as a job of the predictor, writing `<folder>/<sample_id>.tif`, stamped with what its file holds."""
    pixels = reduced(sample.height, scale) * reduced(sample.width, scale)
    opener = partial(open_source, competition, sample, scale)
    out = folder / f"{sample.sample_id}.tif"
    return Job(sample.sample_id, opener, out, pixels, stamp_of(competition, sample))


def stamp_of(competition: Competition, sample: Sample) -> str:
    """Digest of a sample's file and its size in use, the same on every machine, so that shards give the same bytes.

    Empty where the file cannot be read: it is told when its turn comes.
    """
    try:
        content = file_digest(competition.source(sample.sample_id))
    except (DataError, OSError):
        return ""
    return digest([content, sample.height, sample.width])


def size_of(competition: Competition, sample: Sample) -> SampleSize:
    """What a plan needs to know of a sample whose size is known; a slide's header is read for it.

    A slide that cannot be opened counts without its reader: it stops no other and is told when its turn comes.
    """
    if competition.kind != "slides":
        return SampleSize(sample.height, sample.width)
    try:
        path = competition.source(sample.sample_id)
        with reading(path), slides.open(path) as slide:
            return SampleSize(sample.height, sample.width, True, slide.memory(CHUNK))
    except (DataError, OSError):
        return SampleSize(sample.height, sample.width, True)
