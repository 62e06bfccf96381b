"""What `predict` will need, from the sizes of the samples, the settings, and one batch that is tried out."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
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
OPENING = 12
"""Bytes for a full-size pixel of an image while its file is decoded: the decoder's own copies and ours."""
LOADED = 128 << 20
"""What the first sample brings in beside its pixels: compiled functions, handles, and what the allocator keeps."""
MEASURING = 16
"""Bytes for a magnified pixel of an image while its instances are decoded to be measured, beside its bands."""
DECODED_PER_SECOND = 200e6
"""Bytes of pixels of a compressed slide that are decoded and reduced in a second; reading runs beside the networks."""

ADVICE = {
    "memory": "take a smaller predict.tile or predict.batch, or set limits.memory",
    "disk": "free some, move paths.submissions, or set limits.disk",
    "time": "split the work with shard=i/n, take fewer views (predict.tta), a larger predict.step or fewer members",
}
ADVICE_SIZE = (
    f"cut large images into parts, as predict.size magnifies those with small instances up to {sized.LARGEST:g} times, "
    "or set limits.memory where you know better"
)


@dataclass(frozen=True)
class SampleSize:
    """What is known of a sample before it is predicted.

    Attributes:
        height, width: full-size pixels.
        slide: whether it is read by window and never held whole; only then background may be skipped.
        reading: bytes that its reader needs (`Slide.memory`).
    """

    height: int
    width: int
    slide: bool = False
    reading: int = 0


@dataclass(frozen=True)
class Trial:
    """One batch, tried out: seconds for a tile through all members and views; resident and GPU memory at their peak."""

    seconds: float
    peak: int
    gpu: int = 0


@dataclass(frozen=True)
class Tiling:
    """The tiles of one sample: how many, and the sides that the networks see, which small images keep small."""

    count: int
    height: int
    width: int

    @property
    def pixels(self) -> int:
        """Pixels of all tiles."""
        return self.count * self.height * self.width


def plan(samples: Sequence[SampleSize], scale: float, members: Sequence[Member], settings: Settings) -> limits.Plan:
    """Estimate memory, disk and time; the memory is that of the whole process, with what it holds already.

    Args:
        samples: what is still to do, at least one.
        scale: reduction ≥ 1 that they are predicted at.
        members: as they will be used.
        settings: as they will be used.

    Raises:
        ConfigError: settings and members do not fit.
        DataError: the members share no band.
        ResourceError: the GPU's memory does not suffice for a batch.
    """
    # Images that are smaller than a tile, or have few, make smaller batches: the trial is no larger than theirs.
    batch = max((_batch(one, scale, members, settings) for one in samples), key=lambda tiles: tiles.pixels)
    trial = try_out(members, settings, batch)
    held = max(held_bytes(one, scale, members, settings) for one in samples)
    per_pixel = trial.seconds / (batch.height * batch.width)
    seconds = sum(_seconds(one, scale, members, settings, per_pixel) for one in samples)
    pixels = sum(height * width for height, width in (small(one, scale) for one in samples))
    disk = COMPRESSED * len(stream.output_bands(members, settings)) * pixels
    advice = {**ADVICE, "memory": ADVICE_SIZE} if settings.size else dict(ADVICE)
    return limits.Plan("predict", trial.peak + LOADED + held, int(disk), seconds, advice, trial.gpu)


def small(sample: SampleSize, scale: float) -> tuple[int, int]:
    """(height, width) of a sample at the scale that it is predicted at."""
    return reduced(sample.height, scale), reduced(sample.width, scale)


def magnified(size: tuple[int, int], zoom: float, settings: Settings) -> tuple[int, int]:
    """(height, width) of an image as the networks see it: `zoom` times as large where `predict.size` magnifies."""
    return (round(size[0] * zoom), round(size[1] * zoom)) if settings.size else size


def _seen(sample: SampleSize, scale: float, zoom: float, settings: Settings) -> tuple[int, int]:
    """(height, width) of a sample as the networks see it; slides are never magnified, but refused at their turn."""
    return small(sample, scale) if sample.slide else magnified(small(sample, scale), zoom, settings)


def _batch(sample: SampleSize, scale: float, members: Sequence[Member], settings: Settings) -> Tiling:
    """The largest batch that a sample gives rise to."""
    tiles = tiling(_seen(sample, scale, sized.LARGEST, settings), members, settings)
    return replace(tiles, count=min(tiles.count, tiles_at_once(settings)))


def held_bytes(sample: SampleSize, scale: float, members: Sequence[Member], settings: Settings) -> int:
    """The most memory that a sample needs beside the networks: while it is opened, or while it is predicted."""
    seen = _seen(sample, scale, sized.LARGEST, settings)
    streaming = streaming_bytes(seen, members, settings, whole=not sample.slide)
    if settings.size and not sample.slide:
        # All rows together, as codes twice (once while they are joined) and as float32, and the decoder.
        bands = len(stream.output_bands(members, settings))
        streaming += (6 * bands + MEASURING) * seen[0] * seen[1]
    opening = 0 if sample.slide else OPENING * sample.height * sample.width
    return max(opening, streaming + sample.reading)


def _seconds(
    sample: SampleSize, scale: float, members: Sequence[Member], settings: Settings, per_pixel: float
) -> float:
    """Seconds of a sample, from those of a pixel of a tile."""
    seen = tiling(_seen(sample, scale, sized.EXPECTED, settings), members, settings)
    if not sample.slide:
        return seen.pixels * per_pixel
    share = TISSUE if settings.skip_background else 1.0
    return max(share * seen.pixels * per_pixel, 3 * sample.height * sample.width / DECODED_PER_SECOND)


def try_out(members: Sequence[Member], settings: Settings, batch: Tiling | None = None) -> Trial:
    """Send one batch of noise through all members and views, twice; the second time counts.

    Args:
        members, settings: as they will be used.
        batch: its tiles; by default as many as `settings.batch` allows, of full size.

    Raises:
        ConfigError: settings and members do not fit.
        ResourceError: the GPU's memory does not suffice.
    """
    predictor = stream.Predictor(members, None, settings)
    if batch is None:
        tile = settings.tile_for(members)
        batch = Tiling(tiles_at_once(settings), tile, tile)
    pixels = torch.randint(0, 256, (batch.count, 3, batch.height, batch.width), dtype=torch.uint8)
    tiles = TileBatch(((0, 0),) * batch.count, (pixels,) * len(predictor.looks))
    device = settings.torch_device()
    forget_peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with predictor.ready():
        predictor.predict(tiles)
        start = time.perf_counter()
        # Moving the result to the CPU waits for a GPU to be done.
        predictor.predict(tiles).cpu()
        seconds = time.perf_counter() - start
    gpu = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0
    return Trial(seconds / batch.count, resident_peak(), gpu)


def tiles_at_once(settings: Settings) -> int:
    """Tiles of a batch; their views go through the networks together, or in parts where one tile has more of them."""
    return max(1, settings.batch // len(tta.views(settings.tta)))


def tiling(size: tuple[int, int], members: Sequence[Member], settings: Settings) -> Tiling:
    """Tiles of a sample of (height, width) at the scale that it is predicted at."""
    tile = settings.tile_for(members)
    step, divisor = settings.step_for(tile), divisor_of(members)
    rows, columns = (axis(length, tile, step, settings.margin, settings.window, divisor) for length in size)
    return Tiling(len(rows.starts) * len(columns.starts), rows.tile, columns.tile)


def tile_count(size: tuple[int, int], members: Sequence[Member], settings: Settings) -> int:
    """How many tiles a sample of (height, width) has at the scale that it is predicted at."""
    return tiling(size, members, settings).count


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
    tiles = tiles_at_once(settings)
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


def resident() -> int:
    """The resident memory of this process, in bytes."""
    return _status("VmRSS") or resident_peak()


def resident_peak() -> int:
    """The most resident memory that this process has had, in bytes: ever, or since `forget_peak` where that worked."""
    peak = _status("VmHWM")
    if peak:
        return peak
    import resource  # not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # macOS counts in bytes, others in kilobytes


def forget_peak() -> None:
    """Let `resident_peak` begin anew, so that it does not tell of what was given back long ago.

    Only Linux can. Elsewhere the peak of the whole process counts, which is never too little.
    """
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> int:
    """A size that Linux tells of this process, in bytes; 0 where it does not."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)
