"""Pixel metrics of masks: Dice, IoU, and the histogram from which Dice follows at every threshold."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from histofold.errors import ConfigError, DataError

PIXELS = ("pixels_both", "pixels_truth", "pixels_predicted")
"""Counts of an image's foreground pixels: in truth and prediction, in the truth, in the prediction."""


def _overlap(truth: NDArray[Any], prediction: NDArray[Any]) -> tuple[int, int, int]:
    if truth.shape != prediction.shape:
        raise DataError(f"masks: truth is {truth.shape}, prediction {prediction.shape}; expected the same size")
    first, second = truth != 0, prediction != 0
    return int(np.count_nonzero(first & second)), int(np.count_nonzero(first)), int(np.count_nonzero(second))


def dice(truth: NDArray[Any], prediction: NDArray[Any]) -> float:
    """2|A ∩ B| / (|A| + |B|) of two masks (nonzero is foreground), Dice 1945; two empty masks agree: 1."""
    both, first, second = _overlap(truth, prediction)
    return 2 * both / (first + second) if first + second else 1.0


def iou(truth: NDArray[Any], prediction: NDArray[Any]) -> float:
    """|A ∩ B| / |A ∪ B| of two masks (nonzero is foreground), Jaccard 1912; two empty masks agree: 1."""
    both, first, second = _overlap(truth, prediction)
    return both / (first + second - both) if first + second else 1.0


def pooled(pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> dict[str, float]:
    """`dice` and `iou` over all pixels of (truth, prediction) pairs together, as if they were one image."""
    sums = np.zeros(3, np.int64)
    for truth, prediction in pairs:
        sums += np.array(_overlap(truth, prediction))
    return pooled_counts(*(int(value) for value in sums))


def pooled_counts(both: int, truth: int, predicted: int) -> dict[str, float]:
    """`dice` and `iou` from counts of foreground pixels (`PIXELS`), added up over images; no foreground at all is 1."""
    if truth + predicted == 0:
        return {"dice": 1.0, "iou": 1.0}
    return {"dice": 2 * both / (truth + predicted), "iou": both / (truth + predicted - both)}


def histogram(values: NDArray[np.uint8], truth: NDArray[Any]) -> NDArray[np.int64]:
    """Count the values 0..255 of a uint8 probability band where the truth is 0 (row 0) and where it is not (row 1).

    Histograms of parts of an image (bands of a slide) add up to that of the whole.

    Raises:
        DataError: shapes differ, or `values` is no uint8.
    """
    if values.shape != truth.shape:
        raise DataError(f"histogram: values are {values.shape}, truth {truth.shape}; expected the same size")
    if values.dtype != np.uint8:
        raise DataError(f"histogram: expected values as uint8, found {values.dtype}")
    mask = truth if truth.dtype in (np.bool_, np.uint8) else truth != 0
    flat = np.ascontiguousarray(mask).reshape(-1).view(np.uint8)
    return _histogram(np.ascontiguousarray(values).reshape(-1), flat)


@numba.njit(nogil=True, cache=True)
def _histogram(values: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.int64]:
    out = np.zeros((2, 256), np.int64)
    for at in range(values.size):
        out[np.int64(truth[at] != 0), values[at]] += 1
    return out


def dice_curve(hist: NDArray[np.int64]) -> NDArray[np.float64]:
    """Dice of (value >= t) for t = 0..256 from a histogram (2, 256); both masks empty is 1."""
    return _curve(hist, 2.0, 0.0)


def iou_curve(hist: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU of (value >= t) for t = 0..256 from a histogram (2, 256); both masks empty is 1."""
    return _curve(hist, 1.0, 1.0)


def _curve(hist: NDArray[np.int64], factor: float, shared: float) -> NDArray[np.float64]:
    """factor × both / (truth + predicted − shared × both), for each threshold."""
    if hist.shape != (2, 256):
        raise DataError(f"histogram: expected shape (2, 256), found {hist.shape}")
    # Entry t counts the values t..255; entry 256 is the threshold that nothing reaches.
    above = np.zeros((2, 257), np.int64)
    above[:, :256] = hist[:, ::-1].cumsum(axis=1)[:, ::-1]
    both, predicted, truth = above[1], above.sum(axis=0), hist[1].sum()
    below = truth + predicted - shared * both
    return np.divide(factor * both, below, out=np.ones(257), where=below > 0)


CURVES: dict[str, Callable[[NDArray[np.int64]], NDArray[np.float64]]] = {"dice": dice_curve, "iou": iou_curve}
"""Metrics of masks by name: from a histogram (2, 256) to the score at t = 0..256."""


def named_curve(name: str) -> Callable[[NDArray[np.int64]], NDArray[np.float64]]:
    """The function from a histogram (2, 256) of a mask to the score of that name at t = 0..256.

    Raises:
        ConfigError: masks have no such score.
    """
    if name not in CURVES:
        raise ConfigError(f"metric={name}: unknown for masks; expected one of {', '.join(CURVES)}")
    return CURVES[name]
