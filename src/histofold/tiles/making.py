"""One sample → its arrays: a slide is cut into tiles, an image is stored whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from histofold import slides
from histofold.competitions.base import Competition
from histofold.competitions.instances import contacts
from histofold.errors import ConfigError, DataError
from histofold.slides.reduce import reduce_array
from histofold.tiles import records
from histofold.tiles.anatomy import Anatomy
from histofold.tiles.arrays import growing, save, smallest
from histofold.tiles.cutting import Cutter
from histofold.tiles.store import COLUMNS, Recipe
from histofold.upsample import reduced_labels


def wanted(competition: Competition, recipe: Recipe) -> list[str]:
    """Ids of the samples that a store holds, sorted.

    Raises:
        ConfigError: tiles of images, or whole slides.
    """
    expected = "tiles" if competition.kind == "slides" else "whole"
    if recipe.kind != expected:
        raise ConfigError(
            f"prepare.kind={recipe.kind}: {competition.name} has {competition.kind}, set prepare.kind={expected}"
        )
    every = competition.samples()
    if competition.kind == "slides":
        every = [sample for sample in every if sample.split == "train"]
    return sorted(sample.sample_id for sample in every)


def make_sample(competition: Competition, recipe: Recipe, folder: Path, threads: int, sample_id: str) -> None:
    """Make one sample: arrays first, its record last.

    Raises:
        DataError: its files are broken, or a training slide has no truth.
    """
    records.record_path(folder, sample_id).unlink(missing_ok=True)
    inputs = records.inputs_digest(competition, sample_id)
    make = _cut_slide if recipe.kind == "tiles" else _store_image
    rows, counts = make(competition, recipe, folder, threads, sample_id)
    content = records.content_digest(competition, sample_id)
    records.Record(sample_id, inputs, content, records.settings_digest(recipe), rows, counts).write(folder)


def _cut_slide(
    competition: Competition, recipe: Recipe, folder: Path, threads: int, sample_id: str
) -> tuple[list[list[Any]], dict[str, int]]:
    mask = competition.mask(sample_id)
    if mask is None:
        raise DataError(f"{competition.source(sample_id)}: a training slide without truth; give it runs or polygons")
    side = recipe.tile
    path = records.anatomy_path(competition, sample_id)
    with (
        slides.open(competition.source(sample_id), threads) as slide,
        growing(folder / "pixels" / f"{sample_id}.npy", (side, side, 3), np.uint8) as pixels,
        growing(folder / "masks" / f"{sample_id}.npy", (side, side), np.uint8) as masks,
    ):
        if (mask.height, mask.width) != (slide.height, slide.width):
            raise DataError(
                f"{slide.path}: the slide has {slide.height} × {slide.width} pixels and its truth "
                f"{mask.height} × {mask.width}"
            )
        anatomy = Anatomy(path, slide.height, slide.width) if path is not None else None
        cutter = Cutter(slide, mask, recipe, anatomy)
        return cutter.cut(sample_id, pixels, masks), cutter.counts


def _store_image(
    competition: Competition, recipe: Recipe, folder: Path, threads: int, sample_id: str
) -> tuple[list[list[Any]], dict[str, int]]:
    labels = competition.labels(sample_id)
    if labels is None:
        return [], {}
    image = competition.image(sample_id)
    if labels.shape != image.shape[:2]:
        raise DataError(
            f"{competition.source(sample_id)}: the image has {image.shape[0]} × {image.shape[1]} pixels and its labels "
            f"{labels.shape[0]} × {labels.shape[1]}"
        )
    height, width = image.shape[:2]
    counts = contacts(labels)
    image, labels = reduce_array(image, recipe.scale), reduced_labels(labels, recipe.scale)
    save(folder / "pixels" / f"{sample_id}.npy", image)
    save(folder / "masks" / f"{sample_id}.npy", smallest(labels))
    values = {
        "tile_id": sample_id, "sample_id": sample_id, "kind": "whole", "index": 0, "y": 0, "x": 0,
        "height": height, "width": width, "scale": float(recipe.scale),
        "valid_height": image.shape[0], "valid_width": image.shape[1],
        "tissue": 1.0, "foreground": round(float((labels > 0).mean()), 8), "weight": 1.0,
    }  # fmt: skip
    return [[values[name] for name in COLUMNS]], counts
