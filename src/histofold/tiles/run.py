"""`prepare`: raw files become folds.csv and a store."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from histofold import competitions, files, given, limits
from histofold.competitions import images
from histofold.competitions.base import Competition, Sample
from histofold.competitions.rows import nfc
from histofold.config import Config
from histofold.errors import ConfigError, DataError
from histofold.tiles import folds
from histofold.tiles.prepare import plan, work_of
from histofold.tiles.prepare import prepare as prepare_store
from histofold.workspace import Workspace


def prepare(config: Config) -> None:
    """Make what the project can draw by itself, then folds and store; what is there and fits is kept.

    Raises:
        DataError: raw files are missing or broken (the others are prepared), or an edited folds.csv does not fit them.
        ResourceError: memory, disk or time would not suffice for what this shard has to do.
    """
    workspace = Workspace(config)
    offered = competitions.open(config.competition, config.path("input"))
    if offered.provide():
        print(f"{offered.root}: drew the embedded sample")
    competition = workspace.competition
    samples = competition.samples()
    print(f"samples: {folds.by_split(samples)}")
    for note in (*competition.notes(), *unreadable(competition, samples)):
        print(f"note: {note}")
    print(prepare_folds(workspace, samples))
    settings, recipe, folder, shard = config.prepare, workspace.recipe, workspace.store_path, workspace.shard()
    work = work_of(competition, recipe, folder, shard, settings.force)
    plan(competition, recipe, settings.workers, work).check(limits.of(config.limits, workspace.prepared))
    print(prepare_store(competition, recipe, folder, settings.workers, shard, settings.force, work))


def unreadable(competition: Competition, samples: list[Sample]) -> list[str]:
    """A line for each test slide that cannot be read: unlike the others, no store has a turn for it to be told at."""
    found = []
    for sample in samples:
        if competition.kind != "slides" or sample.split == "train" or sample.height * sample.width:
            continue
        try:
            path = competition.source(sample.sample_id)
            with files.reading(path):
                images.size(path)
        except (DataError, OSError) as error:
            found.append(f"{sample.sample_id} cannot be predicted like this: {error}")
    return found


def prepare_folds(workspace: Workspace, samples: list[Sample]) -> str:
    """Make folds.csv, or keep the one that is there; gives a line that says which."""
    settings = workspace.config.prepare
    path = workspace.folds_path()
    if path.exists() and not settings.force:
        remark = update(path, samples)
        table = folds.read(path, samples)
        used = folds.in_cv(table)
        count = used["fold"].nunique()
        kept = f"{path}: kept, {count} folds of {len(used)} samples{_left_out(table)}"
        if count != settings.n_folds:
            kept += f" (prepare.n_folds={settings.n_folds} was not applied; prepare.force=true makes folds anew)"
        return kept + remark + _other_seed(workspace, samples, table)
    table = folds.make(samples, settings.n_folds, settings.fold_seed)
    folds.write(path, table)
    sizes = folds.in_cv(table).groupby("fold").size()
    text = f"{path}: {len(sizes)} folds of {', '.join(map(str, sizes))} samples; edit it if you know better"
    text += _left_out(table)
    first = workspace.folds_path("default")
    if path != first and first.exists() and folds.parts(folds.read(first)) == folds.parts(table):
        again = "another prepare.fold_seed, with prepare.force=true, makes others"
        text += f"\nits samples are held out together as in {first.name}, so that it tells nothing new: {again}"
    return text


def _other_seed(workspace: Workspace, samples: Sequence[Sample], table: pd.DataFrame) -> str:
    """A further line where a seed was typed that kept folds do not come from; the same command twice gives none."""
    seed = workspace.config.prepare.fold_seed
    typed = shlex.split(given.again("prepare", workspace.config.competition.name))
    if "prepare.fold_seed" not in map(given.key_of, typed):
        return ""
    try:
        drawn = folds.make(samples, folds.in_cv(table)["fold"].nunique(), seed)
    except (ConfigError, DataError):
        drawn = None  # More folds than groups, which only a person makes: no seed gives these.
    if drawn is not None and folds.parts(drawn) == folds.parts(table):
        return ""
    return (
        f"\nnote: prepare.fold_seed={seed} was not applied; folds=NAME makes another set with it, prepare.force=true "
        "replaces this one"
    )


def update(path: Path, samples: list[Sample]) -> str:
    """Write into a folds file what is known by now; gives a further line about rows that came or went, or nothing.

    Samples outside training get and lose their rows (`folds.follow`), and rows without a size, as their files could not
    be read, are filled in (`folds.settle`). Nothing else changes of a file that a person may have edited, and nothing
    is written where nothing is to change.

    Raises:
        DataError: the file is broken, or see `folds.follow` and `folds.settle`.
    """
    folds.read(path)
    # As texts, so that ids such as 007 and columns of one's own stay as they are.
    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    table["sample_id"] = table["sample_id"].map(nfc)  # as `folds.read` has them
    table, added, dropped = folds.follow(path, table, samples)
    if folds.settle(path, table, samples) + added + dropped:
        with files.atomic(path) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
    if not added + dropped:
        return ""
    return f"\nnote: rows of samples that are not trained on: {added} added, {dropped} dropped"


def _left_out(table: pd.DataFrame) -> str:
    """A further line about training images that have no fold as they cannot be read; empty without any."""
    ids = folds.left_out(table)
    if not ids:
        return ""
    more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
    return (
        f"\nnote: {', '.join(ids[:3])}{more}: cannot be read, so that the group is not known: left out of training and "
        "scores (fold -1); the first prepare that can read the file gives it the fold of its group"
    )
