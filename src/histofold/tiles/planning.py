"""What `prepare` will cost, from the sizes of the samples and the settings, before anything is decoded."""

from __future__ import annotations

from pathlib import Path

from histofold import limits, parallel, slides
from histofold.competitions.base import Competition
from histofold.tiles import records
from histofold.tiles.grid import reduced
from histofold.tiles.making import wanted
from histofold.tiles.store import Recipe

WORKER_BYTES = 350 << 20
"""Resident memory of a worker process before it opens a sample: interpreter and libraries."""
DECODED_PER_SECOND = 200e6
"""Bytes of pixels of compressed TIFF that a core decodes, reduces and cuts in a second."""
IMAGE_PER_SECOND = 5e6
"""Bytes of pixels of images that a core reads in a second where every nucleus has a PNG of its own."""
TISSUE = 0.6
"""Share of a slide's tiles that are expected to be kept when there is a tissue filter."""


def plan(competition: Competition, recipe: Recipe, workers: int = 0, folder: Path | None = None) -> limits.Plan:
    """Estimate memory, disk and time of `prepare`; what is in `folder` already costs nothing again.

    Raises:
        ConfigError: the recipe does not fit the competition.
    """
    ids = wanted(competition, recipe)
    if folder is not None:
        ids = [sample_id for sample_id in ids if not records.record_path(folder, sample_id).is_file()]
    count = max(1, min(workers or parallel.cores(), len(ids)))
    threads = max(1, parallel.cores() // count)
    sizes = [(competition.sample(key).height, competition.sample(key).width) for key in ids]
    pixels = sum(height * width for height, width in sizes)
    if recipe.kind == "whole":
        largest = max((height * width for height, width in sizes), default=0)
        seconds = 3 * pixels / IMAGE_PER_SECOND / count
        return limits.Plan("prepare", count * (WORKER_BYTES + 40 * largest), int(5 * pixels / recipe.scale**2), seconds)
    memory = []
    for sample_id, (_, width) in zip(ids, sizes, strict=True):
        with slides.open(competition.source(sample_id), threads) as slide:
            # Rows of the tiles that are being cut, and the band that joins them, twice while they are joined.
            memory.append(slide.memory(recipe.tile) + 2 * 3 * int(1.5 * recipe.tile) * reduced(width, recipe.scale))
    share = TISSUE if recipe.min_tissue > 0 else 1.0
    grids = sum(name != "centred" for name in recipe.grids) + 0.25 * ("centred" in recipe.grids)
    disk = 4 * pixels / recipe.scale**2 * share * grids
    peak = sum(sorted(memory)[-count:]) + count * WORKER_BYTES
    seconds = 3 * pixels / DECODED_PER_SECOND / min(parallel.cores(), count * threads)
    return limits.Plan("prepare", peak, int(disk), seconds)
