"""Crops made of several images: nuclei pasted from another one, and mosaics of four.

Mosaic: Bochkovskiy et al., YOLOv4 (2020); copy-paste of whole instances: Ghiasi et al., CVPR 2021. Neither cuts nor
joins an instance but where a crop's edge or a mosaic's seam passes through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

SEAM = (0.25, 0.75)
"""Where a mosaic's seams may lie, as shares of the side."""


class Crop(NamedTuple):
    """An augmented crop: pixels (H, W, 3) uint8, labels (H, W) int32, and valid (H, W) uint8, 1 where it is real.

    `mirrored` (H, W) int32 are the labels beyond the image's edge, where `labels` are 0, and 0 within it.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int32]
    valid: NDArray[np.uint8]
    mirrored: NDArray[np.int32]


def paste(base: Crop, donor: Crop, random: np.random.Generator) -> Crop:
    """Paste half of the instances of `donor` that fit onto free ground of `base`, each whole and with its own number.

    An instance is pasted if its pixels and the ring of one pixel around them hold nothing of `base`'s instances, seen
    or mirrored, and if all of it lies on real pixels; so nothing of `base` is hidden, and nothing grows together. Nor
    may it reach what is not real in `donor`: there its image's edge cut it, and in `base` the cut would be an outline.
    """
    taken = _grown((base.labels > 0) | (base.mirrored > 0))
    unfit = np.unique(donor.labels[taken | (base.valid == 0) | _grown(donor.valid == 0)])
    there = np.unique(donor.labels)
    free = np.setdiff1d(there[there > 0], unfit)
    chosen = random.permutation(free)[: (len(free) + 1) // 2]
    if not len(chosen):
        return base
    new = np.isin(donor.labels, chosen)
    numbers = np.zeros(int(donor.labels.max()) + 1, np.int32)
    last = max(int(base.labels.max(initial=0)), int(base.mirrored.max(initial=0)))
    numbers[chosen] = last + np.arange(1, len(chosen) + 1, dtype=np.int32)
    labels = np.where(new, numbers[donor.labels], base.labels)
    return base._replace(pixels=_blended(base.pixels, donor.pixels, new), labels=labels)


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask (H, W) and the ring of one pixel around it."""
    return np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)


def _blended(below: NDArray[np.uint8], above: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """`above` within the mask and `below` elsewhere, mixed over one pixel on either side of the outline.

    A hard outline would tell a network where something was pasted.
    """
    share = cv2.blur(mask.astype(np.float32), (3, 3))[..., None]
    mixed = below + (above.astype(np.float32) - below) * share
    return np.asarray(np.rint(mixed), np.uint8)


def seams(random: np.random.Generator, side: int) -> tuple[int, int]:
    """Draw the row and the column at which the four parts of a mosaic meet."""
    row, column = random.uniform(*SEAM, size=2) * side
    return int(row), int(column)


def mosaic(crops: Sequence[Crop], at: tuple[int, int]) -> Crop:
    """Put four crops of one size together: each gives its own quadrant of what meets at `at` (row, column).

    Labels of different crops stay different.
    """
    row, column = at
    places = [
        (rows, columns)
        for rows in (slice(None, row), slice(row, None))
        for columns in (slice(None, column), slice(column, None))
    ]
    first = crops[0]
    whole = Crop(*map(np.empty_like, (first.pixels, first.labels, first.valid, first.mirrored)))
    last = 0
    for place, crop in zip(places, crops, strict=True):
        whole.pixels[place], whole.valid[place] = crop.pixels[place], crop.valid[place]
        here = [crop.labels[place], crop.mirrored[place]]
        for made, labels in zip((whole.labels, whole.mirrored), here, strict=True):
            made[place] = np.where(labels > 0, labels + last, 0)
        last += max(int(labels.max(initial=0)) for labels in here)
    return whole
