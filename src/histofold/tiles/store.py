"""The store: what `prepare` made of a competition, opened memory-mapped so that training decodes nothing.

<recipe>/recipe.json            settings, fingerprint of the inputs, version
<recipe>/tiles.parquet          one row a tile or image (COLUMNS)
<recipe>/pixels/<sample>.npy    slides (N, T, T, 3) uint8, images (H, W, 3) uint8
<recipe>/masks/<sample>.npy     alike without channels, in the smallest of uint8, uint16, uint32
<recipe>/records/<sample>.json  what was made from what; written last, so a sample that has one is whole
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histofold import files, given
from histofold.errors import ConfigError, DataError
from histofold.tiles.grid import rational

VERSION = 1
"""Format of the store; a store of another version is made anew."""

GRIDS = ("grid", "shifted", "centred")
COLUMNS = {
    "tile_id": "str",
    "sample_id": "str",
    "kind": "str",
    "index": "int64",
    "y": "int64",
    "x": "int64",
    "height": "int64",
    "width": "int64",
    "scale": "float64",
    "valid_height": "int64",
    "valid_width": "int64",
    "tissue": "float64",
    "foreground": "float64",
    "weight": "float64",
}
"""Columns of tiles.parquet.

`index` is the position in the sample's arrays (0 for whole images); y, x, height, width are in pixels of the full-size
image; valid_height and valid_width are the rows and columns of the stored array that lie on the image, the rest
repeats its edge; tissue and foreground are shares 0..1 of the valid pixels; weight multiplies the chance to be drawn.
"""


@dataclass(frozen=True)
class Recipe:
    """How samples become arrays.

    Attributes:
        kind: `tiles` (slides) or `whole` (images).
        tile: side of a tile in pixels of the reduced slide.
        scale: reduction ≥ 1.
        grids: `grid` covers the slide, `shifted` is a second grid half a tile later, `centred` has one tile around
            every object of the truth.
        min_tissue: share of a tile that has to be tissue; centred tiles are always kept.
    """

    kind: str = "whole"
    tile: int = 256
    scale: float = 1.0
    grids: tuple[str, ...] = ("grid",)
    min_tissue: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("whole", "tiles"):
            raise ConfigError(f"prepare.kind={self.kind}: expected whole (images) or tiles (slides)")
        rational(self.scale)
        unknown = [name for name in self.grids if name not in GRIDS]
        if unknown or (self.kind == "tiles" and not self.grids):
            raise ConfigError(f"prepare.grids={list(self.grids)}: expected one or more of {', '.join(GRIDS)}")
        if self.kind == "tiles" and self.tile < 16:
            raise ConfigError(f"prepare.tile={self.tile}: expected at least 16 pixels")
        if not 0 <= self.min_tissue <= 1:
            raise ConfigError(f"prepare.min_tissue={self.min_tissue}: expected a share between 0 and 1")

    @property
    def name(self) -> str:
        """Name of the store's folder: `whole`, `whole_s2`, `t256_s4`."""
        scale = f"s{self.scale:g}"
        if self.kind == "whole":
            return "whole" if self.scale == 1 else f"whole_{scale}"
        return f"t{self.tile}_{scale}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for recipe.json; what does not matter for whole images is left out."""
        if self.kind == "whole":
            return {"kind": self.kind, "scale": self.scale}
        return {**asdict(self), "grids": [name for name in GRIDS if name in self.grids]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Rebuild from `to_dict()`."""
        return cls(**{**values, "grids": tuple(values.get("grids", ("grid",)))})


@dataclass
class Store:
    """A prepared competition.

    Attributes:
        folder: where it is.
        recipe: how it was made.
        fingerprint: of the inputs and settings.
        tiles: one row a tile or whole image, see COLUMNS; rows of a sample follow each other.
    """

    folder: Path
    recipe: Recipe
    fingerprint: str
    tiles: pd.DataFrame
    _open: dict[tuple[str, str], NDArray[Any]] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Open a store that `prepare` finished.

        Raises:
            DataError: there is none, it is unfinished, or of another version.
        """
        folder = Path(folder)
        if not (folder / "tiles.parquet").is_file() or not (folder / "recipe.json").is_file():
            state = "is not finished" if (folder / "records").is_dir() else "does not exist"
            raise DataError(f"{folder}: the store {state}; run `{_prepare(folder)}` with the same settings")
        content = files.read_json(folder / "recipe.json")
        if not isinstance(content, dict) or content.get("version") != VERSION:
            path = folder / "recipe.json"
            how = _prepare(folder, "prepare.force=true")
            raise DataError(f"{path}: not a store of version {VERSION}; run `{how}`")
        tiles = pd.read_parquet(folder / "tiles.parquet")
        return cls(folder, Recipe.from_dict(content["settings"]), str(content["fingerprint"]), tiles)

    def pixels(self, sample_id: str) -> NDArray[np.uint8]:
        """Memory-mapped pixels of a sample: tiles (N, T, T, 3) or an image (H, W, 3), uint8 RGB.

        Raises:
            DataError: the sample is not in the store.
        """
        return self._array("pixels", sample_id)

    def masks(self, sample_id: str) -> NDArray[np.unsignedinteger[Any]]:
        """Memory-mapped truth of a sample: (N, T, T) or (H, W), 0 background, 1..n instances.

        Raises:
            DataError: the sample is not in the store.
        """
        return self._array("masks", sample_id)

    def samples(self) -> list[str]:
        """Ids of the samples that have rows, sorted."""
        return sorted(self.tiles["sample_id"].unique().tolist())

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would be pickled as a copy of all its pixels.
        return {**self.__dict__, "_open": {}}

    def _array(self, part: str, sample_id: str) -> NDArray[Any]:
        key = (part, sample_id)
        if key not in self._open:
            path = self.folder / part / f"{sample_id}.npy"
            try:
                self._open[key] = np.load(path, mmap_mode="r")
            except FileNotFoundError as error:
                how = _prepare(self.folder)
                raise DataError(f"{path}: sample {sample_id} is not in this store; run `{how}` again") from error
            except ValueError as error:
                how = _prepare(self.folder, "prepare.force=true")
                raise DataError(f"{path}: not a whole array ({error}); run `{how}`") from error
        return self._open[key]


def _prepare(folder: Path, *more: str) -> str:
    """The command that makes the store in `folder`, which lies in a folder of the competition's name."""
    return given.again("prepare", folder.absolute().parent.name, *more)
