"""Small label images that every target has to cope with."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

Labels = NDArray[np.int32]


@pytest.fixture(scope="session")
def blobs() -> Callable[..., Labels]:
    """Discs of random radius that touch and cut each other: `blobs(seed, size=64, count=25)`."""

    def draw(seed: int, size: int = 64, count: int = 25) -> Labels:
        rng = np.random.default_rng(seed)
        labels = np.zeros((size, size + 7), np.int32)
        y, x = np.indices(labels.shape)
        for label in range(1, count + 1):
            centre, radius = rng.uniform(0, size, 2), rng.uniform(0.5, 9)
            labels[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2] = label
        return labels

    return draw
