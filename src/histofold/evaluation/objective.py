"""Scores of many weight vectors in one pass over the samples, each sample's band files opened once a pass.

The search works at the predictions' own scale, in threads (reading, histograms and the flood release the interpreter);
what is reported in the end is scored at full size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from histofold import metrics
from histofold.competitions.base import Competition
from histofold.errors import DataError
from histofold.evaluation.oof import MeanBands
from histofold.evaluation.scoring import ROWS, TruthLabels
from histofold.evaluation.search import Indices, Table, Weights
from histofold.inference.bandfile import BandFile
from histofold.instances import Decoder
from histofold.instances.tuning import decode_all
from histofold.limits import available_memory
from histofold.parallel import cores
from histofold.progress import bar

LEVELS = np.arange(1, 256)
"""Codes that are tried as thresholds: 0 would call everything foreground, 256 nothing."""

PIXELS = 1 << 20
"""Pixels of a sample, about, that a search for masks looks at: an even lattice of those of a slide."""

KEPT = 4 << 30
"""Bytes of samples that stay in memory from one pass to the next, at most; `SHARE` of what is free, or what
`limits.memory` leaves, may be less.

Ten members' foreground and border of all training images of DSB 2018 are 1.5 GB; a pass that compares a few mixtures
would spend most of its time reading them again.
"""

SHARE = 0.25
"""Share of the memory that is free now."""

MIXED = 4 << 20
"""Bytes of mixtures that a thread holds at once: what a cache holds."""

BLOCK = 4096
"""Pixels that are mixed at once, small enough for the innermost cache."""


@dataclass(frozen=True)
class Seen:
    """What the search looks at in one sample.

    Attributes:
        codes: uint8, (members, 1, pixels) of a mask or (members, bands, H, W).
        truth: (pixels,) bool or labels (H, W).
        low, gain: (members, bands) float32; a value is low + gain × code.
    """

    codes: NDArray[np.uint8]
    truth: NDArray[Any]
    low: NDArray[np.float32]
    gain: NDArray[np.float32]


class Kept:
    """Samples that stay in memory from one pass to the next, as many as fit into `KEPT` bytes and a share of memory.

    Args:
        room: bytes that there are for them; None where nothing but the machine limits it.

    Attributes:
        room: bytes that they may have.
    """

    def __init__(self, room: int | None = None) -> None:
        self._samples: dict[int, Seen] = {}
        self._bytes = 0
        most = min(KEPT, int(SHARE * available_memory()))
        self.room = most if room is None else min(most, room)

    def get(self, index: int, read: Callable[[int], Seen]) -> Seen:
        """A sample, read if it is not here."""
        found = self._samples.get(index)
        if found is None:
            found = read(index)
            size = found.codes.nbytes + found.truth.nbytes
            if self._bytes + size <= self.room:
                self._bytes += size
                self._samples[index] = found
        return found


@dataclass(frozen=True)
class Scorer:
    """Scores weight vectors on OOF predictions.

    Attributes:
        sample_ids: in the order of the tables' rows.
        bands: of each sample; their weights are ignored.
        decoders: settings to score, empty for masks (then the settings are the levels 1..255).
        workers: threads; 0 is one for each core.
    """

    competition: Competition
    sample_ids: tuple[str, ...]
    bands: tuple[MeanBands, ...]
    decoders: tuple[Decoder, ...]
    workers: int
    kept: Kept = field(default_factory=Kept)

    def __call__(self, candidates: list[Weights], rows: Indices) -> list[Table]:
        """Tables (samples of `rows`, settings), one a candidate."""
        one = self._instances if self.decoders else self._masks
        text = f"search, {len(candidates)} mixtures"
        weights = np.asarray(candidates, np.float32)
        with bar(total=len(rows), text=text) as progress, ThreadPoolExecutor(self.workers or cores()) as pool:
            tasks = [pool.submit(one, int(index), weights) for index in rows]
            tables = []
            for task in tasks:
                tables.append(task.result())
                progress.update()
        whole = np.stack(tables)  # (samples, candidates, settings)
        return [whole[:, index] for index in range(len(candidates))]

    def _masks(self, index: int, weights: NDArray[np.float32]) -> NDArray[np.float64]:
        """The competition's metric (candidates, levels) of one sample."""
        seen = self.kept.get(index, self._read_masks)
        mixtures = (np.rint(mixed[0]).astype(np.uint8) for mixed in _mixtures(seen, weights))
        counts = [metrics.histogram(codes, seen.truth) for codes in mixtures]
        curve = metrics.named_curve(self.competition.metric)
        return np.stack([curve(count)[LEVELS] for count in counts])

    def _read_masks(self, index: int) -> Seen:
        """All foreground of an image, that of every n-th pixel of a slide."""
        bands = self.bands[index]
        with BandFile(bands.paths[0]) as file:
            height, width, scale = file.height, file.width, file.scale
        truth = self._truth_rows(self.sample_ids[index], scale)
        step = max(1, round(np.sqrt(height * width / PIXELS)))
        codes, inside = [], []
        for top in range(0, height, ROWS):
            bottom, first = min(top + ROWS, height), -top % step
            parts = [_alone(bands, member).rows("foreground", top, bottom) for member in range(len(bands.paths))]
            codes.append(np.stack([part[first::step, ::step].ravel() for part in parts]))
            inside.append(truth(top, bottom, width)[first::step, ::step].ravel())
        stack = np.concatenate(codes, axis=1)[:, None]
        plain = np.ones(stack.shape[:2], np.float32)  # of codes: thresholds are codes, too
        return Seen(stack, np.concatenate(inside), 0 * plain, plain)

    def _truth_rows(self, sample_id: str, scale: float) -> Callable[[int, int, int], NDArray[np.bool_]]:
        """The truth at the prediction's scale, as a function of (first row, last row, width)."""
        competition = self.competition
        if competition.kind == "images":
            labels = TruthLabels(competition, sample_id, scale)() > 0
            return lambda top, bottom, width: labels[top:bottom, :width]
        mask = competition.mask(sample_id)
        if mask is None:
            raise DataError(f"{competition.name}: slide {sample_id} has no truth to score against")

        def rows(top: int, bottom: int, width: int) -> NDArray[np.bool_]:
            first = round(top * scale)
            height = min(mask.height, round(bottom * scale)) - first
            return mask.reduced_mask(first, 0, height, mask.width, scale)[: bottom - top, :width] > 0

        return rows

    def _instances(self, index: int, weights: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores (candidates, decoders) of one sample."""
        names = self.bands[index].names
        seen = self.kept.get(index, self._read_instances)
        score = metrics.named_score(self.competition.metric)
        table = np.empty((len(weights), len(self.decoders)))
        for number, mixed in enumerate(_mixtures(seen, weights)):
            maps = dict(zip(names, mixed, strict=True))
            for columns, labels in decode_all(maps, self.decoders):
                table[number, columns] = score(metrics.contingency(seen.truth, labels))
        return table

    def _read_instances(self, index: int) -> Seen:
        bands = self.bands[index]
        codes, low, gain = [], [], []
        for path in bands.paths:
            with BandFile(path) as file:
                places = [[band.name for band in file.bands].index(name) for name in bands.names]
                codes.append(file.rows(0, file.height)[places])
                ranges = [file.bands[place].relative for place in places]
            low.append([band.low for band in ranges])
            gain.append([(band.high - band.low) / 255 for band in ranges])
        truth = TruthLabels(self.competition, self.sample_ids[index], bands.scale)()
        return Seen(np.stack(codes), truth, np.asarray(low, np.float32), np.asarray(gain, np.float32))


def _alone(bands: MeanBands, member: int) -> MeanBands:
    return MeanBands((bands.paths[member],), (1.0,), bands.names)


def _mixtures(seen: Seen, weights: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Weighted means (bands, …) of the members' values, a few mixtures at a time."""
    codes = seen.codes.reshape(*seen.codes.shape[:2], -1)
    factors = weights[:, :, None] * seen.gain  # (mixtures, members, bands)
    offsets = np.einsum("km,mb->kb", weights, seen.low)
    some = max(1, MIXED // max(1, 4 * codes[0].size))
    for first in range(0, len(weights), some):
        part = slice(first, first + some)
        yield from _mix(codes, factors[part], offsets[part]).reshape(-1, *seen.codes.shape[1:])


@numba.njit(nogil=True, cache=True)
def _mix(codes: NDArray[np.uint8], factors: NDArray[np.float32], offsets: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mixtures (mixtures, bands, pixels) of codes (members, bands, pixels), block by block; no weight costs nothing."""
    members, bands, pixels = codes.shape
    out = np.empty((len(factors), bands, pixels), np.float32)
    for band in range(bands):
        for start in range(0, pixels, BLOCK):
            end = min(start + BLOCK, pixels)
            for mixture in range(len(factors)):
                mixed = out[mixture, band, start:end]
                mixed[:] = offsets[mixture, band]
                for member in range(members):
                    factor = factors[mixture, member, band]
                    if factor != 0:
                        values = codes[member, band, start:end]
                        for at in range(end - start):
                            mixed[at] += factor * np.float32(values[at])
    return out
