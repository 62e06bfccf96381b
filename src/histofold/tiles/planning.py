"""What there is to do for `prepare`, and what it will cost, before anything is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from histofold import files, limits, parallel, slides
from histofold.competitions.base import Competition
from histofold.errors import DataError
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


@dataclass(frozen=True)
class Work:
    """What one `prepare` has to do. Asked once, for the plan and for the work itself: it reads every slide's truth.

    Attributes:
        everyone: ids of all samples of the store, sorted.
        chosen: those of this shard.
        states: of the chosen ones, see `state`; none where everything is made anew as asked.
    """

    everyone: Sequence[str]
    chosen: Sequence[str]
    states: dict[str, str]

    @property
    def todo(self) -> list[str]:
        """Those of this shard that have to be made."""
        return [sample_id for sample_id in self.chosen if self.states.get(sample_id) != "true"]


def work_of(
    competition: Competition,
    recipe: Recipe,
    folder: Path,
    shard: tuple[int, int] | None = None,
    force: bool = False,
) -> Work:
    """What is to be done for the store in `folder`.

    Args:
        competition: where samples and truth come from.
        recipe: how the store is made.
        folder: of the store; it need not be there.
        shard: (i, n): only every n-th sample from the i-th on.
        force: everything counts as missing.

    Raises:
        ConfigError: the recipe does not fit the competition.
    """
    everyone = wanted(competition, recipe)
    chosen = everyone if shard is None else everyone[shard[0] :: shard[1]]
    states = {} if force else {sample_id: state(competition, recipe, folder, sample_id) for sample_id in chosen}
    return Work(everyone, chosen, states)


def state(competition: Competition, recipe: Recipe, folder: Path, sample_id: str) -> str:
    """`true`, or why a sample has to be made: `new`, `settings`, `inputs`, or `broken` where its files are."""
    record = records.read_record(folder, sample_id)
    if record is None:
        return "new"
    if record.settings != records.settings_digest(recipe):
        return "settings"
    try:
        inputs = records.inputs_digest(competition, sample_id)
    except DataError:
        # Told when it is made: a slide that was cut off since then stops no other.
        return "broken"
    if record.inputs != inputs:
        return "inputs"
    arrays = all((folder / part / f"{sample_id}.npy").is_file() for part in ("pixels", "masks"))
    return "true" if arrays or not record.rows else "new"


def plan(competition: Competition, recipe: Recipe, workers: int = 0, work: Work | None = None) -> limits.Plan:
    """Estimate memory, disk and time of what `work` says is to do; without it, of making everything.

    A sample whose file cannot be read costs nothing: it is told when its turn comes.

    Raises:
        ConfigError: the recipe does not fit the competition.
    """
    ids = wanted(competition, recipe) if work is None else work.todo
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
        try:
            path = competition.source(sample_id)
            with files.reading(path), slides.open(path, threads) as slide:
                # Rows of the tiles that are being cut, and the band that joins them, twice while they are joined.
                rows = 2 * 3 * int(1.5 * recipe.tile) * reduced(width, recipe.scale)
                memory.append(slide.memory(recipe.tile) + rows)
        except (DataError, OSError):
            continue
    share = TISSUE if recipe.min_tissue > 0 else 1.0
    grids = sum(name != "centred" for name in recipe.grids) + 0.25 * ("centred" in recipe.grids)
    disk = 4 * pixels / recipe.scale**2 * share * grids
    peak = sum(sorted(memory)[-count:]) + count * WORKER_BYTES
    seconds = 3 * pixels / DECODED_PER_SECOND / min(parallel.cores(), count * threads)
    return limits.Plan("prepare", peak, int(disk), seconds)
