"""`report`: one self-contained HTML page of a competition's runs, ensembles and submissions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from histofold import competitions
from histofold import instances as decoders
from histofold.competitions.base import Competition
from histofold.config import Config
from histofold.errors import DataError
from histofold.evaluation.oof import shared_bands
from histofold.files import write_text
from histofold.report import stats
from histofold.report.data import Collected, Ensemble, collect
from histofold.report.gallery import LARGEST, TOTAL, Gallery, allowance, choose, gather, oof_jobs
from histofold.report.page import Content, render
from histofold.report.predictions import Job, View

LIMIT = 480
"""Samples with a picture; more would blur them all, or burst the page."""

TEST_LIMIT = 24
"""Test samples with a picture, of one submission."""


def report(config: Config) -> None:
    """Write the report of `config.competition` and say where it is.

    It goes into the submission's folder when there is one of that name, else beside the runs.

    Raises:
        DataError: raw files are missing, a file is broken, or `name` is no ensemble.
    """
    competition = competitions.open(config.competition, config.path("input"))
    competition.check()
    oof, submissions = config.path("oof"), config.path("submissions")
    path = build(competition, oof, submissions, name=config.name, workers=config.evaluate.workers)
    print(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB); open it in a browser")


def build(
    competition: Competition,
    oof: Path,
    submissions: Path,
    out: Path | None = None,
    name: str | None = None,
    workers: int = 0,
    limit: int = LIMIT,
) -> Path:
    """Collect what there is and write the page; gives its path.

    Args:
        oof, submissions: the roots of all competitions.
        out: the HTML file; by default `submissions/<competition>/<name>/report.html`, or
            `oof/<competition>/report.html` when there is no such submission.
        name: of the ensemble (and submission) that the page is about; by default the newest ensemble.
        workers: processes, 0 for one a core.
        limit: training samples with a picture.

    Raises:
        DataError: a file is broken, or there is no ensemble called `name`.
    """
    found = collect(competition.name, oof, submissions)
    ensemble = found.ensemble(name)
    if name is not None and ensemble is None:
        names = ", ".join(one.name for one in found.ensembles) or "none"
        raise DataError(
            f"{oof / competition.name / 'ensembles'}: no ensemble {name!r}; found {names}. Run evaluate first"
        )
    content = _content(competition, oof / competition.name, found, ensemble, workers, limit)
    if out is None:
        own = submissions / competition.name / (ensemble.name if ensemble else "")
        out = (own if ensemble and own.is_dir() else oof / competition.name) / "report.html"
    write_text(out, render(content))
    return out


def _content(
    competition: Competition, oof: Path, found: Collected, ensemble: Ensemble | None, workers: int, limit: int
) -> Content:
    """Choose whose scores to show, look at the samples, and note what is missing."""
    notes: list[tuple[str, str]] = []
    scores, whose, members = _subject(found, ensemble)
    verb = f"competition={competition.name}"
    if scores is None:
        notes.append(("No fold is scored yet.", f"Train one: ./run.sh train {verb} fold=0"))
    elif ensemble is None:
        notes.append(("There is no ensemble yet", f"(thresholds are untuned): ./run.sh evaluate {verb} runs=[…]"))
    elif ensemble.record.get("partial"):
        notes.append(
            ("The CV is partial:", f"folds {ensemble.record.get('folds')} only. Train the others and evaluate.")
        )
    oof_gallery, view = _look_at_oof(competition, oof, scores, members, ensemble, workers, limit, notes)
    tests = _look_at_tests(competition, found, view, workers, notes)
    _note_submissions(found, verb, notes)
    threshold = view.threshold if view else 0.5
    return Content(competition, found, ensemble, scores, whose, threshold, oof_gallery, tests, notes)


def _subject(found: Collected, ensemble: Ensemble | None) -> tuple[pd.DataFrame | None, str, list[tuple[str, float]]]:
    """Whose scores the page shows: the ensemble's, else those of the best run."""
    if ensemble is not None:
        members = [(str(one["run"]), float(one["weight"])) for one in ensemble.record["members"]]
        return ensemble.scores, f"ensemble {ensemble.name}", [one for one in members if one[1] > 0]
    lines = stats.leaderboard(found.runs)
    if not lines:
        return None, "", []
    best = next(run for run in found.runs if run.name == lines[0].name)
    return best.scores, f"run {best.name}", [(best.name, 1.0)]


def _look_at_oof(
    competition: Competition,
    oof: Path,
    scores: pd.DataFrame | None,
    members: Sequence[tuple[str, float]],
    ensemble: Ensemble | None,
    workers: int,
    limit: int,
    notes: list[tuple[str, str]],
) -> tuple[Gallery | None, View | None]:
    """Pictures and histogram of the training samples."""
    if scores is None or not len(scores):
        return None, None
    jobs, absent = oof_jobs(oof, members, scores, choose(scores, limit))
    if absent:
        how = f"{len(absent)} of {len(scores)} samples, such as {absent[0]}; pictures and calibration go without."
        notes.append(("Predictions are gone:", how))
    if not jobs:
        return None, None
    view = _view(competition, jobs[0], ensemble, oof)
    gallery = gather(view, jobs, scores, workers, "pictures")
    notes.extend(("Not readable:", problem) for problem in gallery.problems[:5])
    return gallery, view


def _view(competition: Competition, job: Job, ensemble: Ensemble | None, oof: Path) -> View:
    """The ensemble's bands, threshold and decoder; defaults for a run without an ensemble."""
    bands = shared_bands(list(job.paths))
    decoder: dict[str, Any] | None = None
    threshold = 0.5
    strata: dict[str, dict[str, Any]] = {}
    second: Path | None = None
    if ensemble is not None:
        if ensemble.record.get("second"):
            second = oof / "ensembles" / "second" / f"{ensemble.name}.json"
        decoder = ensemble.record.get("instances")
        strata = ensemble.record.get("strata") or {}
        bands = tuple(ensemble.record.get("bands") or bands)
        chosen = ensemble.record.get("threshold")
        threshold = float(chosen) if chosen is not None else 0.5
    elif competition.truth == "instances":
        decoder = {"name": decoders.default_for(bands)}
    return View(competition, bands, threshold, decoder, strata=strata, second=second)


def _look_at_tests(
    competition: Competition, found: Collected, view: View | None, workers: int, notes: list[tuple[str, str]]
) -> dict[str, Gallery]:
    """Pictures of every submission's test samples, evenly chosen; four submissions share a fixed number of bytes."""
    galleries: dict[str, Gallery] = {}
    if view is None:
        return galleries
    known = {sample.sample_id for sample in competition.samples()}
    for one in found.submissions[-4:]:
        paths = [path for path in sorted((one.folder / "predictions").glob("*.tif")) if path.stem in known]
        step = max(len(paths) / TEST_LIMIT, 1)
        drawn = {paths[int(i * step)].stem for i in range(min(len(paths), TEST_LIMIT))}
        budget = min(allowance(4 * TEST_LIMIT, TOTAL // 4), LARGEST)
        jobs = [Job(path.stem, (path,), (1.0,), budget if path.stem in drawn else 0, measure=True) for path in paths]
        if jobs:
            galleries[one.name] = gather(view, jobs, one.scores, workers, f"test pictures of {one.name}")
            notes.extend((f"Not readable in {one.name}:", text) for text in galleries[one.name].problems[:3])
    return galleries


def _note_submissions(found: Collected, verb: str, notes: list[tuple[str, str]]) -> None:
    """Say what is unknown about the submissions."""
    if not found.submissions:
        notes.append(("Nothing was submitted yet:", f"./run.sh predict {verb} and ./run.sh submit {verb}"))
    elif found.log is None and all(one.scores is None for one in found.submissions):
        how = "the test truth is not known here, or submit has not run yet; and nothing was sent to Kaggle."
        notes.append(("No test score:", how))
