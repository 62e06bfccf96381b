"""Truth files of folder competitions as instances: stored labels, binary masks, outlines in XML."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histofold.competitions import images, instances
from histofold.competitions.base import Labels
from histofold.errors import DataError


def aperio(path: Path, shape: tuple[int, int]) -> Labels:
    """Instances (H, W) from the outlines of an Aperio ImageScope XML file, vertices 0-indexed x, y.

    Overlaps go to the smaller nucleus, as in `instances.merge`.

    Raises:
        DataError: not XML, or a vertex without numbers.
    """
    try:
        regions = ElementTree.parse(path).getroot().iter("Region")
        outlines = [
            [(float(vertex.attrib["X"]), float(vertex.attrib["Y"])) for vertex in region.iter("Vertex")]
            for region in regions
        ]
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not the XML of Aperio ImageScope ({error})") from error
    # A click without an area, of which the released files have some, is no nucleus.
    areas = (points for points in outlines if len(points) > 2)
    return instances.merge(((str(path), _filled(points, shape)) for points in areas), shape)


def _filled(points: list[tuple[float, float]], shape: tuple[int, int]) -> NDArray[np.uint8]:
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 1)
    return mask


RIM = 0.02
"""Share of the even areas of a mask that may have another value than its largest: those of a grey rim by chance."""
MANY = 16
"""Values from which on a mask may once have been a JPEG, and black and white are what is within a 16th of them."""


def _components(path: Path, shape: tuple[int, int]) -> Labels:
    values = images.integers(path)
    _require_mask(path, values)
    # JPEG and smoothed edges leave grey rims; from half of the largest value on it is in, whatever stands for "in".
    mask = values > max(0, (int(values.max(initial=0)) - 1) // 2)
    labels: Labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1]
    return labels


def _require_mask(path: Path, values: NDArray[np.integer[Any]]) -> None:
    """Raise DataError where a file that should be a binary mask holds numbers of objects or of classes.

    Those fill areas, each with one value, while a grey rim changes from pixel to pixel.
    """
    levels = np.unique(values)
    if len(levels) <= 2 or images.is_jpeg(path):
        return
    largest = int(levels[-1])
    slack = largest // 16 if len(levels) > MANY else 0
    exact, around = values.astype(np.float64), np.ones((3, 3), np.uint8)  # numbers of 32 bits are exact in it
    even = (cv2.dilate(exact, around) == cv2.erode(exact, around)) & (values > slack)
    if np.count_nonzero(even & (values < largest - slack)) > RIM * np.count_nonzero(even):
        shown = ", ".join(str(level) for level in levels[:4])
        raise DataError(
            f"{path}: expected a binary mask, found {len(levels)} values ({shown}{', …' if len(levels) > 4 else ''}) "
            "that fill areas, as numbers of objects or classes do; rename masks/ to labels/ if they number objects; if "
            "they are classes of which only foreground counts, set competition.options.truth=mask, too; if it is a "
            "mask, save it with the values 0 and 255"
        )


READERS: Mapping[str, Callable[[Path, tuple[int, int]], Labels]] = {
    "labels": lambda path, shape: images.integers(path, single=True, exact=True),
    "foreground": lambda path, shape: images.integers(path, exact=True),
    "components": _components,
    "aperio": aperio,
}
"""How a truth file becomes instances: stored labels, components of a binary mask, outlines in XML. `foreground` is for
labels of which only that counts, which may then be in colours."""
