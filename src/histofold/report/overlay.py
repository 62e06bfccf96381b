"""Outlines of truth and prediction on an image: the one place that decides how they are drawn and in which colours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from histofold.errors import DataError

# A pair that stays apart in every common colour blindness, and from grey, pink, purple and black tissue alike.
TRUTH = (0, 200, 255)
PREDICTION = (255, 170, 0)
BOTH = (255, 255, 255)

Image = NDArray[np.uint8]


def boundary(labels: NDArray[np.generic], thickness: int = 1) -> NDArray[np.bool_]:
    """Pixels of objects that touch another label or the background, as (H, W) bool.

    The outline lies inside each object, so two touching objects keep one line each; the image's edge is no outline.
    `thickness` in pixels grows the line inwards and outwards by turns.
    """
    labels = np.asarray(labels)
    edge = np.zeros(labels.shape, dtype=bool)
    vertical = labels[1:] != labels[:-1]
    horizontal = labels[:, 1:] != labels[:, :-1]
    edge[1:] |= vertical
    edge[:-1] |= vertical
    edge[:, 1:] |= horizontal
    edge[:, :-1] |= horizontal
    edge &= labels != 0
    if thickness > 1:
        import cv2  # only thick lines need it

        edge = cv2.dilate(edge.astype(np.uint8), np.ones((thickness, thickness), np.uint8)).astype(bool)
    return edge


def outlines(
    image: Image,
    truth: NDArray[np.generic] | None,
    prediction: NDArray[np.generic] | None,
    thickness: int = 1,
) -> Image:
    """Draw the outlines of truth (cyan), prediction (orange) and where both agree (white) on a copy of the image.

    Args:
        image: uint8 (H, W, 3), or (H, W) grey.
        truth: labels or a binary mask (H, W), 0 is background; None draws no truth.
        prediction: as `truth`.
        thickness: of the lines in pixels.

    Returns:
        uint8 (H, W, 3).

    Raises:
        DataError: the image is not uint8, or its size differs from the labels'.
    """
    canvas = _canvas(image)
    truth_edge = _edge("truth", truth, canvas, thickness)
    prediction_edge = _edge("prediction", prediction, canvas, thickness)
    canvas[truth_edge] = TRUTH
    canvas[prediction_edge] = PREDICTION
    canvas[truth_edge & prediction_edge] = BOTH
    return canvas


def _canvas(image: Image) -> Image:
    """A writable RGB copy of the image."""
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise DataError(f"overlay: expected a uint8 image (H, W, 3) or (H, W), found {image.dtype} {image.shape}")
    return image.copy() if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def _edge(name: str, labels: NDArray[np.generic] | None, canvas: Image, thickness: int) -> NDArray[np.bool_]:
    """The boundary of `labels`, empty for None, checked against the canvas."""
    if labels is None:
        return np.zeros(canvas.shape[:2], dtype=bool)
    if labels.shape != canvas.shape[:2]:
        raise DataError(
            f"overlay: the {name} has size {labels.shape}, the image {canvas.shape[:2]}; they must be equal"
        )
    return boundary(labels, thickness)
