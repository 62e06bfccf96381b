"""One engine for images and slides: pixels in, finished rows of quantised bands out, in memory of one row of tiles.

reader thread:  bands of the source → tiles with tissue → preprocessed batches
this thread:    all members × all views on each batch, at most `predict.batch` images at once → weighted mean →
                blended rows → uint8
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from operator import itemgetter

import numpy as np
import torch
from numpy.typing import NDArray

from histofold.errors import ConfigError, DataError, ResourceError
from histofold.inference import blending, tta
from histofold.inference.batches import TileBatch, tile_batches
from histofold.inference.blender import Blender, Finished
from histofold.inference.blending import Axis
from histofold.inference.member import Member
from histofold.inference.readahead import ahead
from histofold.inference.settings import Settings, divisor_of
from histofold.inference.sources import ArraySource, Enhance, SlideSource, Source
from histofold.preprocess import Preprocess
from histofold.targets.base import Band, in_common, unlike

__all__ = ["ArraySource", "Settings", "SlideSource", "Source", "axes", "common_bands", "output_bands", "predict_rows"]

AHEAD = 3
"""Batches that are read ahead."""

Function = Callable[[torch.Tensor], torch.Tensor]

FOREGROUND = "foreground"

SPREAD = Band("spread", 0.0, 0.5)
"""Standard deviation of the foreground over views and members; of numbers from 0 to 1 it is one half at most."""

Rows = tuple[int, NDArray[np.uint8]]
"""The first row, and rows (K, h, W)."""


def predict_rows(
    source: Source, members: Sequence[Member], weights: Sequence[float] | None, settings: Settings
) -> Generator[Rows]:
    """Predict a source from top to bottom.

    Args:
        source: the image or slide.
        members: networks, each a module of its own; they are averaged on the bands they share.
        weights: of the members, scaled to sum 1; None means equal.
        settings: tiles, views, device.

    Yields:
        (first row, uint8 (K, h, W)) of consecutive rows that cover the source exactly once; code c of a band stands
        for low + c / 255 · (high - low); K and its order are those of `output_bands(members, settings)`.

    Raises:
        ConfigError: settings and members do not fit.
        DataError: a member learned at another scale, the source is broken, or a network gives what is no number.
        ResourceError: the GPU's memory does not suffice.
    """
    predictor = Predictor(members, weights, settings)
    check_scale(source, members)
    rows, columns = axes(source, members, settings)
    batches = tile_batches(
        source,
        rows,
        columns,
        predictor.enhance,
        max(1, settings.batch // len(predictor.views)),
        settings.skip_background,
        pinned=predictor.device.type == "cuda",
    )
    blender = Blender(rows, columns, predictor.bands, predictor.device)
    waiting: list[Finished] = []
    with predictor.ready(), closing(ahead(batches, AHEAD)) as stream:
        for batch in stream:
            predicted = predictor.predict(batch)
            # Rows of the last round are fetched only now, when the device has work again.
            yield from _fetch(waiting)
            with torch.inference_mode():
                for row, places, values in _by_row(batch.places, predicted):
                    while blender.row < row:
                        waiting.append(blender.advance())
                    blender.add(places, values)
        while not blender.done:
            yield from _fetch(waiting)
            with torch.inference_mode():
                waiting.append(blender.advance())
        yield from _fetch(waiting)


def axes(source: Source, members: Sequence[Member], settings: Settings) -> tuple[Axis, Axis]:
    """Where the tiles of a source lie: rows and columns."""
    tile, divisor = settings.tile_for(members), divisor_of(members)
    step = settings.step_for(tile)
    rows, columns = (
        blending.axis(length, tile, step, settings.margin, settings.window, divisor)
        for length in (source.height, source.width)
    )
    return rows, columns


def check_scale(source: Source, members: Sequence[Member]) -> None:
    """Refuse members that learned at another reduction than the source has.

    Raises:
        DataError: naming the member.
    """
    for member in members:
        if member.spec is not None and member.spec.scale != source.scale:
            raise DataError(
                f"{member.spec.run} fold {member.spec.fold} learned at scale {member.spec.scale:g}, but the sample is "
                f"read at scale {source.scale:g}; members of an ensemble share the tiles, so choose runs of one scale"
            )


def common_bands(members: Sequence[Member]) -> tuple[Band, ...]:
    """Bands that all members give with one range, in the order of the first, as `evaluate` averaged them.

    Raises:
        DataError: they share none.
    """
    bands = [member.bands for member in members]
    shared = in_common(bands)
    if not shared:
        why = "".join(f"; {line}" for line in unlike(bands))
        raise DataError(f"the members of an ensemble share no band; choose runs whose targets have one in common{why}")
    return shared


def output_bands(members: Sequence[Member], settings: Settings) -> tuple[Band, ...]:
    """Bands of a prediction: those that the members share and, where it is asked for, the foreground's spread.

    Raises:
        DataError: as in `common_bands`, or there is no foreground.
    """
    bands = common_bands(members)
    if settings.spread and bands[0].name != FOREGROUND:
        raise DataError(f"predict.spread=true: needs the band {FOREGROUND}, found {bands[0].name} as the first")
    return (*bands, SPREAD) if settings.spread else bands


class Predictor:
    """Members on a device, with the work that they share: pixels are enhanced, normalised and turned once for each
    distinct preprocessing, however many members use it.
    """

    def __init__(self, members: Sequence[Member], weights: Sequence[float] | None, settings: Settings) -> None:
        if not members:
            raise ConfigError("an ensemble needs at least one member; train a fold first")
        if len({id(member.network) for member in members}) != len(members):
            raise ConfigError("two members of an ensemble are one and the same module; load each checkpoint by itself")
        self.members = list(members)
        self.weights = _normalised(weights, len(self.members))
        self.settings = settings
        self.device = settings.torch_device()
        self.views = tta.views(settings.tta)
        self.shared = common_bands(self.members)
        self.bands = output_bands(self.members, settings)
        # Ways of enhancing pixels (on the CPU, in the reader's thread) and of normalising them (on the device).
        self.looks = list(dict.fromkeys(member.preprocess.enhancement for member in self.members))
        self.enhance: list[Enhance] = [look.pixels for look in self.looks]

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Move the members to the device in eval mode; they go back to their former mode in the end."""
        modes = [member.training for member in self.members]
        for member in self.members:
            member.to(self.device).eval()
        try:
            yield
        finally:
            for member, mode in zip(self.members, modes, strict=True):
                member.train(mode)

    @torch.inference_mode()
    def predict(self, batch: TileBatch) -> torch.Tensor:
        """Weighted mean over members and views: bands (B, K, T, T) float32 on the device.

        Raises:
            ResourceError: the GPU's memory does not suffice.
        """
        try:
            with self.settings.autocast(self.device):
                return self._predict(batch)
        except torch.cuda.OutOfMemoryError as error:
            most = self.settings.batch
            smaller = f"predict.batch={most // 2} or " if most > 1 else ""
            raise ResourceError(
                f"{self.device}: out of memory with predict.batch={most}; try {smaller}a smaller predict.tile"
            ) from error

    def _predict(self, batch: TileBatch) -> torch.Tensor:
        stacks: dict[Preprocess, tta.Stacked] = {}
        total: torch.Tensor | None = None
        for member, weight in zip(self.members, self.weights, strict=True):
            preprocess = member.preprocess
            if preprocess not in stacks:
                pixels = batch.pixels[self.looks.index(preprocess.enhancement)].to(self.device, non_blocking=True)
                stacks[preprocess] = tta.stack(preprocess.normalise(pixels), self.views)
            names = [band.name for band in member.bands]
            wanted = [names.index(band.name) for band in self.shared]
            function: Function = member.from_normalised
            if self.settings.spread:
                function, names, wanted = _with_square(function, wanted[0]), [*names, "square"], [*wanted, len(names)]
            bands = tta.mean(function, stacks[preprocess], names, self.settings.batch)
            if wanted != list(range(len(names))):
                bands = bands[:, wanted]
            total = bands * weight if total is None else total.add_(bands, alpha=weight)
        assert total is not None
        if self.settings.spread:
            total[:, -1].sub_(total[:, 0].square()).clamp_(min=0).sqrt_()
        return total


def _with_square(function: Function, foreground: int) -> Function:
    """The bands of `function` and, as one more, the square of the foreground: its mean makes the spread."""

    def wider(batch: torch.Tensor) -> torch.Tensor:
        bands = function(batch)
        return torch.cat([bands, bands[:, foreground : foreground + 1].square()], dim=1)

    return wider


def _normalised(weights: Sequence[float] | None, count: int) -> list[float]:
    values = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(values) != count or min(values) < 0 or sum(values) <= 0:
        raise ConfigError(f"weights of an ensemble: expected {count} numbers of 0 or more, not all 0; found {values}")
    return [value / sum(values) for value in values]


def _by_row(places: Sequence[tuple[int, int]], values: torch.Tensor) -> Iterator[tuple[int, list[int], torch.Tensor]]:
    """A batch in pieces of one row of tiles each: the row, its columns, and their part of `values`."""
    first = 0
    for row, group in groupby(places, key=itemgetter(0)):
        columns = [column for _, column in group]
        yield row, columns, values[first : first + len(columns)]
        first += len(columns)


def _fetch(waiting: list[Finished]) -> Iterator[Rows]:
    while waiting:
        yield waiting.pop(0).fetch()
