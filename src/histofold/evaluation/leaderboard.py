"""All runs of a competition, best first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from histofold.errors import DataError
from histofold.evaluation.crossfit import interval, interval_text
from histofold.evaluation.oof import Run
from histofold.evaluation.pruned import note
from histofold.evaluation.repeats import Scored, partial, repeats
from histofold.files import read_json
from histofold.inference.ensemble import optimism


def leaderboard(runs: list[Run], folder: Path, metric: str, counts: Mapping[str, int]) -> str:
    """A line a run and a line an ensemble, by score; says which runs are not finished.

    Args:
        metric: the competition's, which runs are ranked by; ensembles are ranked among those of their own metric.
        counts: fold set → number of its folds, see `histofold.evaluation.repeats.partial`.

    Raises:
        DataError: nothing was trained yet.
    """
    if not runs:
        raise DataError(f"{folder}: no run yet; train one first, for example with fold=0")
    scored = {run.name: Scored.today(run.config(), run.scores(metric), counts) for run in runs if run.folds}
    known = {name: one for name, one in scored.items() if len(one.table)}
    unfinished = partial(known, counts)
    means = {name: float(one.table["score"].mean()) for name, one in known.items()}
    lines = [f"runs ({metric}, untuned, OOF)"]
    for run in sorted(runs, key=lambda run: (run.name not in scored, -means.get(run.name, -np.inf))):
        lines.append(_line(run, scored.get(run.name), run.name in unfinished))
    lines += _repeats(known, counts)
    ensembles = [read_json(path) for path in sorted((folder / "ensembles").glob("*.json"))]
    if ensembles:
        lines.append("ensembles (tuned, cross-fitted)")
    # The competition's own metric first; scores of different metrics are never ranked among each other.
    for one in ensembles:
        one["optimism"] = optimism(one["folds"], _pruned(one, folder))
    lines += [_ensemble(one) for one in sorted(ensembles, key=lambda one: _place(one, metric))]
    return "\n".join(lines)


def _line(run: Run, scored: Scored | None, unfinished: bool) -> str:
    folds = ",".join(map(str, run.folds)) or "none"
    begun = f", begun: {','.join(map(str, run.unfinished))}" if run.unfinished else ""
    if scored is None:
        return f"  {run.name:28} no fold is finished  0 samples, folds {folds}{begun}"
    values = scored.table["score"].to_numpy(np.float64)
    pruned = ", its depth chosen on them" if note(run.folder) else ""
    part = "  PARTIAL: " if unfinished else "  "
    other = f", other images: {scored.lacking} of these folds have no score" if scored.lacking else ""
    gone = f", {scored.gone} that are no longer in them left out" if scored.gone else ""
    text = f"{part}{len(values)} samples, folds {folds}{begun}{other}{gone}{pruned}"
    if not len(values):
        why = "" if other or gone else "  not scored by this metric"
        return f"  {run.name:28} –{why}{text}"
    around = interval_text(interval(values, scored.table["group"].to_numpy(str)), ", ")
    return f"  {run.name:28} {values.mean():.4f}  [{around}]{text}"


def _repeats(scored: Mapping[str, Scored], counts: Mapping[str, int]) -> list[str]:
    """Mean ± spread of runs that differ in seed or fold set only."""
    lines = []
    for one in repeats(scored, counts):
        where = "" if one.folds is None else f"  PARTIAL: folds {','.join(map(str, one.folds))} of each"
        lines.append(f"  {', '.join(one.names):28} {one.mean:.4f} ± {one.spread:.4f}{where}")
    title = "repeats (the same settings, other seeds or fold sets): mean ± standard deviation, the noise of one run"
    return [title, *lines] if lines else []


def _pruned(ensemble: Mapping[str, Any], folder: Path) -> list[str]:
    """Members whose depth was chosen by their scores; ensembles of earlier versions do not name them."""
    if "pruned" in ensemble["score"]:
        return list(ensemble["score"]["pruned"])
    members = [str(one["run"]) for one in ensemble.get("members") or [] if one["weight"] > 0]
    return [name for name in members if note(folder / name)]


def _place(ensemble: Mapping[str, Any], metric: str) -> tuple[bool, str, bool, float]:
    """The competition's metric first; of each, optimistic scores below the honest ones."""
    score = -float(ensemble["score"]["cross_fitted"])
    return ensemble["metric"] != metric, str(ensemble["metric"]), bool(ensemble["optimism"]), score


def _ensemble(values: Mapping[str, Any]) -> str:
    part = f"  PARTIAL: folds {values['folds']}" if values["partial"] else ""
    score = f"{values['metric']} {values['score']['cross_fitted']:.4f}"
    doubt = f", {values['optimism']}" if part and values["optimism"] else f"  {values['optimism']}".rstrip()
    return f"  {values['name']:28} {score}  [{interval_text(values['score']['interval'], ', ')}]{part}{doubt}"
