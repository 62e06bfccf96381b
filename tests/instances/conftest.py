"""Label images, the perfect bands that a target makes of them, and one decoder of each name with its bands."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from histofold import targets

Labels = NDArray[np.int32]
Bands = dict[str, NDArray[np.float32]]

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "threshold": ({"name": "foreground"}, {"name": "threshold"}),
    "components": ({"name": "ternary"}, {"name": "components"}),
    "components-fullnet": (
        {"name": "ternary", "form": "fullnet"},
        {"name": "components", "rule": "argmax", "dilation": 2, "collision": "higher"},
    ),
    "watershed": ({"name": "border"}, {"name": "watershed"}),
    "watershed_inside": ({"name": "ternary"}, {"name": "watershed_inside"}),
    "watershed_distance": ({"name": "distance"}, {"name": "watershed_distance"}),
    "watershed_distance-border": (
        {"name": "border_distance"},
        {"name": "watershed_distance", "border_weight": 0.5, "core": 0.4},
    ),
    "hminima": ({"name": "distance"}, {"name": "hminima"}),
    "flow": ({"name": "flow"}, {"name": "flow"}),
    "hminima-image": ({"name": "distance", "scale": "image"}, {"name": "hminima"}),
}
"""Name of the case → target, decoder."""


def perfect_bands(target: targets.Target, labels: NDArray[Any]) -> Bands:
    """Bands of a network that makes no mistake, as decoders read them."""
    encoded = target.encode(labels)
    names = [band.name for band in target.bands]
    if target.activation == "softmax":
        return dict(zip(names, np.stack([encoded > 0, encoded == 1, encoded == 2]).astype(np.float32), strict=True))
    if target.name == "distance":
        return {"foreground": (labels > 0).astype(np.float32), "distance": encoded[0] / target.bands[1].high}
    if target.name == "flow":
        encoded[1:] = 2 * encoded[1:] - 1
    return dict(zip(names, encoded, strict=True))


def draw_nuclei(seed: int, size: int = 128, count: int = 40, radius: float = 9) -> Labels:
    """Discs that touch and cut each other, none smaller than 30 pixels, numbered in random order."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((size, size + 11), np.int32)
    y, x = np.indices(labels.shape)
    for label in rng.permutation(count) + 1:
        centre, own = rng.uniform(0, size, 2), rng.uniform(radius / 2, radius)
        labels[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= own**2] = label
    for label in range(1, count + 1):
        parts, pieces = cv2.connectedComponents((labels == label).astype(np.uint8), connectivity=4)
        sizes = np.bincount(pieces.ravel(), minlength=parts)[1:]
        keep = int(sizes.argmax()) + 1 if len(sizes) and sizes.max() >= 30 else 0
        labels[(labels == label) & (pieces != keep)] = 0
    return labels


@pytest.fixture(scope="session")
def nuclei() -> Callable[..., Labels]:
    """The function that draws labels: `nuclei(seed, size=128, count=40, radius=9)`."""
    return draw_nuclei


@pytest.fixture(scope="session")
def perfect() -> Callable[[targets.Target, NDArray[Any]], Bands]:
    """The function that makes perfect bands of a target and labels."""
    return perfect_bands


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> tuple[targets.Target, dict[str, Any]]:
    """A target and the settings of a decoder for it."""
    target, decoder = CASES[request.param]
    return targets.build(**target), dict(decoder)
