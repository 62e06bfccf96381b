"""`evaluate.second_level`: what choosing among candidates by a regressor is worth, cross-fitted beside the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histofold import instances, metrics
from histofold.competitions.base import Competition
from histofold.errors import ConfigError, HistofoldError
from histofold.evaluation.oof import MeanBands
from histofold.evaluation.scoring import TruthLabels
from histofold.evaluation.secondlevel import LEVELS, Candidates, find, keep, learn, predicted, truth_iou
from histofold.evaluation.tune import Members
from histofold.instances import Decoder
from histofold.parallel import each
from histofold.slides.reduce import reduce_array
from histofold.upsample import full_size
from histofold.workspace import Workspace

TRIED = {"threshold": (0.35, 0.5, 0.65), "core": (0.4, 0.6)}
"""Values of the decoder's options that give candidates; fixed, so that no fold's truth is in them."""

MIDDLE = 1
"""Index of the level that is taken where there are too few folds to choose one."""


@dataclass(frozen=True)
class FindTask:
    """One image whose candidates are to be found; picklable."""

    competition: Competition
    sample_id: str
    bands: MeanBands
    decoders: tuple[Decoder, ...]

    def __call__(self) -> tuple[Candidates, NDArray[np.float64]]:
        """Candidates at the predictions' scale, and the IoU of each with the truth."""
        scale, blended = self.bands.scale, self.bands()
        image = self.competition.image(self.sample_id)
        image = image if scale == 1 else reduce_array(image, scale)
        alone = [MeanBands((path,), (1.0,), ("foreground",)) for path in self.bands.paths]
        views = [one()["foreground"] for one in alone] if len(alone) > 1 else []
        found = find(image, blended, views, self.decoders)
        return found, truth_iou(found, TruthLabels(self.competition, self.sample_id, scale)())


def _find(task: FindTask) -> tuple[Candidates, NDArray[np.float64]]:
    return task()


def second_level(workspace: Workspace, members: Members, first: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Score the second level on every sample of `first`, each by a regressor that learned on the other folds.

    Args:
        first: sample_id, fold and the cross-fitted `score` of the decoder alone.

    Returns:
        (sample_id, fold, first, second) of each sample, and a line that says by how much it is better.

    Raises:
        ConfigError: the competition has no instances, or there is only one fold.
        DataError: an image, its prediction or its truth cannot be read.
    """
    competition = workspace.competition
    folds = first["fold"].to_numpy(np.int64)
    if competition.truth != "instances":
        raise ConfigError(f"evaluate.second_level: {competition.name} has masks and no instances to choose from")
    if len(np.unique(folds)) < 2:
        raise ConfigError(f"evaluate.second_level: learns on other folds, and there is only fold {folds[0]}")
    ids = [str(sample_id) for sample_id in first["sample_id"]]
    decoders = candidates_of(instances.resolve(workspace.config.instances, members.names))
    tasks = [FindTask(competition, name, bands, decoders) for name, bands in zip(ids, members.bands, strict=True)]
    found = _gathered(tasks, workspace.config.evaluate.workers)
    scale = members.bands[0].scale
    truths = [TruthLabels(competition, sample_id) for sample_id in ids]
    scores = cross_fitted(found, folds, truths, competition.metric, scale)
    table = first[["sample_id", "fold"]].assign(first=first["score"], second=scores)
    gain = float(scores.mean() - first["score"].mean())
    verdict = "better" if gain > 0 else "not better"
    return table, f"second level: cross-fitted {scores.mean():.4f}, {gain:+.4f} against the decoder alone, {verdict}"


def candidates_of(decoder: Decoder) -> tuple[Decoder, ...]:
    """The decoder at all combinations of those options of `TRIED` that it has."""
    options = decoder.options()
    names = [name for name in TRIED if name in options]
    return tuple(
        instances.build(decoder.name, **{**options, **dict(zip(names, values, strict=True))})
        for values in product(*(TRIED[name] for name in names))
    )


def cross_fitted(
    found: Sequence[tuple[Candidates, NDArray[np.float64]]],
    folds: NDArray[np.int64],
    truths: Sequence[TruthLabels],
    metric: str,
    scale: float,
) -> NDArray[np.float64]:
    """Score (N,) of every sample; regressor and level come from the other folds, the level from folds within them."""

    def score(at: int, values: NDArray[np.float64], level: float) -> float:
        truth = truths[at]()
        labels = full_size(keep(found[at][0], values, level), scale, *truth.shape)
        return metrics.named_score(metric)(metrics.contingency(truth, labels))

    def values(inside: NDArray[np.bool_], of: NDArray[np.bool_]) -> dict[int, NDArray[np.float64]]:
        rows = np.flatnonzero(inside).tolist()
        model = learn([found[at][0] for at in rows], [found[at][1] for at in rows])
        return {int(at): predicted(model, found[at][0]) for at in np.flatnonzero(of).tolist()}

    scores = np.empty(len(folds))
    for fold in np.unique(folds):
        others = folds != fold
        level = LEVELS[MIDDLE]
        if len(np.unique(folds[others])) > 1:
            inner: dict[int, NDArray[np.float64]] = {}
            for second in np.unique(folds[others]):
                inner |= values(others & (folds != second), folds == second)
            means = [np.mean([score(at, guess, level) for at, guess in inner.items()]) for level in LEVELS]
            level = LEVELS[int(np.argmax(means))]
        for at, guess in values(others, folds == fold).items():
            scores[at] = score(at, guess, level)
    return scores


def _gathered(tasks: list[FindTask], workers: int) -> list[tuple[Candidates, NDArray[np.float64]]]:
    results: dict[str, tuple[Candidates, NDArray[np.float64]]] = {}
    for task, result in each(_find, tasks, workers, "candidates"):
        if isinstance(result, Exception):
            known = isinstance(result, HistofoldError)
            raise result if known else RuntimeError(f"{task.sample_id}: {result}") from result
        results[task.sample_id] = result
    return [results[task.sample_id] for task in tasks]
