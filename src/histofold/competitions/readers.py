"""Truth files of folder competitions as instances: stored labels, binary masks, outlines in XML."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from pathlib import Path

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


def _components(path: Path, shape: tuple[int, int]) -> Labels:
    values = images.integers(path)
    # Masks saved as JPEG have grey rims; half of the largest value tells in from out, whatever stands for "in".
    mask = values > (127 if int(values.max(initial=0)) > 127 else 0)
    labels: Labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1]
    return labels


READERS: Mapping[str, Callable[[Path, tuple[int, int]], Labels]] = {
    "labels": lambda path, shape: images.integers(path, single=True, exact=True),
    "foreground": lambda path, shape: images.integers(path, exact=True),
    "components": _components,
    "aperio": aperio,
}
"""How a truth file becomes instances: stored labels, components of a binary mask, outlines in XML. `foreground` is for
labels of which only that counts, which may then be in colours."""
