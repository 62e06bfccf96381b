"""What a threshold without any learning scores on the embedded sample: the number that a network has to beat."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from histofold import metrics, slides
from histofold.competitions.base import Competition

REDUCTION = 4
"""Slides are thresholded at the resolution that the demonstration trains at."""


def otsu(competition: Competition, split: str = "train") -> dict[str, float]:
    """Score of Otsu's threshold (1979) for every sample with known truth: Dice of a slide, else the DSB metric.

    The threshold is each image's own. On slides only tissue counts, and what is darker is taken for foreground; on
    images the side of the threshold that the border of the image is not on. Objects are connected components.
    """
    scores: dict[str, float] = {}
    score: Callable[[Competition, str], float | None] = _slide if competition.kind == "slides" else _image
    for sample in competition.samples():
        value = score(competition, sample.sample_id) if sample.split == split else None
        if value is not None:
            scores[sample.sample_id] = value
    return scores


def threshold(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Foreground (H, W) of an RGB image (H, W, 3) by Otsu's threshold, on the side that most of the rim is not on."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    bright = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[1].astype(bool)
    rim = np.concatenate([bright[0], bright[-1], bright[:, 0], bright[:, -1]])
    return ~bright if rim.mean() > 0.5 else bright


def _slide(competition: Competition, sample_id: str) -> float | None:
    truth = competition.mask(sample_id)
    if truth is None:
        return None
    with slides.open(competition.source(sample_id)) as slide:
        image = slide.window(0, 0, slide.height, slide.width, REDUCTION)
        expected = truth.reduced_window(0, 0, slide.height, slide.width, REDUCTION) >= 0.5
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    glass = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[1].astype(bool)
    if glass.all():
        return float(metrics.dice(expected, np.zeros_like(expected)))
    level = cv2.threshold(grey[~glass].reshape(-1, 1), 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[0]
    dark = cv2.morphologyEx(((grey <= level) & ~glass).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return float(metrics.dice(expected, dark > 0))


def _image(competition: Competition, sample_id: str) -> float | None:
    truth = competition.labels(sample_id)
    if truth is None:
        return None
    mask = threshold(competition.image(sample_id))
    labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1]
    return float(metrics.dsb(truth, labels))
