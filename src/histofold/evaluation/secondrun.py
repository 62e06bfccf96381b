"""`evaluate.second_level`: what choosing among candidates by learned trees is worth beside the decoder alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histofold import instances, metrics
from histofold.competitions.base import Competition
from histofold.errors import ConfigError, HistofoldError
from histofold.evaluation import extents
from histofold.evaluation.ensembling import Mixture
from histofold.evaluation.extents import Extent
from histofold.evaluation.oof import MeanBands
from histofold.evaluation.scoring import TruthLabels, final_scores
from histofold.evaluation.secondlevel import Learner, choose_level, cross_fitted, expected, preferred, truth_iou
from histofold.evaluation.tune import Members, Tuned, score_table
from histofold.files import atomic, sha256
from histofold.inference.ensemble import Ensemble
from histofold.instances import Decoder
from histofold.instances.candidates import Candidates, find
from histofold.instances.cleanup import Labels
from histofold.instances.secondlevel import SecondLevel, at_scale, keep, settings_of
from histofold.parallel import each
from histofold.upsample import full_size, reduced_labels
from histofold.workspace import Workspace

SWITCH = ("off", "auto", "on")
"""Values of `evaluate.second_level`."""

TRIED = {"threshold": (0.4, 0.6, 0.8), "core": (0.5, 0.8)}
"""Values of the decoder's options that give candidates; fixed, so that no fold's truth is in them."""

Truth = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Second:
    """A second level and what it is worth.

    Attributes:
        model: learned on all folds.
        scores: one row a sample with all instance metrics, each by trees and a level of the other folds.
        extents: what each of these predictions has.
        optimistic: mean score of `model` on the samples that it learned on.
        gain: of the mean cross-fitted score, against the decoder alone.
        given: (N,) samples whose other folds prefer it to the decoder alone, see `preferred`.
        judged: whether there are folds enough to ask that.
    """

    model: SecondLevel
    scores: pd.DataFrame
    extents: tuple[Extent, ...]
    optimistic: float
    gain: float
    given: NDArray[np.bool_]
    judged: bool

    def line(self, kept: bool) -> str:
        """What the person who asked is told."""
        mean = self.scores["score"].mean()
        verdict = "kept" if kept else "not kept"
        return f"second level: cross-fitted {mean:.4f}, {self.gain:+.4f} against the decoder alone, {verdict}"

    def published(self, tuned: Tuned) -> pd.DataFrame:
        """The scores of a choice between the two that each fold leaves to the other folds.

        The submission's choice has seen every fold: a score that took it would be the better of two.
        """
        return pd.concat((tuned.scores[~self.given], self.scores[self.given])).sort_index()

    def told(self, tuned: Tuned) -> str:
        """What `published` gives, for the person who asked."""
        if not self.judged:
            return "  two folds cannot choose it for each other, so the score is the decoder's alone"
        gain = float(self.published(tuned)["score"].mean() - tuned.scores["score"].mean())
        return f"  {gain:+.4f} where the other folds want it, which is the score"


@dataclass(frozen=True)
class Draft:
    """A second level that is not written yet.

    Attributes:
        second: what was learned.
        table: scores of each sample before and after.
        kept: whether the ensemble is to have it.
    """

    second: Second
    table: pd.DataFrame
    kept: bool

    def write(self, oof: Path, competition: str, name: str) -> dict[str, Any] | None:
        """Write it below `oof` for the ensemble `name`, with a CSV of the scores before and after.

        What an older ensemble of that name was scored with is gone then: the new one is to follow at once.

        Returns:
            What the ensemble notes of it, None where it is not kept.
        """
        path = Ensemble.second_place(oof, competition, name)
        self.second.model.write(path)
        with atomic(path.with_suffix(".csv")) as temporary:
            self.table.to_csv(temporary, index=False)
        return {"sha256": sha256(path), "gain": self.second.gain} if self.kept else None


def check(workspace: Workspace, runs: int, folds: Sequence[int]) -> None:
    """Refuse a second level where it cannot be learned honestly.

    Raises:
        ConfigError: an unknown value of the switch, no instances, a single fold, or weights that were searched.
    """
    settings, competition = workspace.config.evaluate, workspace.competition
    if settings.second_level not in SWITCH:
        raise ConfigError(f"evaluate.second_level={settings.second_level}: expected {', '.join(SWITCH)}")
    if competition.truth != "instances":
        raise ConfigError(f"evaluate.second_level: {competition.name} has masks and no instances to choose from")
    if len(folds) < 2:
        raise ConfigError(f"evaluate.second_level: learns on other folds, and there is only fold {folds[0]}")
    if runs > 1 and settings.search != "equal":
        raise ConfigError(
            f"evaluate.second_level: evaluate.search={settings.search} chooses weights on all folds, so that it would "
            "not be cross-fitted; take evaluate.search=equal"
        )


def added(workspace: Workspace, mixture: Mixture) -> tuple[Mixture, Draft]:
    """Learn a second level for an ensemble.

    Returns:
        The mixture with the scores to publish and, where the second level is kept, its extents; and the second level,
        to be written with the ensemble.

    Raises:
        DataError: as in `second_level`.
    """
    tuned, config = mixture.tuned, workspace.config
    second = second_level(workspace, mixture.members, tuned)
    forced = config.evaluate.second_level == "on"
    kept = forced or second.gain > 0
    table = tuned.scores[["sample_id", "fold"]].assign(first=tuned.scores["score"], second=second.scores["score"])
    table["given"] = True if forced else second.given
    draft = Draft(second, table, kept)
    lines = (*mixture.lines, second.line(kept), *(() if forced else (second.told(tuned),)))
    tuned = replace(tuned, scores=second.scores if forced else second.published(tuned))
    if not kept:
        return replace(mixture, tuned=tuned, lines=lines), draft
    # What the submission will have is told by what it is made with, whichever scores are published.
    tuned = replace(tuned, extents=second.extents, optimistic=second.optimistic)
    return replace(mixture, tuned=tuned, lines=lines), draft


def second_level(workspace: Workspace, members: Members, tuned: Tuned) -> Second:
    """Learn the second level, and score it on every sample by one that learned on the other folds.

    Raises:
        DataError: an image, its prediction or its truth cannot be read.
    """
    competition, metric = workspace.competition, workspace.competition.metric
    folds = members.rows["fold"].to_numpy(np.int64)
    ids = [str(sample_id) for sample_id in members.rows["sample_id"]]
    decoders = candidates_of(instances.resolve(workspace.config.instances, members.names))
    tasks = [FindTask(competition, name, bands, decoders) for name, bands in zip(ids, members.bands, strict=True)]
    gathered = _gathered(tasks, workspace.config.evaluate.workers)
    found, truths = [(one.found, one.iou) for one in gathered], [one.truth for one in gathered]
    scale, named = members.bands[0].scale, metrics.named_score(metric)

    def score(at: int, labels: Labels) -> float:
        return named(metrics.contingency(truths[at], full_size(labels, scale, *truths[at].shape)))

    learner = Learner(found, folds, score)
    rows, measured = [], []
    for name, truth, labels in zip(ids, truths, cross_fitted(learner).values(), strict=True):
        whole = full_size(labels, scale, *truth.shape)
        rows.append(final_scores(truth, whole, metric))
        measured.append(extents.of_instances(name, whole))
    level, trees = choose_level(learner, learner.names), learner.trees(learner.names)
    final = [score(at, keep(one, expected(trees, one), level)[0]) for at, (one, _) in enumerate(found)]
    scores = score_table(members, rows)
    model = SecondLevel(settings_of(decoders), members.names, level, trees)
    gain = float(scores["score"].mean() - tuned.scores["score"].mean())
    given = np.ones(len(folds), np.bool_)
    if workspace.config.evaluate.second_level == "auto" and tuned.among is not None:
        # Settings of the decoder are compared at the predictions' scale; so is the second level beside them.
        small = [reduced_labels(truth, scale) for truth in truths]
        given = preferred(learner, tuned.among, lambda at, labels: named(metrics.contingency(small[at], labels)))
    return Second(model, scores, tuple(measured), float(np.mean(final)), gain, given, len(learner.names) > 2)


def candidates_of(decoder: Decoder) -> tuple[Decoder, ...]:
    """The decoder as the user set it and at all combinations of those options of `TRIED` that it has."""
    options = decoder.options()
    names = [name for name in TRIED if name in options]
    tried = [dict(zip(names, values, strict=True)) for values in product(*(TRIED[name] for name in names))]
    return tuple(dict.fromkeys((decoder, *(instances.build(decoder.name, **{**options, **some}) for some in tried))))


@dataclass(frozen=True)
class Gathered:
    """An image's candidates at the predictions' scale, the IoU of each with the truth, and the truth at full size."""

    found: Candidates
    iou: NDArray[np.float64]
    truth: Truth


@dataclass(frozen=True)
class FindTask:
    """One image whose candidates are to be found; picklable."""

    competition: Competition
    sample_id: str
    bands: MeanBands
    decoders: tuple[Decoder, ...]

    def __call__(self) -> Gathered:
        """Read, decode and measure."""
        scale = self.bands.scale
        image = at_scale(self.competition.image(self.sample_id), scale)
        found = find(image, self.bands(), self.decoders)
        truth = TruthLabels(self.competition, self.sample_id)()
        return Gathered(found, truth_iou(found, reduced_labels(truth, scale)), truth)


def _find(task: FindTask) -> Gathered:
    return task()


def _gathered(tasks: list[FindTask], workers: int) -> list[Gathered]:
    results: dict[str, Gathered] = {}
    for task, result in each(_find, tasks, workers, "candidates"):
        if isinstance(result, Exception):
            known = isinstance(result, HistofoldError)
            raise result if known else RuntimeError(f"{task.sample_id}: {result}") from result
        results[task.sample_id] = result
    return [results[task.sample_id] for task in tasks]
