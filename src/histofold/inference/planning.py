"""What `predict` will need, from the sizes of the samples, the settings, and one batch that is tried out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from histofold import limits
from histofold.inference import predict, sized, stream, tta
from histofold.inference.bandfile import BLOCK
from histofold.inference.batches import CHUNK, TileBatch
from histofold.inference.blending import axis
from histofold.inference.member import Member
from histofold.inference.settings import Settings, divisor_of
from histofold.slides.gdal import CACHE_BYTES
from histofold.tiles.grid import reduced

TISSUE = 0.6
"""Share of a slide's tiles that are expected to hold tissue, where background is skipped."""
COMPRESSED = 0.5
"""Bytes on disk for a pixel of a band: maps of probability are mostly flat."""
DECODED_PER_SECOND = 200e6
"""Bytes of pixels of a compressed slide that are decoded and reduced in a second; reading runs beside the networks."""

ADVICE = {
    "memory": "take a smaller predict.tile or predict.batch, or set limits.memory",
    "disk": "free some, move paths.submissions, or set limits.disk",
    "time": "split the work with shard=i/n, take fewer views (predict.tta), a larger predict.step or fewer members",
}


@dataclass(frozen=True)
class Trial:
    """One batch, tried out: seconds for a tile through all members and views, and the resident memory at its peak."""

    seconds: float
    peak: int


def plan(
    sizes: Sequence[tuple[int, int]],
    scale: float,
    members: Sequence[Member],
    settings: Settings,
    sparse: bool,
    reading: int = 0,
) -> limits.Plan:
    """Estimate memory, disk and time.

    Args:
        sizes: (height, width) of the samples that are still to do, at full size.
        scale: reduction ≥ 1 that they are predicted at.
        members: as they will be used.
        settings: as they will be used.
        sparse: whether these are slides, of which background may be skipped.
        reading: bytes that the reader of the largest slide needs (`Slide.memory`).
    """
    reduced_sizes = [(reduced(height, scale), reduced(width, scale)) for height, width in sizes]
    looked = [magnified(size, sized.EXPECTED, settings) for size in reduced_sizes]
    largest = [magnified(size, sized.LARGEST, settings) for size in reduced_sizes]
    bands = len(stream.output_bands(members, settings))
    share = TISSUE if sparse and settings.skip_background else 1.0
    trial = try_out(members, settings)
    tiles = sum(tile_count(size, members, settings) for size in looked)
    pixels = sum(height * width for height, width in sizes)
    held = max((streaming_bytes(size, members, settings, whole=not sparse) for size in largest), default=0)
    seconds = max(tiles * share * trial.seconds, 3 * pixels / DECODED_PER_SECOND if sparse else 0.0)
    disk = COMPRESSED * bands * sum(height * width for height, width in reduced_sizes)
    return limits.Plan("predict", trial.peak + held + reading, int(disk), seconds, dict(ADVICE))


def magnified(size: tuple[int, int], zoom: float, settings: Settings) -> tuple[int, int]:
    """(height, width) of an image as the networks see it: `zoom` times as large where `predict.size` magnifies."""
    return (round(size[0] * zoom), round(size[1] * zoom)) if settings.size else size


def try_out(members: Sequence[Member], settings: Settings) -> Trial:
    """Send one batch of noise through all members and views, twice; the second time counts."""
    predictor = stream.Predictor(members, None, settings)
    tile = settings.tile_for(members)
    size = max(1, settings.batch // len(predictor.views))
    pixels = torch.randint(0, 256, (size, 3, tile, tile), dtype=torch.uint8)
    batch = TileBatch(((0, 0),) * size, (pixels,) * len(predictor.looks))
    with predictor.ready():
        predictor.predict(batch)
        start = time.perf_counter()
        # Moving the result to the CPU waits for a GPU to be done.
        predictor.predict(batch).cpu()
        seconds = time.perf_counter() - start
    return Trial(seconds / size, resident_peak())


def tile_count(size: tuple[int, int], members: Sequence[Member], settings: Settings) -> int:
    """Tiles of a sample of (height, width) at the scale that it is predicted at."""
    tile = settings.tile_for(members)
    step, divisor = settings.step_for(tile), divisor_of(members)
    rows, columns = (axis(length, tile, step, settings.margin, settings.window, divisor).starts for length in size)
    return len(rows) * len(columns)


def streaming_bytes(size: tuple[int, int], members: Sequence[Member], settings: Settings, whole: bool) -> int:
    """Memory of a prediction beside the networks and the reader of slides.

    It grows with the width and not with the height; with `whole`, the image itself is held, too.
    """
    height, width = size
    tile = settings.tile_for(members)
    step = settings.step_for(tile)
    bands = len(stream.output_bands(members, settings))
    versions = len({member.preprocess.enhancement for member in members})
    held, overlap = min(tile, height), max(0, min(tile, height) - step)
    layers = versions if whole else 1
    tiles = max(1, settings.batch // len(tta.views(settings.tta)))
    parts = {
        # Rows of pixels under a row of tiles, what of them is shifted to the next one, and the chunks that come in.
        "pixels": 3 * layers * width * (held + overlap + 2 * CHUNK),
        "image": 3 * (1 + versions) * height * width if whole else 0,
        "batches": (stream.AHEAD + 2) * tiles * 3 * tile * tile * versions,
        # The canvas in float32, its shift, and finished rows as codes.
        "canvas": bands * width * (4 * held + 4 * overlap + step),
        "output": bands * width * ((predict.OUTPUT_AHEAD + 2) * step + 2 * BLOCK) + CACHE_BYTES,
    }
    return sum(parts.values())


def resident_peak() -> int:
    """The most resident memory that this process has had so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if lines:
            return int(lines[0].split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
