"""Samples of more than 8 bits: which of their values is full intensity, and how they become bytes.

Cameras of 10 or 12 bits, and programs that widen 8 bits, fill only the lowest part of a 16-bit file: divided by 65,535
its picture would be black but for a few grey levels. So a file is taken to be of 8, 12 or 16 bits, whichever is the
least that holds its largest sample. Steps this coarse keep pictures of one camera on one scale, as good as always.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

CEILINGS = (255, 4095, 65535)
"""Values of full intensity that a file of 16-bit samples may have."""


def ceiling_of(largest: int) -> int:
    """The value of full intensity of 16-bit samples of which `largest` (0..65535) is the largest."""
    return next(ceiling for ceiling in CEILINGS if largest <= ceiling)


def to_bytes(samples: NDArray[Any], ceiling: int) -> NDArray[np.uint8]:
    """Samples 0..ceiling as 0..255, rounded to the nearest, as slides round theirs; same shape."""
    # In whole numbers, the same on every machine; 2 · 255 · 65535 fits into 32 bits.
    return np.asarray((samples.astype(np.uint32) * 510 + ceiling) // (2 * ceiling), np.uint8)
