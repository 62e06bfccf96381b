"""Outlines drawn by hand (GeoJSON-like lists of features) as runs, without ever holding a slide's full mask."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histofold import files
from histofold.errors import DataError

Ring = NDArray[np.int32]
"""Vertices (n, 2) as x, y in pixels of the full-size image."""


def read(path: Path) -> list[list[Ring]]:
    """Polygons of a JSON file, each a list of rings: the outline, then holes.

    Takes what `features` takes, polygons and multipolygons. Points and lines, which drawing tools leave behind, have no
    area and are passed over.

    Raises:
        DataError: not JSON, or a feature without geometry.
    """
    try:
        found = features(files.read_json(path))
    except ValueError as error:
        raise DataError(f"{path}: no list of outlines but {error}") from error
    polygons: list[list[Ring]] = []
    for number, feature in enumerate(found):
        try:
            polygons += [[_ring(ring) for ring in part] for part in areas(feature)]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(f"{path}: feature {number} is no outline ({error!r}); expected GeoJSON") from error
    return polygons


def features(content: Any) -> list[Any]:
    """Features of a JSON file's content: Kaggle's plain list, a FeatureCollection, or one Feature alone.

    Raises:
        ValueError: none of these; says what it is, and what was expected.
    """
    found, what = content, type(content).__name__
    if isinstance(content, dict) and "features" in content:
        found, what = content["features"], f"features of type {type(content['features']).__name__}"
    elif isinstance(content, dict):
        found = [content] if "geometry" in content else None
        what = f"an object without features (its type is {content.get('type')!r})"
    if not isinstance(found, list):
        raise ValueError(f"{what}; expected GeoJSON: a FeatureCollection, a Feature, or a list of features")
    return found


def areas(feature: Any) -> list[Any]:
    """Polygons of a feature as the file has them, each a list of rings; none for what has no area.

    Raises:
        KeyError, TypeError: no feature with geometry.
    """
    geometry = feature["geometry"]
    kind, coordinates = geometry["type"], geometry["coordinates"]
    return [coordinates] if kind == "Polygon" else coordinates if kind == "MultiPolygon" else []


def _ring(points: Any) -> Ring:
    ring = np.rint(np.asarray(points, dtype=np.float64)).astype(np.int32)
    if ring.ndim != 2 or ring.shape[1] < 2 or len(ring) < 3:
        raise ValueError(f"a ring of shape {ring.shape}")
    return np.ascontiguousarray(ring[:, :2])


def runs(polygons: Iterable[list[Ring]], height: int, width: int) -> str:
    """The union of polygons as a run-length text, 1-indexed, column-major; outlines are clipped at the image's edge.

    Only one polygon's bounding box is held at a time.
    """
    starts: list[NDArray[np.int64]] = []
    ends: list[NDArray[np.int64]] = []
    for rings in polygons:
        first, last = _box_runs(rings, height, width)
        starts.append(first)
        ends.append(last)
    if not starts:
        return ""
    first, last = _union(np.concatenate(starts), np.concatenate(ends))
    pairs = np.stack([first + 1, last - first], axis=1)
    return " ".join(map(str, pairs.ravel().tolist()))


def _box_runs(rings: list[Ring], height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    outline = rings[0]
    left, top = outline.min(axis=0)
    right, bottom = outline.max(axis=0) + 1
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if x1 <= x0 or y1 <= y0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # Painted whole and cropped then: OpenCV's own clipping moves outlines that cross the edge.
    whole = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillPoly(whole, [ring - np.array([left, top], np.int32) for ring in rings], 1)
    box = whole[y0 - top : y1 - top, x0 - left : x1 - left]
    # A zero row below each column keeps runs from joining across columns; differences along it give starts and ends.
    columns = np.zeros((box.shape[1], box.shape[0] + 2), np.int8)
    columns[:, 1:-1] = box.T
    change = np.diff(columns, axis=1)
    column, start = np.nonzero(change == 1)
    end = np.nonzero(change == -1)[1]
    base = (column.astype(np.int64) + int(x0)) * height + int(y0)
    return base + start, base + end


def _union(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = np.argsort(starts, kind="stable")
    starts, reach = starts[order], np.maximum.accumulate(ends[order])
    fresh = np.ones(len(starts), bool)
    fresh[1:] = starts[1:] > reach[:-1]
    last = np.append(np.flatnonzero(fresh)[1:] - 1, len(starts) - 1) if len(starts) else np.empty(0, np.int64)
    return starts[fresh], reach[last]
