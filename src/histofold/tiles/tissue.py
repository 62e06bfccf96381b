"""Tissue and glass: stained tissue has colour, glass, pen-free background and black borders have none.

The rule of the winners' tissue filters: saturation above 40 of 255, looked at in low resolution so that noise, dust and
the grain of compression do not count.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from histofold.slides.reduce import reduce_array

SATURATION = 40
"""HSV saturation, 0..255, above which a pixel is stained."""
BLACK = 25
"""Brightest channel, 0..255, below which a pixel is black: its saturation is noise."""
PIXEL = 16
"""Full-size pixels along one pixel of the low resolution."""


def tissue_mask(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where an RGB image (H, W, 3) uint8 shows tissue: (H, W) bool."""
    value = rgb.max(axis=2).astype(np.int32)
    chroma = value - rgb.min(axis=2)
    return (chroma * 255 > SATURATION * value) & (value >= BLACK)


def low_resolution(rgb: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """Reduce an image that was read at `scale` until a pixel is about PIXEL full-size pixels wide.

    A small image keeps at least four pixels along its shorter side.
    """
    factor = min(round(PIXEL / scale), min(rgb.shape[:2]) // 4)
    return reduce_array(rgb, factor) if factor > 1 else rgb


def tissue_share(rgb: NDArray[np.uint8], scale: float) -> float:
    """Share 0..1 of an image (H, W, 3), read at `scale`, that is tissue in low resolution."""
    return float(tissue_mask(low_resolution(rgb, scale)).mean())
