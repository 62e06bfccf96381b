"""`validate`: check any submission CSV, this project's or one made elsewhere, and name each fault's row and column."""

from __future__ import annotations

from pathlib import Path

from histofold import competitions
from histofold.competitions.base import Competition
from histofold.config import Config
from histofold.errors import ConfigError, DataError
from histofold.kaggle.validate import Fault, validate

SHOWN = 50
"""Faults that are printed; a wrong dialect makes one for each row."""


def check(config: Config) -> None:
    """Check `file=PATH`, or the submission of `name=NAME`, against the rules of the chosen competition.

    Raises:
        ConfigError: the competition has no CSV, or no file was named.
        DataError: the file is missing or has faults; all of them are printed before.
    """
    competition = competitions.open(config.competition, config.path("input"))
    path = _path(config)
    if not path.is_file():
        raise DataError(f"{path}: no such file; make it with ./run.sh submit, or name another with file=PATH")
    faults = faults_of(competition, path)
    for fault in faults[:SHOWN]:
        print(f"{path}: {fault}")
    if len(faults) > SHOWN:
        print(f"… and {len(faults) - SHOWN} more")
    if faults:
        raise DataError(f"{path}: {len(faults)} fault{'s' if len(faults) > 1 else ''}; Kaggle would refuse it")
    print(f"{path}: keeps all rules of {competition.name}")


def faults_of(competition: Competition, path: Path) -> list[Fault]:
    """Every fault of a CSV by the competition's rules; none means that Kaggle takes it.

    Raises:
        ConfigError: the competition has no CSV.
    """
    if competition.csv is None:
        raise ConfigError(f"competition={competition.name}: it has no submission file to check")
    competition.check()
    ids = competition.submission_ids()
    samples = {sample.sample_id: sample for sample in competition.samples()}
    shapes = {name: (samples[name].height, samples[name].width) for name in ids if name in samples}
    return validate(path, competition.csv, ids, shapes)


def _path(config: Config) -> Path:
    if config.file is not None:
        return Path(config.file)
    if config.name is None:
        raise ConfigError("name=null: which file? name=NAME checks that submission, file=PATH any CSV")
    return config.path("submissions") / config.competition.name / config.name / "submission.csv"
