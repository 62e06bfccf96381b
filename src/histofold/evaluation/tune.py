"""Thresholds and instance settings chosen on OOF predictions, cross-fitted over the folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histofold import instances, metrics
from histofold.errors import HistofoldError
from histofold.evaluation.crossfit import Choice, cross_fit
from histofold.evaluation.oof import MeanBands, Run, predictions, shared_bands
from histofold.evaluation.scoring import LEVEL, HistogramTask, TruthLabels, instance_scores, mask_scores
from histofold.instances.tuning import score_grid
from histofold.parallel import each
from histofold.workspace import Workspace


@dataclass(frozen=True)
class Members:
    """The OOF predictions of some runs on some folds.

    Attributes:
        rows: of folds.csv, those samples only.
        bands: the members' mean for each row.
        weights: of the runs.
        folds: chosen; `known` is how many there are in all.
    """

    rows: pd.DataFrame
    bands: tuple[MeanBands, ...]
    names: tuple[str, ...]
    weights: tuple[float, ...]
    folds: tuple[int, ...]
    known: int

    def mixed(self, weights: Sequence[float]) -> tuple[MeanBands, ...]:
        """The same files under other weights."""
        return tuple(MeanBands(bands.paths, tuple(weights), bands.names) for bands in self.bands)

    @classmethod
    def of(
        cls,
        workspace: Workspace,
        runs: Sequence[Run],
        table: pd.DataFrame,
        folds: list[int],
        weights: Sequence[float] | None = None,
    ) -> Members:
        """Collect the files of each run.

        Raises:
            DataError: a run has not exactly one prediction of each sample.
        """
        rows = table[table["fold"].isin(folds)].reset_index(drop=True)
        files = [predictions(run, table, folds) for run in runs]
        shares = tuple(weights or [1 / len(runs)] * len(runs))
        ids = [str(sample_id) for sample_id in rows["sample_id"]]
        names = shared_bands([file[ids[0]] for file in files])
        bands = tuple(MeanBands(tuple(file[sample_id] for file in files), shares, names) for sample_id in ids)
        return cls(rows, bands, names, shares, tuple(folds), table["fold"].nunique())


@dataclass(frozen=True)
class Tuned:
    """What was chosen, and the honest score of each sample.

    Attributes:
        scores: one row a sample under the setting chosen on the other folds; `score` is the competition's metric.
        optimistic: mean score of the final setting on the samples that chose it.
        threshold: of the foreground, for mask competitions.
        instances: decoder and options, for instance competitions.
        curve: (threshold, mean score).
        per_fold: the setting that each fold was given: `level`, or the decoder's options.
    """

    scores: pd.DataFrame
    optimistic: float
    threshold: float | None
    instances: dict[str, Any] | None
    curve: tuple[tuple[float, float], ...]
    per_fold: dict[int, dict[str, Any]] = field(default_factory=dict)


def tune(workspace: Workspace, members: Members) -> Tuned:
    """Choose the setting that scores best, for each fold on the others.

    Raises:
        DataError: truth or predictions cannot be read.
    """
    masks = workspace.competition.truth == "mask"
    return _tune_threshold(workspace, members) if masks else _tune_decoder(workspace, members)


def _tune_threshold(workspace: Workspace, members: Members) -> Tuned:
    counts = histograms(workspace, members, members.bands)
    curves = np.stack([metrics.dice_curve(count) for count in counts])
    # Codes 1..255 only: 0 would call everything foreground, 256 nothing.
    columns = np.arange(1, 256) if workspace.config.evaluate.tune else np.array([LEVEL])
    choice = cross_fit(curves[:, columns], _folds(members))
    own = [int(columns[choice.per_fold[int(fold)]]) for fold in members.rows["fold"]]
    rows = [mask_scores(count, level) for count, level in zip(counts, own, strict=True)]
    curve = tuple((level / 255, float(curves[:, level].mean())) for level in range(1, 256, 2))
    return Tuned(
        score_table(members, rows),
        choice.optimistic,
        int(columns[choice.best]) / 255,
        None,
        curve,
        _levels(choice, columns),
    )


def histograms(workspace: Workspace, members: Members, bands: Sequence[MeanBands]) -> list[NDArray[np.int64]]:
    """Histograms (2, 256) at full size of every sample, in the order of `members.rows`."""
    competition = workspace.competition
    tasks = [
        HistogramTask(competition, workspace.sample(str(sample_id)), mixed)
        for sample_id, mixed in zip(members.rows["sample_id"], bands, strict=True)
    ]
    return _gather(_call, tasks, workspace.config.evaluate.workers, "histograms")


def _tune_decoder(workspace: Workspace, members: Members) -> Tuned:
    competition, config = workspace.competition, workspace.config
    metric = competition.metric
    decoder = instances.resolve(config.instances, members.names)
    scale = members.bands[0].scale
    ids = [str(sample_id) for sample_id in members.rows["sample_id"]]
    grid = _grid(decoder) if config.evaluate.tune else [decoder.options()]
    # The search compares at the prediction's scale; what is reported is scored at full size.
    truths = [TruthLabels(competition, sample_id, scale) for sample_id in ids]
    items = list(zip(members.bands, truths, strict=True))
    scores = score_grid(items, decoder.name, grid, metric, config.evaluate.workers)
    choice = cross_fit(scores, _folds(members))
    own = [grid[choice.per_fold[int(fold)]] for fold in members.rows["fold"]]
    rows = decoded_scores(workspace, members, members.bands, decoder.name, own)
    best = {"name": decoder.name, **instances.build(decoder.name, **grid[choice.best]).options()}
    chosen = {fold: grid[column] for fold, column in choice.per_fold.items()}
    return Tuned(score_table(members, rows), choice.optimistic, None, best, _curve(scores, grid, choice), chosen)


def decoded_scores(
    workspace: Workspace,
    members: Members,
    bands: Sequence[MeanBands],
    decoder: str,
    settings: Sequence[dict[str, Any]],
) -> list[dict[str, float]]:
    """All instance metrics of every sample at full size, each decoded with a setting of its own."""
    competition = workspace.competition
    ids = [str(sample_id) for sample_id in members.rows["sample_id"]]
    tasks = [
        DecodeTask(mixed, TruthLabels(competition, sample_id), decoder, options, competition.metric)
        for sample_id, mixed, options in zip(ids, bands, settings, strict=True)
    ]
    return _gather(_call, tasks, workspace.config.evaluate.workers, "score")


def _grid(decoder: instances.Decoder) -> list[dict[str, Any]]:
    """The settings to try: the decoder's grid on top of what the user set, and the user's own setting."""
    tried = [{**decoder.options(), **setting} for setting in instances.grid(decoder.name)]
    own = decoder.options()
    return tried if own in tried else [own, *tried]


def _curve(scores: NDArray[np.float64], grid: list[dict[str, Any]], choice: Choice) -> tuple[tuple[float, float], ...]:
    """Score against the foreground threshold, everything else as in the best setting."""
    best = grid[choice.best]
    points = {
        float(setting["threshold"]): float(scores[:, column].mean())
        for column, setting in enumerate(grid)
        if "threshold" in setting and all(setting[key] == best[key] for key in setting if key != "threshold")
    }
    return tuple(sorted(points.items()))


@dataclass(frozen=True)
class DecodeTask:
    """One image and the setting that its fold was given; picklable."""

    bands: MeanBands
    truth: TruthLabels
    name: str
    options: dict[str, Any]
    metric: str

    def __call__(self) -> dict[str, float]:
        """All instance metrics of the image."""
        return instance_scores(instances.build(self.name, **self.options), self.bands, self.truth(), self.metric)


def _call(task: Any) -> Any:
    return task()


def _gather(function: Any, tasks: list[Any], workers: int, text: str) -> list[Any]:
    results: dict[int, Any] = {}
    order = {id(task): index for index, task in enumerate(tasks)}
    for task, result in each(function, tasks, workers, text):
        if isinstance(result, Exception):
            raise result if isinstance(result, HistofoldError) else RuntimeError(f"{task}: {result}") from result
        results[order[id(task)]] = result
    return [results[index] for index in range(len(tasks))]


def _levels(choice: Choice, columns: NDArray[np.int64]) -> dict[int, dict[str, Any]]:
    return {fold: {"level": int(columns[column])} for fold, column in choice.per_fold.items()}


def _folds(members: Members) -> NDArray[np.int64]:
    return members.rows["fold"].to_numpy(np.int64)


def score_table(members: Members, rows: list[dict[str, float]]) -> pd.DataFrame:
    """Samples with their fold, stratum, group and size, and the scores `rows` of each."""
    kept = members.rows[["sample_id", "fold", "stratum", "group", "height", "width"]]
    return pd.concat([kept.reset_index(drop=True), pd.DataFrame(rows)], axis=1)
