"""Pictures for the page: a small WebP of the image, and outlines as vector paths that stay sharp when enlarged."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from histofold.errors import DataError

UNITS = 1000
"""Length of the longer side of the outlines' coordinate system; paths hold whole numbers only."""

TOLERANCES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Units that an outline may leave its true course by; 16 is four pixels of an image of 256."""

Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Layers:
    """Outlines of one sample as SVG path data in a `view_width` × `view_height` box."""

    view_width: int
    view_height: int
    truth: str
    prediction: str
    missed: str
    false: str

    def __len__(self) -> int:
        """Bytes that the paths take in the page."""
        return len(self.truth) + len(self.prediction) + len(self.missed) + len(self.false)


def layers(truth: Labels | None, prediction: Labels, instances: bool, budget: int = 1 << 30) -> Layers:
    """Outlines of truth and prediction, and of what is missed and what is false.

    Args:
        truth: labels (H, W), None when unknown.
        prediction: labels (H, W) of the same size.
        instances: whether missed and false mean objects without a partner (IoU > 0.5), or else pixels.
        budget: bytes; outlines are simplified step by step until they fit, or would lose their shape.
    """
    height, width = prediction.shape
    unit = UNITS / max(height, width)
    nothing: Labels = np.zeros((1, 1), np.uint8)
    missed, false = nothing, nothing
    if truth is None:
        truth = nothing
    elif instances:
        missed, false = unmatched(truth, prediction)
    else:
        missed = _solid((truth != 0) & (prediction == 0))
        false = _solid((prediction != 0) & (truth == 0))
    traced = [contours(labels) for labels in (truth, prediction, missed, false)]
    for tolerance in TOLERANCES:
        # Below half a pixel a path follows every stair of the pixels: twice the bytes, and worse to look at.
        slack = max(tolerance / unit, 0.6)
        drawn = Layers(round(width * unit), round(height * unit), *(path(lines, unit, slack) for lines in traced))
        if len(drawn) <= budget:
            break
    return drawn


def unmatched(truth: Labels, prediction: Labels) -> tuple[Labels, Labels]:
    """Truth objects without a predicted partner of IoU > 0.5, and predicted ones without a true partner."""
    width = int(prediction.max()) + 1
    keys, counts = np.unique(truth.ravel().astype(np.int64) * width + prediction.ravel(), return_counts=True)
    rows, columns = keys // width, keys % width
    area_true, area_predicted = np.bincount(rows, counts), np.bincount(columns, counts)
    both = (rows > 0) & (columns > 0)
    rows, columns, shared = rows[both], columns[both], counts[both]
    # Above one half a partner is unique on both sides, so no assignment has to be solved.
    good = shared > 0.5 * (area_true[rows] + area_predicted[columns] - shared)
    missed = np.where(np.isin(truth, rows[good]), 0, truth)
    false = np.where(np.isin(prediction, columns[good]), 0, prediction)
    return missed, false


def _solid(region: NDArray[np.bool_]) -> Labels:
    """The region without slivers thinner than three pixels, which only say that two outlines are a pixel apart."""
    return np.asarray(cv2.morphologyEx(region.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), np.uint8)


def contours(labels: Labels) -> list[NDArray[np.float64]]:
    """Outer and inner outlines of every label as closed polygons (n, 2) of x, y in pixels."""
    found: list[NDArray[np.float64]] = []
    for value, box in enumerate(ndimage.find_objects(labels.astype(np.int32)), start=1):
        if box is None:
            continue
        # OpenCV's contour runs through pixel centres, which lie half a pixel from the corner that is the origin.
        origin = np.array([box[1].start + 0.5, box[0].start + 0.5])
        crop = (labels[box] == value).astype(np.uint8)
        lines, _ = cv2.findContours(crop, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        found += [line[:, 0, :] + origin for line in lines]
    return found


def path(lines: Sequence[NDArray[np.float64]], unit: float, slack: float) -> str:
    """Polygons as one SVG path in whole units of 1/`unit` pixels, `slack` pixels off at most; relative and compact."""
    pieces = []
    for line in lines:
        short = cv2.approxPolyDP(line.astype(np.float32), slack, closed=True)[:, 0, :]
        pieces.append(_closed(np.round(short * unit).astype(int)))
    return "".join(pieces)


def _closed(points: NDArray[np.int_]) -> str:
    """One closed polygon: an absolute start, then relative steps; a dot where the object is a pixel or two."""
    steps = np.diff(points, axis=0).ravel().tolist()
    start = f"M{points[0, 0]} {points[0, 1]}"
    if not any(steps):
        return start + "h1v1h-1z"
    # A minus separates numbers as well as a space does.
    return start + "l" + " ".join(map(str, steps)).replace(" -", "-") + "z"


def stretched(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A very dark image with its brightness scaled up for the eye; any other image as it is."""
    top = float(np.percentile(image, 99.5))
    if not 0 < top < 128:
        return image
    return np.asarray(np.clip(image.astype(np.float32) * (220 / top), 0, 255), dtype=np.uint8)


def webp(image: NDArray[np.uint8], longest: int, budget: int) -> str:
    """A data URI of the image, at most `longest` pixels on its longer side and about `budget` bytes in the page.

    Quality goes first and then size, so that a gallery of hundreds still fits one page.

    Raises:
        DataError: the image cannot be encoded.
    """
    side = min(longest, max(image.shape[:2]))
    data = b""
    for quality, share in ((82, 1.0), (66, 1.0), (50, 1.0), (50, 0.75), (45, 0.5), (40, 0.35)):
        data = _encoded(_resized(image, round(side * share)), quality)
        if len(data) * 4 / 3 <= budget:
            break
    return "data:image/webp;base64," + base64.b64encode(data).decode()


def _resized(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The image with `side` pixels on its longer side, averaged and never enlarged."""
    height, width = image.shape[:2]
    share = side / max(height, width)
    if share >= 1:
        return image
    size = (max(round(width * share), 1), max(round(height * share), 1))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _encoded(image: NDArray[np.uint8], quality: int) -> bytes:
    """WebP bytes of an RGB image."""
    whole, data = cv2.imencode(".webp", image[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not whole:
        raise DataError(f"report: an image of {image.shape} could not be encoded as WebP")
    return data.tobytes()
