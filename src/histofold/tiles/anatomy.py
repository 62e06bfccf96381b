"""Cortex and medulla: where a slide's anatomy is drawn, tiles are weighted by where glomeruli can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histofold import files
from histofold.competitions import polygons
from histofold.errors import DataError

WEIGHTS = {"cortex": 1.0, "medulla": 0.25}
"""Chance to be drawn, by structure: glomeruli lie in the cortex; the medulla's tubules are what a network confuses."""
ELSEWHERE = 0.5
"""Chance outside of every named structure: outlines of structures are coarse."""
CELL = 64
"""Full-size pixels along one pixel of the map; the outlines are no finer."""


class Anatomy:
    """Sampling weight of every place of a slide, as a coarse map.

    Args:
        path: GeoJSON-like list of features with a classification name, in full-size pixels (x, y). What has no name or
            no area, as strokes and points that drawing tools leave behind, is passed over.
        height, width: of the slide.

    Raises:
        DataError: not such a file.
    """

    def __init__(self, path: Path, height: int, width: int) -> None:
        shape = (-(-height // CELL), -(-width // CELL))
        self.map: NDArray[np.float32] = np.full(shape, ELSEWHERE, np.float32)
        content = files.read_json(path)
        try:
            drawn = [(_name(feature), _outlines(feature)) for feature in polygons.features(content)]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(
                f"{path}: not polygons of anatomical structures ({error!r}); expected GeoJSON features; "
                "mend it, or remove it to go without sampling weights"
            ) from error
        # The most specific structure wins where they overlap: what weighs least is drawn last.
        for name, outlines in sorted(drawn, key=lambda item: -WEIGHTS.get(item[0], ELSEWHERE)):
            if name in WEIGHTS and outlines:
                cv2.fillPoly(self.map, outlines, WEIGHTS[name])

    def weight(self, y: int, x: int, height: int, width: int) -> float:
        """Mean weight of a window of full-size pixels."""
        cells = self.map[y // CELL : -(-(y + height) // CELL), x // CELL : -(-(x + width) // CELL)]
        return float(cells.mean())


def _name(feature: Any) -> str:
    """What a feature is called, empty where nobody said."""
    found = feature
    for key in ("properties", "classification", "name"):
        found = found.get(key) if isinstance(found, dict) else None
    name = "" if found is None else str(found).lower()
    return next((known for known in WEIGHTS if known in name), name)


def _outlines(feature: Any) -> list[NDArray[np.int32]]:
    return [_ring(ring) for part in polygons.areas(feature) for ring in part]


def _ring(points: Any) -> NDArray[np.int32]:
    ring = np.asarray(points, np.float64)
    if ring.ndim != 2 or ring.shape[1] < 2 or len(ring) < 3:
        raise ValueError(f"a ring of shape {ring.shape}")
    return np.ascontiguousarray(np.rint(ring[:, :2] / CELL).astype(np.int32))
