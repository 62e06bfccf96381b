"""Label images for the matcher: random ones with every kind of overlap, and the toy pair of FullNet's code."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

Labels = NDArray[np.int32]


def draw_blobs(seed: int, size: int = 96, count: int = 30) -> tuple[Labels, Labels]:
    """Two label images whose discs partly agree, are shifted, missed, invented, split and merged."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size + 11))
    pair = np.zeros((2, size, size + 11), np.int32)
    for label in range(1, count + 1):
        centre, radius = rng.uniform(0, size, 2), rng.uniform(1, 10)
        for image in pair:
            if rng.random() < 0.85:
                shift, grow = rng.normal(0, 1.5, 2), rng.normal(1, 0.15)
                disc = (y - centre[0] - shift[0]) ** 2 + (x - centre[1] - shift[1]) ** 2 <= (radius * grow) ** 2
                image[disc] = label if rng.random() < 0.8 else rng.integers(1, count + 1)
    return pair[0], pair[1]


@pytest.fixture(scope="session")
def pairs() -> list[tuple[Labels, Labels]]:
    """Twelve random pairs, sparse to crowded."""
    return [draw_blobs(seed, count=count) for seed, count in enumerate((1, 2, 3, 5, 8, 12, 20, 30, 30, 60, 90, 120))]


@pytest.fixture(scope="session")
def blob_pair() -> Callable[..., tuple[Labels, Labels]]:
    """The function that draws a pair: `blob_pair(seed, size=96, count=30)`."""
    return draw_blobs


@pytest.fixture
def toy_truth() -> Labels:
    """Two squares of 6×6 in opposite corners of a 16×16 area."""
    truth = np.zeros((20, 20), np.int32)
    truth[2:8, 2:8], truth[12:18, 12:18] = 1, 2
    return truth
