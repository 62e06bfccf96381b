"""One slide → tiles: it is decoded once from top to bottom while every grid takes its tiles from the passing rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histofold.rle import RunMask
from histofold.slides import Slide
from histofold.tiles.anatomy import Anatomy
from histofold.tiles.arrays import GrowingArray
from histofold.tiles.grid import Grid, rational, reduced, shifted_starts
from histofold.tiles.store import COLUMNS, Recipe
from histofold.tiles.tissue import tissue_share

FINEST = 64
"""Largest denominator of a scale for which the mask's cells are aligned exactly with the pixels' at every tile."""


@dataclass(frozen=True, order=True)
class Place:
    """Where a tile begins, in pixels of the reduced slide, and what it is for."""

    y: int
    x: int
    kind: str


def places(recipe: Recipe, height: int, width: int, boxes: NDArray[np.int64]) -> list[Place]:
    """All tiles of a recipe on a slide of height × width full-size pixels, from top to bottom.

    `boxes` are the objects of the truth, (n, 5): first row, first column, height, width, area.
    """
    side, scale = recipe.tile, rational(recipe.scale)
    rows, columns = reduced(height, scale), reduced(width, scale)
    found: list[Place] = []
    if "grid" in recipe.grids:
        found += [Place(y, x, "grid") for y, x in Grid(rows, columns, side, side)]
    if "shifted" in recipe.grids:
        found += [Place(y, x, "shifted") for y in shifted_starts(rows, side) for x in shifted_starts(columns, side)]
    if "centred" in recipe.grids:
        for y, x, box_height, box_width, _ in boxes.tolist():
            top = _around(y + box_height / 2, side, rows, scale)
            left = _around(x + box_width / 2, side, columns, scale)
            found.append(Place(top, left, "centred"))
    # Two neighbouring objects at the edge of a slide can have the same tile.
    return sorted(set(found))


def _around(centre: float, side: int, length: int, scale: Fraction) -> int:
    """First pixel of a tile around a full-size position, moved so that it stays inside."""
    return max(0, min(round(centre / float(scale) - side / 2), length - side))


class Cutter:
    """Cuts the tiles of one slide.

    Args:
        slide: its pixels.
        mask: its truth.
        recipe: tile size, scale, grids, least tissue.
        anatomy: sampling weights, None for none.
    """

    def __init__(self, slide: Slide, mask: RunMask, recipe: Recipe, anatomy: Anatomy | None = None) -> None:
        self.slide = slide
        self.mask = mask
        self.recipe = recipe
        self.anatomy = anatomy
        self.scale = rational(recipe.scale)
        self.height = reduced(slide.height, self.scale)
        self.width = reduced(slide.width, self.scale)
        self.side_y = min(recipe.tile, self.height)
        self.side_x = min(recipe.tile, self.width)
        self.boxes = mask.boxes()
        self.places = places(recipe, slide.height, slide.width, self.boxes)
        self.counts = {"looked_at": 0, "kept": 0, "area": 0, "area_kept": 0, "objects": 0, "objects_kept": 0}

    def cut(self, sample_id: str, pixels: GrowingArray, masks: GrowingArray) -> list[list[Any]]:
        """Append all tiles with enough tissue to `pixels` and `masks`; gives their rows of the tiles table."""
        rows: list[list[Any]] = []
        kept: list[Place] = []
        for place, tile in self._tiles():
            tile = np.ascontiguousarray(tile)
            tissue = tissue_share(tile, float(self.scale))
            truth = self._truth(place)
            keeps = place.kind == "centred" or tissue >= self.recipe.min_tissue
            self._count(place, truth, keeps)
            if not keeps:
                continue
            kept.append(place)
            rows.append(self._row(sample_id, place, pixels.count, tissue, float(truth.mean())))
            pixels.append(self._padded(tile))
            masks.append(self._padded(truth))
        self._count_objects([place for place in kept if place.kind != "centred"])
        return rows

    def _tiles(self) -> Iterator[tuple[Place, NDArray[np.uint8]]]:
        """Every place with its pixels (side_y, side_x, 3), while the slide passes by."""
        held, top = np.empty((0, self.width, 3), np.uint8), 0
        waiting = iter(self.places)
        place = next(waiting, None)
        if place is None:
            return
        for first, band in self.slide.bands(max(64, self.recipe.tile // 2), float(self.scale)):
            keep = max(0, min(place.y - top, len(held)))
            held = np.concatenate([held[keep:], band])
            top = first + len(band) - len(held)
            while place is not None and place.y + self.side_y <= top + len(held):
                tile = held[place.y - top : place.y - top + self.side_y, place.x : place.x + self.side_x]
                yield place, tile
                place = next(waiting, None)
            if place is None:
                return

    def _truth(self, place: Place) -> NDArray[np.uint8]:
        """Mask of a tile (side_y, side_x), 0 and 1."""
        y, skip_y = self._aligned(place.y)
        x, skip_x = self._aligned(place.x)
        height = self._full(place.y + self.side_y, self.slide.height) - y
        width = self._full(place.x + self.side_x, self.slide.width) - x
        boxes = self.boxes
        touches = (boxes[:, 0] < y + height) & (boxes[:, 0] + boxes[:, 2] > y)
        touches &= (boxes[:, 1] < x + width) & (boxes[:, 1] + boxes[:, 3] > x)
        if not touches.any():  # most tiles: no need to walk the runs
            return np.zeros((self.side_y, self.side_x), np.uint8)
        part = self.mask.reduced_mask(y, x, height, width, float(self.scale))
        return part[skip_y : skip_y + self.side_y, skip_x : skip_x + self.side_x]

    def _aligned(self, start: int) -> tuple[int, int]:
        """Full-size pixel at or before a reduced one where cells begin on a whole pixel, and the cells in between."""
        parts = self.scale.denominator
        if parts > FINEST:
            return start * self.scale.numerator // self.scale.denominator, 0
        return (start - start % parts) * self.scale.numerator // parts, start % parts

    def _full(self, end: int, length: int) -> int:
        """Full-size pixel at which a reduced one begins, at most `length`."""
        return min(-(-end * self.scale.numerator // self.scale.denominator), length)

    def _row(self, sample_id: str, place: Place, index: int, tissue: float, foreground: float) -> list[Any]:
        y, x = (start * self.scale.numerator // self.scale.denominator for start in (place.y, place.x))
        height = self._full(place.y + self.side_y, self.slide.height) - y
        width = self._full(place.x + self.side_x, self.slide.width) - x
        weight = self.anatomy.weight(y, x, height, width) if self.anatomy else 1.0
        values = {
            "tile_id": f"{sample_id}_{place.kind}_{y}_{x}", "sample_id": sample_id, "kind": place.kind, "index": index,
            "y": y, "x": x, "height": height, "width": width, "scale": float(self.scale),
            "valid_height": self.side_y, "valid_width": self.side_x,
            "tissue": round(tissue, 6), "foreground": round(foreground, 8), "weight": round(weight, 6),
        }  # fmt: skip
        return [values[name] for name in COLUMNS]

    def _padded(self, tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A tile of a slide that is smaller, its edge repeated; valid_height and valid_width tell what is real."""
        missing = [(0, self.recipe.tile - self.side_y), (0, self.recipe.tile - self.side_x)]
        if missing == [(0, 0), (0, 0)]:
            return tile
        return np.pad(tile, missing + [(0, 0)] * (tile.ndim - 2), mode="edge")

    def _count(self, place: Place, truth: NDArray[np.uint8], keeps: bool) -> None:
        """Count tiles, and the truth's area in those of the plain grid, each pixel once."""
        self.counts["looked_at"] += 1
        self.counts["kept"] += keeps
        if place.kind != "grid":
            return
        # The last tile of a row or column lies flush with the end and repeats a part of its neighbour.
        fresh = truth[-place.y % self.recipe.tile :, -place.x % self.recipe.tile :]
        area = int(fresh.sum())
        self.counts["area"] += area
        self.counts["area_kept"] += area * keeps

    def _count_objects(self, kept: list[Place]) -> None:
        """Count objects whose centre lies in a kept tile of a grid."""
        self.counts["objects"] = len(self.boxes)
        if not kept:
            return
        corners = np.array([(place.y, place.x) for place in kept], np.float64)
        sides = np.array([self.side_y, self.side_x])
        for y, x, height, width, _ in self.boxes.tolist():
            centre = np.array([y + height / 2, x + width / 2]) / float(self.scale)
            inside = (corners <= centre) & (centre <= corners + sides)
            self.counts["objects_kept"] += bool(inside.all(axis=1).any())
