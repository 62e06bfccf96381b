"""`evaluate`: the honest CV of runs as an ensemble, or the leaderboard of all runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd

from histofold import given
from histofold.config import Config
from histofold.errors import ConfigError, DataError
from histofold.evaluation import extents, origins, room
from histofold.evaluation.crossfit import interval
from histofold.evaluation.ensembling import Mixture, mix
from histofold.evaluation.leaderboard import leaderboard
from histofold.evaluation.oof import Run, find_run, find_runs, left_out, of_images
from histofold.evaluation.pruned import note
from histofold.evaluation.repeats import fold_counts, fold_set_of
from histofold.evaluation.table import cv_table
from histofold.evaluation.tune import Members
from histofold.files import atomic
from histofold.inference.ensemble import CheckpointFile, Ensemble, RunWeight, checkpoints_of
from histofold.metrics import PIXELS
from histofold.metrics.merged import NOTE, marked
from histofold.tiles.folds import in_cv
from histofold.workspace import ALL_FOLDS, Workspace

NO_MEAN = ("fold", "height", "width", "score", *PIXELS)
"""Columns whose mean says nothing, or is kept already."""

FEW = 5
"""Samples below which a correlation says nothing."""


def evaluate(config: Config) -> None:
    """Print the leaderboard, or tune `runs` on their OOF predictions and write `ensembles/<name>.json`.

    With `evaluate.depths` it prunes the runs instead, which are UNet++.

    Raises:
        ConfigError: `folds` is no list of folds that exist, `runs` is empty or names a run twice.
        DataError: a run is missing or incomplete, or the runs do not share their folds.
        ResourceError: the largest sample alone does not fit `limits.*`.
    """
    workspace = Workspace(config)
    if config.runs is None:
        metric = workspace.competition.metric
        print(leaderboard(find_runs(workspace.oof), workspace.oof, metric, fold_counts(workspace.prepared)))
        if marked(metric, workspace.competition.merged) != metric:
            print(NOTE)
        return
    check_runs(config.runs)
    runs = [find_run(workspace.oof, name) for name in config.runs]
    table = workspace.folds(_fold_set(runs))
    table = in_cv(table)
    chosen = chosen_folds(config, table)
    if config.evaluate.depths is not None:
        from histofold.evaluation.depths import prune  # it predicts, which needs more than the rest of this verb

        for run in runs:
            print(prune(workspace, run, table, chosen, config.evaluate.depths))
        return
    wanted = config.evaluate.second_level != "off"
    if wanted:
        # Imported here: only this option needs scikit-learn's trees.
        from histofold.evaluation import secondrun

        secondrun.check(workspace, len(runs), chosen)
    members = Members.of(workspace, runs, table, chosen)
    _size(runs, members.folds)  # asked before the work: `describe` would refuse after it
    names = [run.name for run in runs]
    checkpoints = checkpoints_of(config.path("oof"), config.competition.name, names, members.folds)
    origins.check(runs, members, checkpoints)
    workspace = Workspace(room.fitting(workspace, members.rows, len(runs), members.bands[0].scale))
    mixture = mix(workspace, members, names)
    draft = None
    if wanted:
        mixture, draft = secondrun.added(workspace, mixture)
    ensemble = describe(workspace, runs, mixture, checkpoints)
    # An older ensemble of this name keeps its second level until all of the new one is known.
    if draft is not None:
        ensemble = replace(ensemble, second=draft.write(config.path("oof"), ensemble.competition, ensemble.name))
    path = ensemble.write(config.path("oof"))
    with atomic(path.with_suffix(".csv")) as temporary:
        mixture.tuned.scores.to_csv(temporary, index=False)
    extents.write(extents.place(config.path("oof"), ensemble.competition, ensemble.name), mixture.tuned.extents)
    print(cv_table(ensemble, mixture.tuned.scores, workspace.competition.merged))
    pruned = [text for run in runs if (text := note(run.folder))]
    alike = correlations(runs, workspace.competition.metric, chosen)
    for line in (*mixture.lines, *left_out(members.bands[0].paths), *alike, *pruned):
        print(line)
    print(f"{path}: written; `{given.again('predict', ensemble.competition, f'name={ensemble.name}')}` uses it")


def check_runs(names: Sequence[str]) -> None:
    """Check that `runs=` names members.

    Raises:
        ConfigError: it is empty, or has a run twice.
    """
    if not names:
        raise ConfigError("runs=[]: names no run; give some, such as runs=[unet], or leave it out for the leaderboard")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ConfigError(
            f"runs=[{','.join(names)}]: {twice[0]} is there more than once; name each run once, "
            "evaluate.search finds weights"
        )


def correlations(runs: Sequence[Run], metric: str, folds: Sequence[int]) -> list[str]:
    """How alike the runs' errors by a metric are over the samples of `folds`; runs near 1 add little to each other."""
    tables = {run.name: run.scores(metric) for run in runs}
    columns = {name: table[table["fold"].isin(folds)].set_index("sample_id")["score"] for name, table in tables.items()}
    # One that was not scored by the metric at all says nothing, and would leave nothing of the others.
    columns = {name: column for name, column in columns.items() if column.notna().any()}
    table = 1 - pd.DataFrame(columns).dropna()
    if len(table) < FEW:
        return []
    values = {(one, other): float(table[one].corr(table[other])) for one, other in combinations(columns, 2)}
    # A run without any error, or always with the same one, correlates with nothing.
    return [
        f"errors of {a} and {b} correlate by {value:+.3f}" for (a, b), value in values.items() if np.isfinite(value)
    ]


def chosen_folds(config: Config, table: pd.DataFrame) -> list[int]:
    """The folds that `folds=` asks for.

    Raises:
        ConfigError: one of them does not exist.
    """
    known = sorted(int(fold) for fold in table["fold"].unique())
    if isinstance(config.folds, str) and config.folds in ALL_FOLDS:
        return known
    if not isinstance(config.folds, Sequence) or isinstance(config.folds, str):
        raise ConfigError(f"folds={config.folds}: evaluate takes all or a list such as folds=[0,1]")
    unknown = [fold for fold in config.folds if fold not in known]
    if unknown or not config.folds:
        raise ConfigError(f"folds={list(config.folds)}: there are the folds {known}")
    return sorted({int(fold) for fold in config.folds})


def describe(
    workspace: Workspace, runs: Sequence[Run], mixture: Mixture, checkpoints: Sequence[CheckpointFile]
) -> Ensemble:
    """Everything that predict, submit and report need, as one record; `checkpoints` made the predictions."""
    members, tuned = mixture.members, mixture.tuned
    config, scores = workspace.config, tuned.scores
    values = scores["score"].to_numpy(np.float64)
    ends = interval(values, scores["group"].to_numpy(str), config.evaluate.bootstrap)
    shares = list(zip(runs, members.weights, strict=True))
    pruned = [run.name for run, weight in shares if weight > 0 and note(run.folder)]
    return Ensemble(
        competition=config.competition.name,
        name=_name(config, runs),
        metric=workspace.competition.metric,
        members=tuple(RunWeight(run.name, weight) for run, weight in shares),
        folds=tuple(members.folds),
        partial=len(members.folds) < members.known,
        bands=members.names,
        checkpoints=tuple(checkpoints),
        threshold=tuned.threshold,
        instances=tuned.instances,
        strata=tuned.strata,
        size=_size(runs, members.folds),
        score={
            "optimistic": tuned.optimistic,
            "cross_fitted": float(values.mean()),
            "interval": list(ends) if ends else None,
            "per_fold": {str(fold): float(part) for fold, part in scores.groupby("fold")["score"].mean().items()},
            "per_stratum": {str(key): float(part) for key, part in scores.groupby("stratum")["score"].mean().items()},
            "per_run": {run.name: _own_score(run, scores, workspace.competition.metric) for run in runs},
        }
        | ({"search": mixture.searched} if mixture.searched else {})
        | ({"pruned": pruned} if pruned else {}),
        threshold_curve=tuned.curve,
        extra={
            column: float(scores[column].mean())
            for column in scores.columns
            if column not in NO_MEAN and pd.api.types.is_numeric_dtype(scores[column])
        }
        | ({"adds": mixture.adds} if mixture.adds else {}),
    )


def _name(config: Config, runs: Sequence[Run]) -> str:
    return config.name or "+".join(run.name for run in runs)


def _own_score(run: Run, scores: pd.DataFrame, metric: str) -> float | None:
    """A run's own mean over the images of the ensemble's `scores`; None where it has none of one of them."""
    mean = float(of_images(run.scores(metric), scores)["score"].mean(skipna=False))
    return mean if np.isfinite(mean) else None


def _size(runs: Sequence[Run], folds: Sequence[int]) -> float:
    """What instances were magnified to in all OOF predictions.

    Raises:
        DataError: they differ, so that no prediction of a test image would be like all of them.
    """
    sizes = {
        str(run.fold(fold)): float(run.config(fold).get("predict", {}).get("size", 0.0))
        for run in runs
        for fold in folds
    }
    one = next(iter(sizes.values()))
    others = {place: size for place, size in sizes.items() if size != one}
    if others:
        place, size = next(iter(others.items()))
        raise DataError(
            f"{place}: its OOF predictions were made with predict.size={size:g}, those of {next(iter(sizes))} with "
            f"{one:g}; delete predictions/ and scores.csv of one and give its training command again with the other's"
        )
    return one


def _fold_set(runs: Sequence[Run]) -> str:
    """The fold set that all runs were trained on.

    Raises:
        DataError: they differ, so that a sample may be unseen by one run and learned by another.
    """
    sets = {run.name: fold_set_of(run.config()) for run in runs}
    if len(set(sets.values())) > 1:
        raise DataError(f"the runs were trained on different fold sets ({sets}); evaluate them apart")
    return next(iter(sets.values()))
