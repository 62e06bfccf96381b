"""The cutter: whatever the slide's size, the tile, the scale and the grids, tiles cover it and hold its pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from histofold.rle import RunMask
from histofold.slides.reduce import reduce_array
from histofold.tiles.cutting import Cutter
from histofold.tiles.grid import rational
from histofold.tiles.store import COLUMNS, Recipe


class Drawn:
    """A slide in memory, which may be walked once."""

    path = Path("drawn.tiff")

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels
        self.height, self.width = pixels.shape[:2]

    def bands(self, height: int, scale: float = 1.0, overlap: int = 0) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        assert overlap == 0
        small = reduce_array(self.pixels, scale)
        for top in range(0, len(small), height):
            yield top, small[top : top + height]


class Kept(list[NDArray[np.uint8]]):
    """Takes the place of a growing file."""

    @property
    def count(self) -> int:
        return len(self)


@settings(max_examples=80, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    tile=st.sampled_from([16, 17, 32, 50]),
    scale=st.sampled_from([1, 1.0173, 1.3, 1.3333, 1.5, 2, 2.75, 3, 4, 7.3, 16]),
    grids=st.lists(st.sampled_from(["grid", "shifted", "centred"]), min_size=1, unique=True),
    seed=st.integers(0, 10**6),
)
def test_tiles_cover_the_slide_and_have_its_pixels(
    height: int, width: int, tile: int, scale: float, grids: list[str], seed: int
) -> None:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, 3), np.uint8)
    mask = np.kron(random.random((height // 20 + 1, width // 20 + 1)) < 0.2, np.ones((20, 20), bool))[:height, :width]
    runs = RunMask.from_mask(mask)
    small = reduce_array(pixels, scale)
    exact = rational(scale)
    truth = runs.reduced_mask(0, 0, height, width, float(exact))
    rows, columns = small.shape[:2]
    side_y, side_x = min(tile, rows), min(tile, columns)

    images, masks = Kept(), Kept()
    cutter = Cutter(Drawn(pixels), runs, Recipe("tiles", tile, scale, tuple(grids)))  # type: ignore[arg-type]
    table = cutter.cut("drawn", images, masks)  # type: ignore[arg-type]
    assert len(images) == len(masks) == len(table) == len(cutter.places)
    covered = np.zeros((rows, columns), int)
    for place, values in zip(cutter.places, table, strict=True):
        row: dict[str, Any] = dict(zip(COLUMNS, values, strict=True))
        part = slice(place.y, place.y + side_y), slice(place.x, place.x + side_x)
        assert small[part].shape == (side_y, side_x, 3), "no tile reaches beyond the slide"
        image, label = images[row["index"]], masks[row["index"]]
        assert (image.shape, label.shape) == ((tile, tile, 3), (tile, tile))
        np.testing.assert_array_equal(image[:side_y, :side_x], small[part])
        # The stored edge is repeated where the slide is smaller than a tile.
        np.testing.assert_array_equal(image[side_y:], np.repeat(image[side_y - 1 : side_y], tile - side_y, axis=0))
        if exact.denominator <= 64:
            np.testing.assert_array_equal(label[:side_y, :side_x], truth[part])
        assert row["y"] <= place.y * exact < row["y"] + row["height"] <= height
        assert row["x"] <= place.x * exact < row["x"] + row["width"] <= width
        covered[part] += place.kind == "grid"
    if "grid" in grids:
        assert covered.min() == 1
        assert covered.max() <= 4, "only the last tiles of a row and of a column lie over others"
        assert sum(place.kind == "grid" for place in cutter.places) == -(-rows // tile) * -(-columns // tile)
