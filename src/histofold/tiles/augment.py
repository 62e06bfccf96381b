"""Augmentation: one warp for everything geometric, albumentations for colour; all drawn from one seed an example.

Crop, rotation, scale, shear and flips are one affine map, so that pixels are interpolated once, corners are filled with
mirrored tissue and not with the opposite side (trap S5), and labels are taken by nearest neighbour from the same map.
What lies outside the image carries label 0 and weight 0. This is the only module that knows albumentations.
"""

from __future__ import annotations

import albumentations as A
import cv2
import numba
import numpy as np
from numpy.typing import NDArray

from histofold.connected import parts
from histofold.options import AugmentOptions

CRUMB = 8
"""Pixels below which a part of an instance that the crop's edge leaves apart is the sampling's work and not the edge's.

A line thinner than a pixel is sampled in dashes.
"""


def draw_crop(
    options: AugmentOptions, random: np.random.Generator, height: int, width: int, crop: int
) -> NDArray[np.float64]:
    """Draw the map (2, 3) from crop pixels (x, y) to pixels of an image of height × width."""
    angle = np.deg2rad(random.uniform(-options.rotate, options.rotate))
    if options.quarter:
        angle += np.pi / 2 * random.integers(4)
    low, high = np.log(options.scale)
    magnification = float(np.exp(random.uniform(low, high)))
    shear = np.tan(np.deg2rad(random.uniform(-options.shear, options.shear)))
    mirror_x = -1.0 if random.random() < options.flip else 1.0
    mirror_y = -1.0 if random.random() < (options.flip if options.flip_y is None else options.flip_y) else 1.0
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = rotation @ np.array([[1.0, shear], [0.0, 1.0]]) @ np.diag([mirror_x, mirror_y]) / magnification
    return centred(linear, crop_centre(height, width, crop / magnification, random), crop)


def centred(linear: NDArray[np.float64], centre: tuple[float, float], crop: int) -> NDArray[np.float64]:
    """Complete a linear map (2, 2) so that the crop's centre falls on `centre` (x, y); whole pixels where it can."""
    middle = (crop - 1) / 2
    offset = np.asarray(centre) - linear @ np.array([middle, middle])
    return snap(np.hstack([linear, offset[:, None]]))


def crop_centre(height: int, width: int, crop: float, random: np.random.Generator) -> tuple[float, float]:
    """Draw the centre (x, y) of a crop so that it lies inside the image where it fits, else near the middle."""

    def along(length: int) -> float:
        # A crop larger than the image still moves: the padding then falls on either side.
        return (length - 1) / 2 + float(random.uniform(-0.5, 0.5)) * abs(length - crop)

    return along(width), along(height)


def warp(
    image: NDArray[np.uint8],
    labels: NDArray[np.unsignedinteger],
    matrix: NDArray[np.float64],
    crop: int,
    *,
    instances: bool = True,
) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.uint8]]:
    """Take a crop through `matrix`: image (crop, crop, 3), labels (crop, crop), and 1 where the image was real.
    Nearest neighbours cut necks that are thinner than a pixel of the crop; what they cut off an instance has no label
    and counts as not real (`_drop_crumbs`). Labels keep their numbers. A mask (`instances=False`) has no instances that
    could be cut: all of it stays.
    """
    linear = (cv2.INTER_NEAREST if is_exact(matrix) else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
    pixels = cv2.warpAffine(image, matrix, (crop, crop), flags=linear, borderMode=cv2.BORDER_REFLECT_101)
    window, inside = _reach(labels, matrix, crop)
    whole = _sampled(window, inside, crop).astype(np.int32)
    real = _sampled(np.ones(window.shape, np.uint16), inside, crop).astype(np.uint8)
    if instances and not is_exact(matrix):
        _drop_crumbs(whole, real, window, inside)
    return np.asarray(pixels, np.uint8), whole, real


def _reach(
    labels: NDArray[np.integer], matrix: NDArray[np.float64], crop: int
) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
    """The part (h, w) of the labels that a crop can take pixels from, at least one, and the map to its pixels.

    All that goes with the labels is taken from this part and through this map, so that it comes from the same pixels.
    """
    far = crop - 1
    corners = matrix @ np.array([[0, far, 0, far], [0, 0, far, far], [1, 1, 1, 1]])
    last = np.array(labels.shape[::-1]) - 1
    left, top = np.clip(np.floor(corners.min(axis=1)).astype(int) - 1, 0, last)
    right, bottom = np.clip(np.ceil(corners.max(axis=1)).astype(int) + 2, [left + 1, top + 1], last + 1)
    return labels[top:bottom, left:right], matrix - np.array([[0, 0, left], [0, 0, top]])


def _sampled(values: NDArray[np.integer], matrix: NDArray[np.float64], crop: int) -> NDArray[np.unsignedinteger]:
    """The nearest values (crop, crop), 0 outside of the image; the same pixels of every unsigned type.

    All travel in planes of 16 bits: of another type, float64 for one, OpenCV takes other pixels, one in a thousand.
    """
    if values.dtype.itemsize > 2:
        low = _sampled((values & 0xFFFF).astype(np.uint16), matrix, crop)
        high = _sampled((values >> 16).astype(np.uint16), matrix, crop)
        return np.asarray(low | high.astype(np.uint32) << 16, np.uint32)
    nearest = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    plane = np.ascontiguousarray(values, np.uint16)
    found = cv2.warpAffine(plane, matrix, (crop, crop), flags=nearest, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(found, np.uint16)


def beyond(labels: NDArray[np.unsignedinteger], matrix: NDArray[np.float64], crop: int) -> NDArray[np.int32]:
    """The labels (crop, crop) of the mirrored image where the crop reaches beyond the image, 0 within it.

    With them the edge of the image bounds no instance, as the edge of a crop does not: what a target says of a real
    pixel does not depend on how far the crop reaches beyond that edge.
    """
    window, inside = _reach(labels, matrix, crop)
    found = np.zeros((crop, crop), np.int32)
    places = np.nonzero(_sampled(np.ones(window.shape, np.uint16), inside, crop) == 0)
    at = np.rint(matrix[:, 1::-1] @ np.stack(places) + matrix[:, 2:]).astype(np.int64)  # columns, rows
    sides = np.array(labels.shape[::-1])[:, None]
    period = np.maximum(2 * (sides - 1), 1)  # mirrored at the outermost pixels, which are not repeated
    at %= period
    columns, rows = np.minimum(at, period - at) * (sides > 1)
    found[places] = labels[rows, columns]
    return found


def _drop_crumbs(
    labels: NDArray[np.int32], valid: NDArray[np.uint8], window: NDArray[np.integer], matrix: NDArray[np.float64]
) -> None:
    """Set to 0, in labels and valid (H, W), all of what is connected in the source but its largest part, in place.

    Parts of a label that are apart in the source as well all stay. What reaches the edge of the crop or of the image
    stays, as there an instance may truly be cut in two, unless it has fewer than `CRUMB` pixels. So the two sides of a
    neck both stay where the sampling cuts it and the edge only touches the smaller one (about one instance in 10,000 of
    some that all had thin necks). A crumb is tissue without a label, hence the weight 0.

    Args:
        labels, valid: of the crop.
        window: labels of the source as far as the crop reaches (`_reach`).
        matrix: from the crop's pixels to those of the window.
    """
    _, owner = parts(labels)
    if len(np.unique(owner)) == len(owner):
        return
    numbered, before = parts(window.astype(np.int32))
    narrow = np.uint16 if len(before) <= 1 << 16 else np.uint32
    found, owner = parts(_sampled(numbered.astype(narrow), matrix, len(labels)).astype(np.int32))
    areas = _areas(found, len(owner))
    order = np.lexsort((-areas, owner))
    crumb = np.zeros(len(owner), np.bool_)
    crumb[order[1:]] = owner[order[1:]] == owner[order[:-1]]  # of the same origin there is a larger part
    _clear(labels, valid, found, crumb, areas)


@numba.njit(nogil=True, cache=True)
def _areas(found: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    areas = np.zeros(count, np.int64)
    for part in found.ravel():
        areas[part] += 1
    return areas


@numba.njit(nogil=True, cache=True)
def _clear(
    labels: NDArray[np.int32],
    valid: NDArray[np.uint8],
    found: NDArray[np.int32],
    crumb: NDArray[np.bool_],
    areas: NDArray[np.int64],
) -> None:
    """Clear the parts (H, W) that are crumbs, but for those of `CRUMB` pixels or more that an edge cut."""
    height, width = found.shape
    cut = np.zeros(crumb.size, np.bool_)
    for y in range(height):
        for x in range(width):
            if crumb[found[y, x]] and areas[found[y, x]] >= CRUMB:
                border = y == 0 or x == 0 or y == height - 1 or x == width - 1
                if border or valid[y - 1 : y + 2, x - 1 : x + 2].min() == 0:
                    cut[found[y, x]] = True
    for y in range(height):
        for x in range(width):
            if crumb[found[y, x]] and not cut[found[y, x]]:
                labels[y, x], valid[y, x] = 0, 0


def is_exact(matrix: NDArray[np.float64]) -> bool:
    """Whether the map only mirrors and turns by quarters, so that no pixel needs to be interpolated."""
    linear = np.abs(matrix[:, :2])
    return bool(np.allclose(np.sort(linear, axis=1), [[0.0, 1.0], [0.0, 1.0]], atol=1e-9))


def snap(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move an exact map onto whole pixels; leave any other as it is."""
    if not is_exact(matrix):
        return matrix
    snapped = np.round(matrix)
    snapped[:, 2] = np.floor(matrix[:, 2] + 0.5)
    return snapped


class ColourAugment:
    """Colour operations on a uint8 RGB crop, drawn from an integer seed at each call."""

    def __init__(self, options: AugmentOptions) -> None:
        light = A.OneOf(
            [
                A.RandomBrightnessContrast(options.brightness, options.contrast, p=1.0),
                A.RandomGamma(options.gamma, p=1.0),
            ],
            p=options.light,
        )
        steps = [
            (options.light, light),
            (options.colour, A.HueSaturationValue(options.hue, options.saturation, options.value, p=options.colour)),
            (
                options.stain,
                A.HEStain(
                    intensity_scale_range=options.stain_scale,
                    intensity_shift_range=options.stain_shift,
                    p=options.stain,
                ),
            ),
            (options.grey, A.ToGray(p=options.grey)),
            (options.invert, A.InvertImg(p=options.invert)),
            (options.shuffle, A.ChannelShuffle(p=options.shuffle)),
            (options.blur, A.GaussianBlur(sigma_limit=(0.3, 1.2), blur_limit=0, p=options.blur)),
            # Zero-mean: the original's noise was shifted to be positive and brightened every image (seed notes 4.3).
            (options.noise, A.GaussNoise(std_range=options.noise_std, mean_range=(0.0, 0.0), p=options.noise)),
        ]
        self.pipeline = A.Compose([step for probability, step in steps if probability > 0])

    def __call__(self, image: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        """Augment (H, W, 3) uint8; the same seed gives the same result in any process."""
        if not self.pipeline.transforms:
            return image
        self.pipeline.set_random_seed(seed)
        return np.asarray(self.pipeline(image=image)["image"], np.uint8)
