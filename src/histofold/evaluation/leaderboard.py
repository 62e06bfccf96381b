"""All runs of a competition, best first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from histofold.errors import DataError
from histofold.evaluation.crossfit import interval
from histofold.evaluation.oof import Run
from histofold.evaluation.repeats import alike
from histofold.files import read_json


def leaderboard(runs: list[Run], folder: Path) -> str:
    """A line a run and a line an ensemble, by score; says which runs are not finished.

    Raises:
        DataError: nothing was trained yet.
    """
    if not runs:
        raise DataError(f"{folder}: no run yet; train one first, for example with fold=0")
    lines = ["runs (untuned, OOF)"]
    scored = [(run, _scores(run)) for run in runs]
    for run, (mean, low, high, count) in sorted(scored, key=lambda pair: -np.nan_to_num(pair[1][0], nan=-1)):
        folds = ",".join(map(str, run.folds)) or "none"
        begun = f", begun: {','.join(map(str, run.unfinished))}" if run.unfinished else ""
        text = f"{mean:.4f}  [{low:.4f}, {high:.4f}]" if count else "no fold is finished"
        lines.append(f"  {run.name:28} {text}  {count} samples, folds {folds}{begun}")
    lines += _repeats([run for run in runs if run.folds])
    ensembles = sorted((folder / "ensembles").glob("*.json"))
    if ensembles:
        lines.append("ensembles (tuned, cross-fitted)")
    for values in sorted((read_json(path) for path in ensembles), key=lambda item: -item["score"]["cross_fitted"]):
        low, high = values["score"]["interval"]
        partial = f"  PARTIAL: folds {values['folds']}" if values["partial"] else ""
        lines.append(f"  {values['name']:28} {values['score']['cross_fitted']:.4f}  [{low:.4f}, {high:.4f}]{partial}")
    return "\n".join(lines)


def _repeats(runs: list[Run]) -> list[str]:
    """Mean ± spread of runs that differ in seed or fold set only."""
    by_name = {run.name: run for run in runs}
    lines = []
    for names in alike({run.name: run.config() for run in runs}):
        means = [float(by_name[name].scores()["score"].mean()) for name in names]
        lines.append(f"  {', '.join(names):28} {np.mean(means):.4f} ± {np.std(means, ddof=1):.4f}")
    title = "repeats (the same settings, other seeds or fold sets): mean ± standard deviation, the noise of one run"
    return [title, *lines] if lines else []


def _scores(run: Run) -> tuple[float, float, float, int]:
    if not run.folds:
        return float("nan"), float("nan"), float("nan"), 0
    table = run.scores()
    values = table["score"].to_numpy(np.float64)
    low, high = interval(values, table["group"].to_numpy(str))
    return float(values.mean()), low, high, len(table)
