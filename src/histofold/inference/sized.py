"""Images whose instances are magnified to one size before they are predicted: ask, measure, magnify, ask again.

One set of images may show nuclei of 8 and of 50 pixels. Small ones cost most: an outline that is wrong by half a pixel
fails a high IoU, and a network draws it more finely where it sees the nucleus larger. A quick first answer (one view,
the image as it is) is decoded and measured; the image is magnified accordingly, measured once more where that changed
much, and then predicted with all views. The bands are brought back to the image's own pixels, so that nothing after
this module knows of it. README has what it is worth out of fold.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histofold import instances
from histofold.errors import DataError
from histofold.inference import stream
from histofold.inference.bandfile import dequantise
from histofold.inference.member import Member
from histofold.inference.settings import Settings
from histofold.inference.sources import ArraySource, Enhance, Pixels, Source

LARGEST = 4.0
"""The most that an image is magnified; it is never made smaller, which was worse for large nuclei."""
EXPECTED = 2.0
"""What plans of time reckon with, before an image was measured."""
LOOKS = 2
"""How often an image is measured at most."""
CLOSE = 1.15
"""Magnifications within this factor are the same: networks learn with more jitter than that."""

Codes = NDArray[np.uint8]


def rows(
    source: Source, members: Sequence[Member], weights: Sequence[float] | None, settings: Settings
) -> Generator[tuple[int, Codes]]:
    """As `stream.predict_rows`, with the instances magnified to `settings.size` where that is not 0.

    Raises:
        DataError: as there, or the source is read by window, so that its instances cannot be measured first.
    """
    if settings.size == 0:
        yield from stream.predict_rows(source, members, weights, settings)
        return
    if not isinstance(source, ArraySource):
        raise DataError(
            f"predict.size={settings.size:g}: magnifies whole images, but slides and large images are read by window; "
            "cut them into images, or evaluate a run whose training had predict.size=0"
        )
    zoom = measured(source, members, weights, settings)
    codes = _codes(Magnified(source, zoom), members, weights, settings)
    yield 0, np.stack([resized(code, source.height, source.width) for code in codes])


def measured(
    source: ArraySource, members: Sequence[Member], weights: Sequence[float] | None, settings: Settings
) -> float:
    """The magnification that brings the instances of an image to `settings.size`."""
    quick = replace(settings, tta="none", spread=False)
    bands = stream.output_bands(members, quick)
    decoder = instances.resolve({}, [band.name for band in bands])
    zoom = 1.0
    for _ in range(LOOKS):
        codes = _codes(Magnified(source, zoom), members, weights, quick)
        values = {band.name: dequantise(code, band.relative) for band, code in zip(bands, codes, strict=True)}
        diameter = typical_diameter(decoder(values)) / zoom
        last, zoom = zoom, magnification(diameter, settings.size)
        if max(zoom / last, last / zoom) < CLOSE:
            break
    return zoom


def typical_diameter(labels: NDArray[np.integer[Any]]) -> float:
    """Diameter in pixels of a circle as large as the instance (of labels (H, W)) that the median labelled pixel is in.

    So instances are weighted by their area, because crumbs of a bad prediction are many and small. 0 without instances.
    """
    areas = np.sort(np.bincount(labels.ravel())[1:])
    total = np.cumsum(areas)
    if len(total) == 0 or total[-1] == 0:
        return 0.0
    area = areas[np.searchsorted(total, total[-1] / 2)]
    return float(2 * np.sqrt(area / np.pi))


def magnification(diameter: float, size: float) -> float:
    """What brings instances of `diameter` to `size` pixels, 1 to `LARGEST`; 1 where there are none."""
    return 1.0 if diameter <= 0 else min(LARGEST, max(1.0, size / diameter))


class Magnified(ArraySource):
    """An image that is magnified after it has been enhanced, as crops are in training.

    Args:
        source: the image.
        zoom: magnification of both sides, which come out in whole pixels.
    """

    def __init__(self, source: ArraySource, zoom: float) -> None:
        super().__init__(source.image, source.scale)
        self.height, self.width = round(source.height * zoom), round(source.width * zoom)

    def bands(self, height: int, enhance: Sequence[Enhance]) -> Iterator[Pixels]:
        """Rows of all enhanced versions of the whole image, magnified, side by side along the last axis."""
        versions = [resized(function(self.image), self.height, self.width) for function in enhance]
        stacked = np.concatenate(versions, axis=2)
        for top in range(0, self.height, height):
            yield stacked[top : top + height]


def resized(image: Pixels, height: int, width: int) -> Pixels:
    """An image (H, W) or (H, W, C) at another size: bilinear where it grows, averages of areas where it shrinks."""
    if image.shape[:2] == (height, width):
        return image
    way = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=way), np.uint8)


def _codes(
    source: ArraySource, members: Sequence[Member], weights: Sequence[float] | None, settings: Settings
) -> Codes:
    parts = [codes for _, codes in stream.predict_rows(source, members, weights, settings)]
    return np.concatenate(parts, axis=1)
