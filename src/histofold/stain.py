"""Stain normalisation: every image's colours brought to those of one reference image, whose numbers a checkpoint keeps.

Both methods look at a whole image, so they are for images that are read whole and not for slides read by window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from histofold.errors import DataError

Image = NDArray[np.uint8]
Numbers = tuple[float, ...]

GAIN = 4.0
"""How much a spread of colours may be widened at most: an empty image's noise must not become tissue."""

WHITE = 240.0
"""Intensity without any stain (Macenko's I₀)."""

DENSE = 0.15
"""Least optical density of a stained pixel (Macenko's β), of the three channels together: eosin takes little red."""

LEAST = 100
"""Stained pixels that two stains can be told apart from."""

SEEN = 250_000
"""Pixels at most that stain vectors are estimated from, evenly taken."""


def reinhard_numbers(image: Image) -> Numbers:
    """Means and standard deviations of L, a and b of CIE Lab over an RGB image (H, W, 3): six numbers."""
    means, spreads = cv2.meanStdDev(_lab(image))
    return tuple(float(value) for value in (*means.ravel(), *spreads.ravel()))


def reinhard(image: Image, target: Numbers) -> Image:
    """Give each channel of Lab the mean and spread of `target` (Reinhard et al., IEEE CG&A 21(5), 2001).

    In CIE Lab in place of the paper's lαβ, as FullNet's authors have it (Qu et al., MICCAI 2019).
    """
    own, wanted = np.asarray(reinhard_numbers(image)), np.asarray(target)
    gain = np.minimum(wanted[3:] / np.maximum(own[3:], 1e-3), GAIN)
    lab = (_lab(image) - own[:3]) * gain + wanted[:3]
    rgb = cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB)
    return np.asarray(np.clip(np.rint(rgb * 255), 0, 255), np.uint8)


def _lab(image: Image) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)


def macenko_numbers(image: Image) -> Numbers:
    """Vectors of haematoxylin and eosin (two times RGB optical density) and their strengths of an RGB image: eight.

    Strength is the 99th percentile of a stain's concentration.

    Raises:
        DataError: the image has too little stained tissue to tell two stains apart.
    """
    found = _stains(image)
    if found is None:
        raise DataError(
            f"stain reference: an image of {image.shape[1]} × {image.shape[0]} pixels has too little stained tissue to "
            "tell haematoxylin from eosin; choose another augment.reference"
        )
    vectors, strengths = found
    return tuple(float(value) for value in (*vectors.ravel(), *strengths))


def macenko(image: Image, target: Numbers) -> Image:
    """Replace an image's two stains by those of `target`, at its strength (Macenko et al., ISBI 2009).

    Glass keeps its brightness. An image without enough stained tissue is left as it is.
    """
    found = _stains(image)
    if found is None:
        return image
    vectors, strengths = found
    wanted = np.asarray(target, np.float64)
    scale = np.minimum(wanted[6:] / np.maximum(strengths, 1e-3), GAIN)
    # One 3 × 3 map from optical densities to optical densities: unmix, rescale, mix. What neither stain explains stays
    # as it is, so that the reference's own numbers change nothing.
    change = np.eye(3) + np.linalg.pinv(vectors) @ (np.diag(scale) @ wanted[:6].reshape(2, 3) - vectors)
    # What is brighter than `WHITE` is glass, and as bright afterwards, as it is in an image without tissue.
    glass = np.maximum(np.arange(256) / WHITE, 1)[image]
    return np.asarray(np.clip(np.rint(WHITE * np.exp(-_density(image) @ change) * glass), 0, 255), np.uint8)


def _density(image: Image) -> NDArray[np.float64]:
    table = -np.log(np.maximum(np.arange(256), 1) / WHITE)
    return np.asarray(np.maximum(table, 0)[image])


def _stains(image: Image) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Unit vectors (2, 3) of haematoxylin and eosin and their strengths (2,); None without enough stained tissue."""
    pixels = image.reshape(-1, 3)
    density = _density(pixels[:: max(1, len(pixels) // SEEN)])
    dense = density[np.linalg.norm(density, axis=1) > DENSE]
    if len(dense) < LEAST:
        return None
    _, axes = np.linalg.eigh(np.cov(dense.T))
    plane = axes[:, [2, 1]]
    plane = plane * np.where(plane.sum(axis=0) < 0, -1, 1)
    on_plane = dense @ plane
    angles = np.arctan2(on_plane[:, 1], on_plane[:, 0])
    ends = [plane @ np.array([np.cos(a), np.sin(a)]) for a in np.percentile(angles, [1, 99])]
    # Haematoxylin takes more red out of the light than eosin does.
    pair = np.stack(ends)
    vectors = pair[np.argsort(-pair[:, 0] / np.abs(pair).sum(axis=1))]
    if np.linalg.svd(vectors, compute_uv=False)[1] < 1e-2:
        return None
    strengths = np.percentile(dense @ np.linalg.pinv(vectors), 99, axis=0)
    return vectors, np.maximum(strengths, 1e-3)


METHODS: Mapping[str, tuple[Callable[[Image], Numbers], Callable[[Image, Numbers], Image]]] = {
    "reinhard": (reinhard_numbers, reinhard),
    "macenko": (macenko_numbers, macenko),
}
"""Name → (numbers of a reference image, normalisation to such numbers)."""
