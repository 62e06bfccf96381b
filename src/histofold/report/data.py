"""What the report reads from disk: runs, ensembles, submissions and the log of what was sent; no pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from histofold.errors import DataError
from histofold.evaluation.oof import read_table, scored_by
from histofold.files import read_json
from histofold.kaggle import log
from histofold.report.figures import read_metrics
from histofold.submission.place import ANEW

ENSEMBLES = "ensembles"
PROVENANCE, CSV = "provenance.json", "submission.csv"
SCORES_COLUMNS = ("sample_id", "stratum", "score")
ID_COLUMNS = ("sample_id", "fold", "stratum", "group", "height", "width")


def read_scores(path: Path) -> pd.DataFrame:
    """Read a scores.csv, one row a sample; strata and groups are text even when they look like numbers.

    Raises:
        DataError: the file is broken or lacks a column of the contract.
    """
    try:
        table = read_table(path)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as CSV ({error}); score the fold anew") from error
    missing = [name for name in SCORES_COLUMNS if name not in table]
    if missing:
        raise DataError(f"{path}: column {missing[0]!r} is missing, found {', '.join(map(str, table.columns))}")
    # Test samples have no fold, and need no group.
    for name, value in (("fold", -1), ("group", "")):
        if name not in table:
            table[name] = value
    return table


@dataclass
class Fold:
    """One fold of a run: its curves and, once it is scored, its samples' scores."""

    number: int
    folder: Path
    metrics: pd.DataFrame | None = None
    scores: pd.DataFrame | None = None


@dataclass
class Run:
    """One run with the folds that exist."""

    name: str
    folds: list[Fold]
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def scores(self) -> pd.DataFrame | None:
        """Scores of all folds, one row a sample; None when no fold is scored."""
        tables = [fold.scores for fold in self.folds if fold.scores is not None]
        return pd.concat(tables, ignore_index=True) if tables else None

    def scored(self, metric: str) -> pd.DataFrame | None:
        """`scores` whose column `score` is a metric, by which older runs may not have been scored; empty: as it is."""
        scores = self.scores
        return None if scores is None else scored_by(scores, metric or None)

    @property
    def minutes(self) -> float | None:
        """Training time of all folds in minutes, None without curves; `seconds` counts from the start of a fold."""
        tables = [fold.metrics for fold in self.folds if fold.metrics is not None and "seconds" in fold.metrics]
        return float(sum(table["seconds"].max() for table in tables)) / 60 if tables else None


@dataclass
class Ensemble:
    """An ensemble's JSON and the cross-fitted scores beside it (None when they are missing)."""

    name: str
    record: dict[str, Any]
    scores: pd.DataFrame | None

    @property
    def score(self) -> dict[str, Any]:
        """The block of scores: optimistic, cross_fitted, interval, per_fold, per_stratum, per_run."""
        return dict(self.record.get("score") or {})

    @property
    def metric(self) -> str:
        """Name of the metric that it was tuned by; empty where the file does not say."""
        return str(self.record.get("metric") or "")

    @property
    def single(self) -> bool:
        """Whether it was scored on one fold only, so that its settings were chosen on what they are scored on."""
        return len(self.record.get("folds") or []) == 1


@dataclass
class Submission:
    """A submission folder: where it came from, what is in it, how it scored where the truth is known.

    `scores` and `csv` are None, too, where they are of predictions that are there no more.
    """

    name: str
    folder: Path
    provenance: dict[str, Any] | None
    scores: pd.DataFrame | None
    csv: Path | None

    @property
    def outdated(self) -> bool:
        """Whether its samples were predicted anew since `submit` wrote its files."""
        return ANEW in ((self.provenance or {}).get("submit") or {})

    @property
    def finished(self) -> str | None:
        """When `submit` wrote what belongs to these predictions; None where it did not, or nothing says so."""
        return None if self.outdated else ((self.provenance or {}).get("submit") or {}).get("finished")


@dataclass
class Collected:
    """All that the report shows but for the pictures."""

    competition: str
    runs: list[Run]
    ensembles: list[Ensemble]
    submissions: list[Submission]
    log: pd.DataFrame | None

    def ensemble(self, name: str | None) -> Ensemble | None:
        """The ensemble called `name`, without a name the newest; None when there is none."""
        if name is None:
            return max(self.ensembles, key=lambda item: str(item.record.get("created", "")), default=None)
        return next((item for item in self.ensembles if item.name == name), None)


def collect(competition: str, oof: Path, submissions: Path) -> Collected:
    """Read everything there is for one competition; `oof` and `submissions` are the roots of all competitions.

    Raises:
        DataError: a file that exists is broken. What does not exist is simply not there.
    """
    own, sent = oof / competition, submissions / competition
    runs = [_run(folder) for folder in _folders(own) if folder.name != ENSEMBLES]
    paths = sorted((own / ENSEMBLES).glob("*.json"))
    return Collected(
        competition=competition,
        runs=[run for run in runs if run.folds],
        ensembles=[_ensemble(path) for path in paths],
        submissions=[_submission(folder) for folder in _folders(sent) if _of_the_test_set(folder)],
        log=_log(sent / "log.csv"),
    )


def _log(path: Path) -> pd.DataFrame | None:
    """What was sent, oldest first, with scores as numbers (NaN until Kaggle has answered); None when nothing was."""
    entries = log.read(path)
    if not entries:
        return None
    table = pd.DataFrame([asdict(entry) for entry in entries])
    # A CV that is not a number belongs to an ensemble that could not be cross-fitted: no place on a chart.
    return table.assign(**{name: pd.to_numeric(table[name], errors="coerce") for name in ("cv", "public", "private")})


def _folders(parent: Path) -> list[Path]:
    """Folders in `parent`, sorted; none when it does not exist."""
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


def _run(folder: Path) -> Run:
    """A run folder with its fold folders."""
    folds = [_fold(path) for path in _folders(folder) if path.name.startswith("fold") and path.name[4:].isdigit()]
    folds = sorted((fold for fold in folds if fold.metrics is not None or fold.scores is not None), key=_by_number)
    configs = [fold.folder / "config.yaml" for fold in folds]
    found = next((path for path in configs if path.exists()), None)
    return Run(folder.name, folds, _yaml(found) if found else {})


def _by_number(fold: Fold) -> int:
    return fold.number


def _fold(folder: Path) -> Fold:
    """A fold folder; curves and scores may be missing while it is still being trained."""
    return Fold(
        number=int(folder.name[4:]),
        folder=folder,
        metrics=_optional(folder / "metrics.csv", read_metrics),
        scores=_optional(folder / "scores.csv", read_scores),
    )


def _optional(path: Path, read: Callable[[Path], pd.DataFrame]) -> pd.DataFrame | None:
    """The table, or None when there is no such file."""
    return read(path) if path.exists() else None


def _yaml(path: Path) -> dict[str, Any]:
    """A configuration file as nested dictionaries."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not readable as YAML ({str(error).splitlines()[0]})") from error
    return value if isinstance(value, dict) else {}


def _ensemble(path: Path) -> Ensemble:
    """An ensemble with its table of scores."""
    record = read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("members"), list):
        raise DataError(f"{path}: not an ensemble (no list of members); run evaluate anew")
    return Ensemble(path.stem, record, _optional(path.with_suffix(".csv"), read_scores))


def _of_the_test_set(folder: Path) -> bool:
    """Whether the test set was predicted there; images of one's own, a notebook and this page stand there without."""
    return (folder / "predictions").is_dir() or any((folder / name).exists() for name in (PROVENANCE, CSV))


def _submission(folder: Path) -> Submission:
    """A submission folder, whatever it holds so far."""
    provenance, csv = folder / PROVENANCE, folder / CSV
    found = Submission(
        name=folder.name,
        folder=folder,
        provenance=read_json(provenance) if provenance.exists() else None,
        scores=_optional(folder / "scores.csv", read_scores),
        csv=csv if csv.exists() else None,
    )
    return replace(found, scores=None, csv=None) if found.outdated else found
