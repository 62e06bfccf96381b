"""Thresholds and instance settings chosen on OOF predictions, cross-fitted over the folds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histofold import instances, metrics
from histofold.errors import ConfigError, HistofoldError
from histofold.evaluation import extents
from histofold.evaluation.crossfit import cross_fit, first_good
from histofold.evaluation.extents import Extent
from histofold.evaluation.gridsearch import FREE, LEAST, Choices, GridSearch, Setting, choose, choose_strata
from histofold.evaluation.oof import MeanBands, Run, one_scale, predictions, shared_bands
from histofold.evaluation.repeats import one_network
from histofold.evaluation.scoring import LEVEL, HistogramTask, TruthLabels, decoded, final_scores, mask_scores
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
            DataError: a run has not exactly one prediction of each sample, its folds are different networks, or the
                predictions have different scales.
        """
        for run in runs:
            one_network(run, folds)
        rows = table[table["fold"].isin(folds)].reset_index(drop=True)
        files = [predictions(run, table, folds) for run in runs]
        shares = tuple(weights or [1 / len(runs)] * len(runs))
        ids = [str(sample_id) for sample_id in rows["sample_id"]]
        # Of each fold one file: how a fold was predicted (predict.spread, for one) may differ within a run.
        firsts = {str(fold): str(part["sample_id"].iloc[0]) for fold, part in rows.groupby("fold")}
        pairs = list(zip(runs, files, strict=True))
        some = {f"{run.name}/fold{fold}": file[name] for run, file in pairs for fold, name in firsts.items()}
        one_scale(list(some), list(some.values()))
        names = shared_bands(list(some.values()))
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
        own: the setting that each sample was given by the other folds: `level`, or the decoder's options.
        extents: what each sample's prediction has under that setting.
        strata: stratum → its own decoder and options, where that is better; other strata take `instances`.
        lines: what was found, for the person who asked.
        among: of instances: samples (N,) bool → scores (N,) at the predictions' scale under the settings that these
            samples alone choose, for each fold on the others among them.
    """

    scores: pd.DataFrame
    optimistic: float
    threshold: float | None
    instances: dict[str, Any] | None
    curve: tuple[tuple[float, float], ...]
    own: tuple[dict[str, Any], ...] = ()
    extents: tuple[Extent, ...] = ()
    strata: dict[str, dict[str, Any]] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    among: Callable[[NDArray[np.bool_]], NDArray[np.float64]] | None = None


PER_STRATUM = ("auto", "always", "never")
"""Values of `evaluate.per_stratum`."""


def tune(workspace: Workspace, members: Members, per_stratum: str | None = None) -> Tuned:
    """Choose the setting that scores best, for each fold on the others.

    Args:
        per_stratum: of instances, in place of `evaluate.per_stratum`.

    Raises:
        ConfigError: `evaluate.per_stratum` has no such value.
        DataError: truth or predictions cannot be read.
    """
    wanted = per_stratum or workspace.config.evaluate.per_stratum
    if wanted not in PER_STRATUM:
        raise ConfigError(f"evaluate.per_stratum={wanted}: expected {', '.join(PER_STRATUM)}")
    masks = workspace.competition.truth == "mask"
    return _tune_threshold(workspace, members) if masks else _tune_decoder(workspace, members, wanted)


def _tune_threshold(workspace: Workspace, members: Members) -> Tuned:
    counts = histograms(workspace, members, members.bands)
    metric = workspace.competition.metric
    curves = np.stack([metrics.named_curve(metric)(count) for count in counts])
    # Codes 1..255 only: 0 would call everything foreground, 256 nothing.
    columns = np.arange(1, 256) if workspace.config.evaluate.tune else np.array([LEVEL])
    choice = cross_fit(curves[:, columns], _folds(members))
    own = [int(columns[choice.per_fold[int(fold)]]) for fold in members.rows["fold"]]
    scores, measured = thresholded_scores(members, counts, own, metric)
    curve = tuple((level / 255, float(curves[:, level].mean())) for level in range(1, 256, 2))
    given = tuple({"level": level} for level in own)
    threshold = int(columns[choice.best]) / 255
    return Tuned(scores, choice.optimistic, threshold, None, curve, given, measured)


def thresholded_scores(
    members: Members, counts: Sequence[NDArray[np.int64]], levels: Sequence[int], metric: str
) -> tuple[pd.DataFrame, tuple[Extent, ...]]:
    """Scores and extents of every sample, from its histogram (2, 256) and a level of its own.

    Args:
        metric: the competition's, `dice` or `iou`.
    """
    ids = [str(sample_id) for sample_id in members.rows["sample_id"]]
    rows = [mask_scores(count, level, metric) for count, level in zip(counts, levels, strict=True)]
    measured = tuple(extents.of_histogram(*each) for each in zip(ids, counts, levels, strict=True))
    return score_table(members, rows), measured


def histograms(workspace: Workspace, members: Members, bands: Sequence[MeanBands]) -> list[NDArray[np.int64]]:
    """Histograms (2, 256) at full size of every sample, in the order of `members.rows`."""
    competition = workspace.competition
    tasks = [
        HistogramTask(competition, workspace.sample(str(sample_id)), mixed)
        for sample_id, mixed in zip(members.rows["sample_id"], bands, strict=True)
    ]
    return _gather(_call, tasks, workspace.config.evaluate.workers, "histograms")


def _tune_decoder(workspace: Workspace, members: Members, per_stratum: str) -> Tuned:
    config = workspace.config
    decoder = instances.resolve(config.instances, members.names)
    grid = settings_to_try(decoder, members.names) if config.evaluate.tune else [decoder.options()]
    search = GridSearch(grid, _scorer(workspace, members, decoder.name), decoder.options())
    folds, strata = _folds(members), members.rows["stratum"].to_numpy(str)
    groups = members.rows["group"].to_numpy(str)
    choice = choose(search, folds, strata)
    lines: tuple[str, ...] = ()
    if per_stratum != "never" and len(grid) > 1 and len(set(strata)) > 1:
        one = choice
        if per_stratum == "always":
            choice = finer = choose(search, folds, strata, per_stratum=True)
        else:
            choice, finer = choose_strata(search, folds, strata, groups, one)
        lines = (_compared(one, finer, choice, len(set(folds.tolist())) > 1),)
    own = tuple(dict(grid[column]) for column in choice.own)
    scores, measured = decoded_scores(workspace, members, members.bands, decoder.name, own)
    curve = _curve(search.table, grid, choice.best)
    chosen = {name: _described(decoder.name, grid[column]) for name, column in choice.strata.items()}
    best = _described(decoder.name, grid[choice.best])
    among = partial(_scores_among, search, folds, strata, groups, per_stratum)
    return Tuned(scores, choice.optimistic, None, best, curve, own, measured, chosen, lines, among)


def _scores_among(
    search: GridSearch,
    folds: NDArray[np.int64],
    strata: NDArray[np.str_],
    groups: NDArray[np.str_],
    per_stratum: str,
    among: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Scores (N,) under settings that the samples `among` choose alone, also whether strata have their own."""
    kinds = {"never": (False,), "always": (True,), "auto": (False, True)}[per_stratum]
    found = [choose(search, folds, strata, kind, among).scores for kind in kinds]
    return found[first_good([scores[among] for scores in found], groups[among])]


def _scorer(workspace: Workspace, members: Members, decoder: str) -> Callable[[list[Setting]], NDArray[np.float64]]:
    """Scores of settings, compared at the predictions' scale; what is reported is scored at full size."""
    competition, scale = workspace.competition, members.bands[0].scale
    truths = [TruthLabels(competition, str(sample_id), scale) for sample_id in members.rows["sample_id"]]
    items = list(zip(members.bands, truths, strict=True))
    workers = workspace.config.evaluate.workers
    return lambda settings: score_grid(items, decoder, settings, competition.metric, workers)


def _described(decoder: str, options: Setting) -> dict[str, Any]:
    """A decoder and all of its options, as they are kept in the ensemble's file."""
    return {"name": decoder, **instances.build(decoder, **options).options()}


def _compared(one: Choices, finer: Choices, kept: Choices, judged: bool) -> str:
    """What settings for strata are worth; `judged` says that there are other folds to judge them by."""
    count, verdict = len(finer.strata), "kept" if kept.strata else "not kept"
    if not count:
        return f"settings for strata: none, as no stratum has {LEAST} images"
    text = f"a setting for each of {count} strata"
    if not judged:
        return f"{text}: not judged with one fold, {verdict}"
    gain, nested = finer.cross_fitted - one.cross_fitted, kept.cross_fitted - one.cross_fitted
    text = f"{text}: {gain:+.4f} cross-fitted against one for all"
    return f"{text}, {nested:+.4f} where the other folds want it, {verdict}"


def decoded_scores(
    workspace: Workspace,
    members: Members,
    bands: Sequence[MeanBands],
    decoder: str,
    settings: Sequence[dict[str, Any]],
) -> tuple[pd.DataFrame, tuple[Extent, ...]]:
    """All instance metrics and the extent of every sample at full size, each decoded with a setting of its own."""
    competition = workspace.competition
    ids = [str(sample_id) for sample_id in members.rows["sample_id"]]
    tasks = [
        DecodeTask(mixed, TruthLabels(competition, sample_id), decoder, options, competition.metric)
        for sample_id, mixed, options in zip(ids, bands, settings, strict=True)
    ]
    found = _gather(_call, tasks, workspace.config.evaluate.workers, "score")
    return score_table(members, [values for values, _ in found]), tuple(measured for _, measured in found)


def settings_to_try(decoder: instances.Decoder, bands: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The settings to try: the decoder's grid on top of what the user set, and the user's own setting.

    The user's least size is tried with every setting, since it costs next to nothing: what suits nuclei is too small
    for glomeruli.
    """
    own, grid = decoder.options(), instances.grid(decoder.name, bands)
    for name in FREE:
        known = {setting[name] for setting in grid if name in setting}
        if known and own[name] not in known:
            # Right after the settings it differs from in nothing else, which it shares its labels with.
            last = max(known)
            more = [[setting, {**setting, name: own[name]}] if setting[name] == last else [setting] for setting in grid]
            grid = list(chain.from_iterable(more))
    tried = [{**own, **setting} for setting in grid]
    return tried if own in tried else [own, *tried]


def _curve(scores: NDArray[np.float64], grid: list[dict[str, Any]], best: int) -> tuple[tuple[float, float], ...]:
    """Score against the foreground threshold, everything else as in the best setting, where the search looked."""
    chosen = grid[best]
    points = {
        float(setting["threshold"]): float(scores[:, column].mean())
        for column, setting in enumerate(grid)
        if "threshold" in setting and all(setting[key] == chosen[key] for key in setting if key != "threshold")
    }
    return tuple(sorted((level, score) for level, score in points.items() if np.isfinite(score)))


@dataclass(frozen=True)
class DecodeTask:
    """One image and the setting that its fold was given; picklable."""

    bands: MeanBands
    truth: TruthLabels
    name: str
    options: dict[str, Any]
    metric: str

    def __call__(self) -> tuple[dict[str, float], Extent]:
        """All instance metrics of the image, and what its prediction has."""
        truth = self.truth()
        labels = decoded(instances.build(self.name, **self.options), self.bands, truth.shape)
        return final_scores(truth, labels, self.metric), extents.of_instances(self.truth.sample_id, labels)


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


def _folds(members: Members) -> NDArray[np.int64]:
    return members.rows["fold"].to_numpy(np.int64)


def score_table(members: Members, rows: list[dict[str, float]]) -> pd.DataFrame:
    """Samples with their fold, stratum, group and size, and the scores `rows` of each."""
    kept = members.rows[["sample_id", "fold", "stratum", "group", "height", "width"]]
    return pd.concat([kept.reset_index(drop=True), pd.DataFrame(rows)], axis=1)
