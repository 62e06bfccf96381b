"""`report`: one self-contained HTML page of a competition's runs, ensembles and submissions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from histofold import competitions, given
from histofold import instances as decoders
from histofold.competitions.base import Competition
from histofold.config import Config
from histofold.errors import DataError
from histofold.evaluation.oof import shared_bands
from histofold.evaluation.repeats import fold_counts
from histofold.files import sha256, write_text
from histofold.inference import ensemble as ensembles
from histofold.kaggle import csv
from histofold.report import stats
from histofold.report.data import Collected, Ensemble, Submission, collect
from histofold.report.gallery import LARGEST, TOTAL, Gallery, allowance, choose, gather, oof_jobs
from histofold.report.page import Content, render
from histofold.report.predictions import FOREGROUND, Job, View

LIMIT = 480
"""Samples with a picture; more would blur them all, or burst the page."""

TEST_LIMIT = 24
"""Test samples with a picture, of one submission."""

SHOWN = 4
"""Submissions with pictures."""


def report(config: Config) -> None:
    """Write the report of `config.competition` and say where it is.

    It goes into the submission's folder when there is one of that name, else beside the runs.

    Raises:
        DataError: raw files are missing, a file is broken, or `name` is no ensemble.
    """
    competition = competitions.open(config.competition, config.path("input"))
    competition.check()
    oof, submissions = config.path("oof"), config.path("submissions")
    counts = fold_counts(config.path("prepared") / competition.name)
    path = build(competition, oof, submissions, name=config.name, workers=config.evaluate.workers, counts=counts)
    print(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB); open it in a browser")


def build(
    competition: Competition,
    oof: Path,
    submissions: Path,
    out: Path | None = None,
    name: str | None = None,
    workers: int = 0,
    limit: int = LIMIT,
    counts: Mapping[str, int] | None = None,
) -> Path:
    """Collect what there is and write the page; gives its path.

    Args:
        oof, submissions: the roots of all competitions.
        out: the HTML file; by default `submissions/<competition>/<name>/report.html`, or
            `oof/<competition>/report.html` when there is no such submission.
        name: of the ensemble (and submission) that the page is about; by default the newest ensemble.
        workers: processes, 0 for one a core.
        limit: training samples with a picture.
        counts: fold set → number of its folds, where they are known; they tell which runs are partial.

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
    content = _content(competition, oof / competition.name, found, ensemble, counts or {}, workers, limit)
    if out is None:
        own = submissions / competition.name / (ensemble.name if ensemble else "")
        out = (own if ensemble and own.is_dir() else oof / competition.name) / "report.html"
    write_text(out, render(content))
    return out


def _content(
    competition: Competition,
    oof: Path,
    found: Collected,
    ensemble: Ensemble | None,
    counts: Mapping[str, int],
    workers: int,
    limit: int,
) -> Content:
    """Choose whose scores to show, look at the samples, and note what is missing."""
    notes: list[tuple[str, str]] = []
    scores, whose, members = _subject(found, ensemble, competition.metric, counts)
    if scores is None and ensemble is not None:
        notes.append(("Scores are missing:", _missing(oof, ensemble, competition.name)))
    elif scores is None and stats.leaderboard(found.runs):
        how = f"evaluate makes an ensemble that is: {given.again('evaluate', competition.name, 'runs=[…]')}"
        notes.append((f"No run is scored by {competition.metric}:", how))
    elif scores is None:
        notes.append(("No fold is scored yet.", f"Train one: {given.again('train', competition.name, 'fold=0')}"))
    elif ensemble is None:
        how = given.again("evaluate", competition.name, "runs=[…]")
        notes.append(("There is no ensemble yet", f"(thresholds are untuned): {how}"))
    if ensemble is not None and ensemble.record.get("partial"):
        notes.append(
            ("The CV is partial:", f"folds {ensemble.record.get('folds')} only. Train the others and evaluate.")
        )
    oof_gallery, view = _look_at_oof(competition, oof, scores, members, ensemble, workers, limit, notes)
    tests = _look_at_tests(competition, oof, found, ensemble, workers, notes)
    _note_submissions(found, competition.name, ensemble, notes)
    threshold = view.threshold if view else 0.5
    return Content(competition, found, ensemble, scores, whose, threshold, oof_gallery, tests, notes, counts)


def _missing(oof: Path, ensemble: Ensemble, competition: str) -> str:
    """Which file with an ensemble's scores is not there, and how to get it back."""
    path = oof / "ensembles" / f"{ensemble.name}.csv"
    runs = ",".join(str(member["run"]) for member in ensemble.record["members"])
    # By default `evaluate` wants every fold, which runs of a partial CV do not have.
    folds = [f"folds=[{','.join(map(str, ensemble.record['folds']))}]"] if ensemble.record.get("partial") else []
    how = given.again("evaluate", competition, f"name={ensemble.name}", f"runs=[{runs}]", *folds)
    return f"{path} is not there. Run evaluate again: {how}"


def _subject(
    found: Collected, ensemble: Ensemble | None, metric: str, counts: Mapping[str, int]
) -> tuple[pd.DataFrame | None, str, list[tuple[str, float]]]:
    """Whose scores the page shows: the ensemble's, else those of the best run by a metric."""
    if ensemble is not None:
        members = [(str(one["run"]), float(one["weight"])) for one in ensemble.record["members"]]
        return ensemble.scores, f"ensemble {ensemble.name}", [one for one in members if one[1] > 0]
    lines = stats.leaderboard(found.runs, metric, counts)
    if not lines or not lines[0].value.count:
        return None, "", []
    best = lines[0].name
    return stats.scored(found.runs, metric, counts)[best].table, f"run {best}", [(best, 1.0)]


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
    # One fold alone chose its settings itself, and a run has the default ones: pictures and scores share them then.
    crossed = ensemble is not None and not ensemble.single
    gallery = gather(view, jobs, scores, workers, "pictures", crossed)
    notes.extend(("Not readable:", problem) for problem in gallery.problems[:5])
    return gallery, view


def _view(competition: Competition, job: Job, ensemble: Ensemble | None, oof: Path) -> View:
    """The ensemble's bands, threshold and decoder; defaults for a run without an ensemble."""
    bands = shared_bands(list(job.paths))
    if ensemble is not None:
        return _tuned(competition, ensemble.record, bands, _second_place(competition, oof, ensemble.name))
    decoder = {"name": decoders.default_for(bands)} if competition.truth == "instances" else None
    return View(competition, bands, 0.5, decoder)


def _tuned(
    competition: Competition,
    record: Mapping[str, Any],
    bands: tuple[str, ...],
    second: Path,
    cleaning: Mapping[str, Any] | None = None,
) -> View:
    """An ensemble's bands (`bands` where it names none), threshold and decoder, and `submit`'s cleaning."""
    chosen = record.get("threshold")
    return View(
        competition,
        bands=tuple(record.get("bands") or bands),
        threshold=float(chosen) if chosen is not None else 0.5,
        decoder=record.get("instances"),
        strata=record.get("strata") or {},
        second=second if record.get("second") else None,
        min_area=int((cleaning or {}).get("min_area") or 0),
        max_hole=int((cleaning or {}).get("max_hole") or 0),
    )


def _second_place(competition: Competition, oof: Path, name: str) -> Path:
    """Where an ensemble's second level lies; `oof` is the competition's own folder."""
    return ensembles.Ensemble.second_place(oof.parent, competition.name, name)


def _look_at_tests(
    competition: Competition,
    oof: Path,
    found: Collected,
    ensemble: Ensemble | None,
    workers: int,
    notes: list[tuple[str, str]],
) -> dict[str, Gallery]:
    """Pictures of submissions' test samples, evenly chosen; the submissions share a fixed number of bytes."""
    galleries: dict[str, Gallery] = {}
    known = {sample.sample_id for sample in competition.samples()}
    for one in _shown(found.submissions, ensemble.name if ensemble else None):
        jobs = _written_jobs(competition, one, known)
        try:
            view = _submitted_view(competition, oof, found, one)
        except DataError as error:
            # With another's settings they would be pictures of something else; what was written needs no settings.
            view = View(competition, (FOREGROUND,), 0.5, None)
            there = [job for job in jobs if job.labels is not None or job.text is not None]
            if len(there) < len(jobs):
                how = f"{len(jobs) - len(there)} of {len(jobs)} test pictures. {error}"
                notes.append((f"Not drawn of {one.name}:", how))
            jobs = there
        if jobs:
            jobs = _within_budget(jobs)
            galleries[one.name] = gather(view, jobs, one.scores, workers, f"test pictures of {one.name}")
            notes.extend((f"Not readable in {one.name}:", text) for text in galleries[one.name].problems[:3])
    return galleries


def _shown(submissions: Sequence[Submission], own: str | None) -> list[Submission]:
    """Which submissions get pictures: the one that the page is about, then the newest that predicted something."""
    there = [one for one in submissions if any((one.folder / "predictions").glob("*.tif"))]
    return sorted(there, key=lambda one: (one.name != own, -_made(one)))[:SHOWN]


def _made(one: Submission) -> float:
    """When a submission was finished or, before that, predicted, in seconds; the folder's time where nothing says."""
    record = one.provenance or {}
    text = one.finished or (record.get("predict") or {}).get("started")
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return (one.folder / "predictions").stat().st_mtime


def _written_jobs(competition: Competition, one: Submission, known: set[str]) -> list[Job]:
    """A job for each predicted test sample, with what was submitted of it where that is still there.

    Raises:
        DataError: the CSV of slides is broken.
    """
    texts: dict[str, str] = {}
    if competition.kind == "slides" and competition.csv is not None and one.csv is not None:
        texts = dict(csv.read(one.csv, competition.csv))
    jobs = []
    for path in sorted((one.folder / "predictions").glob("*.tif")):
        labels = one.folder / "labels" / path.name
        written = competition.kind == "images" and not one.outdated
        there = labels if written and labels.is_file() else None
        if path.stem in known:
            jobs.append(Job(path.stem, (path,), (1.0,), 0, True, there, texts.get(path.stem)))
    return jobs


def _within_budget(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, an even choice of them with bytes for a picture."""
    budget = min(allowance(SHOWN * TEST_LIMIT, TOTAL // 4), LARGEST)
    step = max(len(jobs) / TEST_LIMIT, 1)
    drawn = {int(i * step) for i in range(min(len(jobs), TEST_LIMIT))}
    return [replace(job, budget=budget if index in drawn else 0) for index, job in enumerate(jobs)]


def _submitted_view(competition: Competition, oof: Path, found: Collected, one: Submission) -> View:
    """The settings that a submission was made with: those in its provenance, else its ensemble's of today.

    Raises:
        DataError: neither is there, or its second level is not the one that it was made with.
    """
    provenance = one.provenance or {}
    record = provenance.get("ensemble")
    if not isinstance(record, dict):
        ensemble = found.ensemble(one.name)
        if ensemble is None:
            path = oof / "ensembles" / f"{one.name}.json"
            raise DataError(f"{path}: its ensemble is gone, and with it threshold and decoder; run evaluate again")
        record = ensemble.record
    second = _second_place(competition, oof, str(record.get("name") or one.name))
    known = record.get("second")
    if known and (not second.is_file() or sha256(second) != known.get("sha256")):
        raise DataError(f"{second}: not the second level that it was made with; run evaluate, predict and submit again")
    cleaning = None if one.outdated else provenance.get("submit")
    return _tuned(competition, record, (FOREGROUND,), second, cleaning)


def _note_submissions(
    found: Collected, competition: str, ensemble: Ensemble | None, notes: list[tuple[str, str]]
) -> None:
    """Say what is unknown about the submissions, and what is left out of them."""
    for one in found.submissions:
        if one.outdated:
            how = given.again("submit", competition, f"name={one.name}")
            notes.append((f"Predicted anew since {one.name} was submitted:", f"CSV and scores are left out; {how}"))
    if not found.submissions and found.log is None:
        # Named, as there may be several ensembles; where there is none yet, another note says how to make one.
        name = [f"name={ensemble.name}"] if ensemble else []
        how = " and ".join(given.again(verb, competition, *name) for verb in ("predict", "submit"))
        notes.append(("Nothing was submitted yet:", how))
    elif found.log is None and all(one.scores is None for one in found.submissions):
        how = "the test truth is not known here, or submit has not run yet; and nothing was sent to Kaggle."
        notes.append(("No test score:", how))
