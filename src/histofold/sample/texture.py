"""Building blocks of drawn tissue: smooth noise, wobbly outlines, cells, stamped dots.

Everything is a function of a `numpy` generator (PCG64, the same numbers on every machine) and of OpenCV's drawing.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Points = NDArray[np.int32]


def clouds(rng: np.random.Generator, height: int, width: int, cell: float, octaves: int = 1) -> Floats:
    """Smooth noise (height, width), about -1..1, with bumps of `cell` pixels; each octave halves bump and weight."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        size = max(cell / 2**octave, 1.0)
        grid = rng.uniform(-1, 1, (int(height / size) + 3, int(width / size) + 3)).astype(np.float32)
        scale = (int(grid.shape[1] * size) + 1, int(grid.shape[0] * size) + 1)
        total += cv2.resize(grid, scale, interpolation=cv2.INTER_CUBIC)[:height, :width] / 2**octave
    return total


def grain(rng: np.random.Generator, height: int, width: int, strength: float) -> Floats:
    """Sensor noise (height, width) of about `strength` grey levels; coarse, so that files compress."""
    side = 512
    tile = rng.integers(-1, 2, (side, side)) + rng.integers(-1, 2, (side, side))
    repeats = (height // side + 1, width // side + 1)
    return np.asarray(np.tile(tile, repeats)[:height, :width] * np.float32(strength), dtype=np.float32)


def outline(
    rng: np.random.Generator,
    centre: tuple[float, float],
    radii: tuple[float, float],
    wobble: float,
    waves: int = 5,
    count: int = 64,
) -> Points:
    """A closed wobbly ellipse as vertices (count, 2) x, y, turned at random; `wobble` is a share of the radius."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    radius = np.ones(count)
    for wave in range(2, 2 + waves):
        radius += wobble / wave * rng.uniform(0.3, 1.0) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    turn = rng.uniform(0, np.pi)
    x, y = radii[0] * radius * np.cos(angle), radii[1] * radius * np.sin(angle)
    points = np.stack(
        [centre[0] + x * np.cos(turn) - y * np.sin(turn), centre[1] + x * np.sin(turn) + y * np.cos(turn)], axis=1
    )
    return np.asarray(np.rint(points), dtype=np.int32)


def filled(shape: tuple[int, int], points: Points) -> Bools:
    """Inside of an outline as (height, width) booleans."""
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [points], 1)
    return canvas.astype(bool)


def scattered(rng: np.random.Generator, height: int, width: int, spacing: float, jitter: float = 0.4) -> Points:
    """Points (n, 2) x, y on a jittered grid, row by row: even, but not regular."""
    rows, columns = max(int(height / spacing), 1), max(int(width / spacing), 1)
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2) + 0.5
    points = (grid + rng.uniform(-jitter, jitter, grid.shape)) * spacing
    limit = np.array([width - 1, height - 1])
    return np.asarray(np.clip(np.rint(points), 0, limit), dtype=np.int32)


def cells(shape: tuple[int, int], points: Points) -> NDArray[np.int32]:
    """For each pixel the index of its nearest point (Voronoi cells), (height, width)."""
    canvas = np.ones(shape, np.uint8)
    canvas[points[:, 1], points[:, 0]] = 0
    labels = cv2.distanceTransformWithLabels(canvas, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    index = np.zeros(int(labels.max()) + 1, np.int32)
    index[labels[points[:, 1], points[:, 0]]] = np.arange(len(points))
    return np.asarray(index[labels], dtype=np.int32)


def inner_distance(labels: NDArray[np.int32]) -> Floats:
    """Distance of each pixel to the nearest border between labels, in pixels."""
    inside = np.ones(labels.shape, np.uint8)
    inside[:, 1:][labels[:, 1:] != labels[:, :-1]] = 0
    inside[1:][labels[1:] != labels[:-1]] = 0
    return np.asarray(cv2.distanceTransform(inside, cv2.DIST_L2, 3), dtype=np.float32)


def stamp(shape: tuple[int, int], points: Points, radius: int, squeeze: float = 1.0) -> Bools:
    """Dots of `radius` pixels at points (n, 2), as (height, width) booleans; `squeeze` < 1 makes them flat."""
    canvas = np.zeros(shape, np.uint8)
    canvas[points[:, 1], points[:, 0]] = 1
    size = (2 * radius + 1, 2 * max(round(radius * squeeze), 1) + 1)
    return np.asarray(cv2.dilate(canvas, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, size)), dtype=bool)


def soft(values: Floats, sigma: float) -> Floats:
    """Gaussian blur."""
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma), dtype=np.float32)
