"""Members' weights by `evaluate.search`, with thresholds and instance settings, all cross-fitted together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from histofold import instances
from histofold.errors import ConfigError
from histofold.evaluation import room
from histofold.evaluation.gridsearch import sparse
from histofold.evaluation.objective import LEVELS, Kept, Scorer
from histofold.evaluation.search import STRATEGIES, Found, Objective, Weights, search, worth
from histofold.evaluation.simplest import simplest
from histofold.evaluation.tune import Members, Tuned, decoded_scores, histograms, thresholded_scores, tune
from histofold.instances import Decoder
from histofold.workspace import Workspace

SINGLE = "equal"


@dataclass(frozen=True)
class Mixture:
    """The chosen weights and everything tuned with them.

    Attributes:
        members: with the chosen weights.
        tuned: settings and honest scores.
        lines: what the search found, for the person who asked.
        adds: run → what `worth` says of it.
        searched: the searches beside one another, as the ensemble's file keeps them; None where there was none.
    """

    members: Members
    tuned: Tuned
    lines: tuple[str, ...] = ()
    adds: dict[str, float] | None = None
    searched: dict[str, Any] | None = None


def mix(workspace: Workspace, members: Members, runs: Sequence[str]) -> Mixture:
    """Tune equal weights, or search for better ones when `evaluate.search` says so and there are several runs.

    Raises:
        ConfigError: an unknown search.
    """
    strategy = workspace.config.evaluate.search
    if strategy not in (*STRATEGIES, "best"):
        raise ConfigError(f"evaluate.search={strategy}: expected {', '.join(STRATEGIES)} or best")
    tuned = tune(workspace, members)
    if len(runs) == 1 or strategy == SINGLE:
        return Mixture(members, tuned, tuned.lines)
    judges = _judges(workspace, members, tuned)
    folds = members.rows["fold"].to_numpy(np.int64)
    names = list(STRATEGIES) if strategy == "best" else [SINGLE, strategy]
    found = [search(name, judges.all, folds, len(runs), judges.by_fold) for name in names]
    groups = members.rows["group"].to_numpy(str)
    chosen = simplest(found, groups, folds) if strategy == "best" else found[-1]
    adds = {runs[member]: value for member, value in worth(judges.tuned_again, chosen.weights).items()}
    how = (
        "at every threshold"
        if tuned.instances is None
        else "with the settings tuned for equal weights, tuned again afterwards"
    )
    lines = (
        f"weights, searched {how}:",
        *(_line(item, runs, item.strategy == chosen.strategy) for item in found),
        *_nested(strategy, chosen),
        *tuned.lines,
        *(f"  {run} adds {v:+.4f}" for run, v in adds.items()),
    )
    nested = chosen.cross_fitted if strategy == "best" else None
    beside = [_beside(item, runs, item.strategy == chosen.strategy) for item in found]
    searched = {"asked": strategy, "how": how, "nested": nested, "found": beside}
    return Mixture(_weighted(members, chosen), _final(workspace, members, tuned, chosen), lines, adds, searched)


@dataclass(frozen=True)
class Judges:
    """What weights are searched by.

    Attributes:
        all: for the submission.
        by_fold: for a fold; folds that it does not name take `all`.
        tuned_again: for what members add: a member that is left out may want other settings.
    """

    all: Objective
    by_fold: dict[int, Objective]
    tuned_again: Objective


def _judges(workspace: Workspace, members: Members, tuned: Tuned) -> Judges:
    """Masks are scored at all thresholds; instances, for a fold, with what the others chose under equal weights.

    The submission's own setting would carry the fold's truth into the choice of its weights.
    """
    ids = tuple(str(sample_id) for sample_id in members.rows["sample_id"])
    free = room.left(workspace, members.rows, len(members.weights), members.bands[0].scale)
    scorer = Scorer(workspace.competition, ids, members.bands, (), workspace.config.evaluate.workers, Kept(free))
    if tuned.instances is None:
        every = Objective(scorer, len(ids))
        return Judges(every, {}, every)
    folds = [int(fold) for fold in members.rows["fold"]]
    name = str(tuned.instances["name"])
    final = {option: value for option, value in tuned.instances.items() if option != "name"}
    known: dict[tuple[Decoder, ...], Objective] = {}

    def judge(*settings: Mapping[str, Any]) -> Objective:
        decoders = tuple(instances.build(name, **options) for options in settings)
        return known.setdefault(decoders, Objective(replace(scorer, decoders=decoders), len(ids)))

    # With settings for strata, a fold's commonest one.
    mine = {fold: [own for own, other in zip(tuned.own, folds, strict=True) if other == fold] for fold in set(folds)}
    rivals = sparse(instances.grid(name, members.names), final) if workspace.config.evaluate.tune else []
    return Judges(
        judge(final),
        {fold: judge(_commonest(options)) for fold, options in mine.items()},
        judge(final, *({**final, **setting} for setting in rivals)),
    )


def _commonest(options: list[dict[str, Any]]) -> dict[str, Any]:
    return max(options, key=options.count)


def _weighted(members: Members, chosen: Found) -> Members:
    return replace(members, weights=chosen.weights, bands=members.mixed(chosen.weights))


def _final(workspace: Workspace, members: Members, tuned: Tuned, chosen: Found) -> Tuned:
    """Honest scores at full size under each fold's own weights and setting, and the submission's own setting."""
    if all(np.allclose(weights, members.weights, atol=1e-5) for weights in (chosen.weights, *_given(chosen))):
        return tuned  # equal weights were tuned already
    folds = [int(fold) for fold in members.rows["fold"]]
    by_fold = {fold: members.mixed(weights) for fold, (weights, _) in chosen.per_fold.items()}
    bands = [by_fold[fold][row] for row, fold in enumerate(folds)]
    # Strata have settings of their own or not as under equal weights, where that was scored.
    final = tune(workspace, _weighted(members, chosen), "always" if tuned.strata else "never")
    if tuned.instances is None:
        levels = {fold: int(LEVELS[column]) for fold, (_, column) in chosen.per_fold.items()}
        counts = histograms(workspace, members, bands)
        scores, measured = thresholded_scores(
            members, counts, [levels[fold] for fold in folds], workspace.competition.metric
        )
        given: tuple[dict[str, Any], ...] = tuple({"level": levels[fold]} for fold in folds)
    else:
        # Each sample is decoded with the setting that the other folds chose under equal weights.
        given = tuned.own
        name = str(tuned.instances["name"])
        scores, measured = decoded_scores(workspace, members, bands, name, given)
    return replace(final, scores=scores, own=given, extents=measured)


def _given(chosen: Found) -> list[Weights]:
    """The weights of each fold."""
    return [weights for weights, _ in chosen.per_fold.values()]


def _nested(strategy: str, chosen: Found) -> list[str]:
    """What choosing among strategies was worth: each fold's strategy is chosen by the others."""
    if strategy != "best":
        return []
    return [f"  each fold with the strategy that the others prefer: cross-fitted {chosen.cross_fitted:.4f}"]


def _beside(found: Found, runs: Sequence[str], chosen: bool) -> dict[str, Any]:
    """One search as it is kept: scores at the predictions' scale, and the weights that it would give."""
    return {
        "strategy": found.strategy,
        "chosen": chosen,
        "cross_fitted": found.cross_fitted,
        "optimistic": found.optimistic,
        "weights": dict(zip(runs, found.weights, strict=True)),
    }


def _line(found: Found, runs: Sequence[str], chosen: bool) -> str:
    parts = ", ".join(f"{run} {weight:.2f}" for run, weight in zip(runs, found.weights, strict=True) if weight > 0)
    mark = "→" if chosen else " "
    return (
        f"{mark} {found.strategy:9} cross-fitted {found.cross_fitted:.4f}, optimistic {found.optimistic:.4f}: {parts}"
    )
