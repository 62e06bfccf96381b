"""`prepare`: raw files become folds.csv and a store."""

from __future__ import annotations

from histofold import competitions, limits
from histofold.competitions.base import Sample
from histofold.config import Config
from histofold.tiles import folds
from histofold.tiles.prepare import plan
from histofold.tiles.prepare import prepare as prepare_store
from histofold.workspace import Workspace


def prepare(config: Config) -> None:
    """Make what the project can draw by itself, then folds and store; what is there and fits is kept.

    Raises:
        DataError: raw files are missing or broken, or an edited folds.csv does not fit them.
    """
    workspace = Workspace(config)
    offered = competitions.open(config.competition, config.path("input"))
    if offered.provide():
        print(f"{offered.root}: drew the embedded sample")
    competition = workspace.competition
    samples = competition.samples()
    print(prepare_folds(workspace, samples))
    workers = config.prepare.workers
    needed = plan(competition, workspace.recipe, workers, workspace.store_path)
    needed.check(limits.of(config.limits, workspace.prepared))
    report = prepare_store(
        competition, workspace.recipe, workspace.store_path, workers, workspace.shard(), config.prepare.force
    )
    print(report)


def prepare_folds(workspace: Workspace, samples: list[Sample]) -> str:
    """Make folds.csv, or keep the one that is there; gives a line that says which."""
    settings = workspace.config.prepare
    path = workspace.folds_path()
    if path.exists() and not settings.force:
        table = folds.read(path, samples)
        used = folds.in_cv(table)
        count = used["fold"].nunique()
        kept = f"{path}: kept, {count} folds of {len(used)} samples"
        if count != settings.n_folds:
            kept += f" (prepare.n_folds={settings.n_folds} was not applied; prepare.force=true makes folds anew)"
        return kept
    table = folds.make(samples, settings.n_folds, settings.fold_seed)
    folds.write(path, table)
    sizes = folds.in_cv(table).groupby("fold").size()
    text = f"{path}: {len(sizes)} folds of {', '.join(map(str, sizes))} samples; edit it if you know better"
    first = workspace.folds_path("default")
    if path != first and first.exists() and folds.parts(folds.read(first)) == folds.parts(table):
        again = "another prepare.fold_seed, with prepare.force=true, makes others"
        text += f"\nits samples are held out together as in {first.name}, so that it tells nothing new: {again}"
    return text
