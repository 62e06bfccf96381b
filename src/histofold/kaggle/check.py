"""`validate`: check any submission CSV, this project's or one made elsewhere, and name each fault's row and column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from histofold import competitions, given
from histofold.competitions.base import Competition
from histofold.config import Config
from histofold.errors import ConfigError, DataError
from histofold.evaluation import extents
from histofold.evaluation.extents import Extent
from histofold.inference.ensemble import Ensemble
from histofold.kaggle import csv, likeness
from histofold.kaggle.validate import Fault, validate
from histofold.tiles import folds as fold_table

SHOWN = 50
"""Faults that are printed; a wrong dialect makes one for each row."""


def check(config: Config) -> None:
    """Check `file=PATH`, or the submission of `name=NAME`, against the rules of the chosen competition.

    A file that keeps them is then compared with the training truth and, where an ensemble's name is known, with its OOF
    predictions: a warning, never a fault.

    Raises:
        ConfigError: the competition has no CSV, or no file was named.
        DataError: the file is missing or has faults; all of them are printed before.
    """
    competition = competitions.open(config.competition, config.path("input"))
    path = _path(config)
    if not path.is_file():
        raise DataError(f"{path}: no such file; make it with ./run.sh submit, or name another with file=PATH")
    faults = faults_of(competition, path, config.path("prepared") / competition.name / "folds.csv")
    if csv.has_mark(path):
        print(
            f"{path}: warning: begins with a byte-order mark, which Kaggle may read as a part of the first column's "
            "name; save it as plain UTF-8"
        )
    for fault in faults[:SHOWN]:
        print(f"{path}: {fault}")
    if len(faults) > SHOWN:
        print(f"… and {len(faults) - SHOWN} more")
    if faults:
        raise DataError(f"{path}: {len(faults)} fault{'s' if len(faults) > 1 else ''}; Kaggle would refuse it")
    print(f"{path}: keeps all rules of {competition.name}")
    try:
        _compare(competition, path, config)
    except Exception as error:  # the file keeps the rules, whatever there is to compare it with
        print(f"not compared: {error}")


def _compare(competition: Competition, path: Path, config: Config) -> None:
    """Print how areas, counts and empty samples compare with truth and OOF, and draw it; no rule depends on it."""
    folder = config.path("submissions") / competition.name
    own = path.resolve().is_relative_to(folder.resolve())
    name = config.name or (path.parent.name if own else None)
    references = _references(competition, config, name)
    if competition.csv is None or not references:
        return
    shapes = _shapes(
        competition, competition.submission_ids(), config.path("prepared") / competition.name / "folds.csv"
    )
    submission = likeness.area_statistics(path, competition.csv, shapes)
    for comparison in likeness.compare_all(submission, references):
        print(comparison)
    picture = path.with_name("likeness.png") if own else folder / f"likeness-{path.stem}.png"
    print(f"picture: {likeness.picture(submission, references, picture)}")


def _references(competition: Competition, config: Config, name: str | None) -> dict[str, list[Extent]]:
    """The training truth, and the OOF predictions of the ensemble `name`; says which of them there is not."""
    found = {likeness.TRUTH: likeness.of_training(competition, config.prepare.workers)}
    if not found[likeness.TRUTH]:
        print(f"no {likeness.TRUTH} to compare it with")
    if name is None:
        print(f"not compared with {likeness.OOF}: name=NAME takes those of an ensemble")
    else:
        place = extents.place(config.path("oof"), competition.name, name)
        found[likeness.OOF] = extents.read(place) or []
        if not found[likeness.OOF]:
            how = _evaluate(config.path("oof"), competition.name, name)
            print(f"not compared with {likeness.OOF}: {place} is not there; this writes it: {how}")
    return {label: reference for label, reference in found.items() if reference}


def _evaluate(oof: Path, competition: str, name: str) -> str:
    """The command that evaluates an ensemble again, as it was made, or anew where it is not known."""
    place = Ensemble.place(oof, competition, name)
    if not place.is_file():
        return given.again("evaluate", competition, f"name={name}", "runs=[…]")
    ensemble = Ensemble.read(place)
    runs = ",".join(member.run for member in ensemble.members)
    # By default `evaluate` wants every fold, which runs of a partial CV do not have.
    folds = [f"folds=[{','.join(map(str, ensemble.folds))}]"] if ensemble.partial else []
    return given.again("evaluate", competition, f"name={name}", f"runs=[{runs}]", *folds)


def faults_of(competition: Competition, path: Path, folds: Path | None = None) -> list[Fault]:
    """Every fault of a CSV by the competition's rules; none means that Kaggle takes it.

    `folds` is the competition's folds.csv, where there is one.

    Raises:
        ConfigError: the competition has no CSV.
        DataError: folds.csv is not one.
    """
    if competition.csv is None:
        raise ConfigError(f"competition.name={competition.name}: it has no submission file to check")
    competition.check()
    ids = competition.submission_ids()
    return validate(path, competition.csv, ids, _shapes(competition, ids, folds))


def _shapes(competition: Competition, ids: Sequence[str], folds: Path | None) -> dict[str, tuple[int, int]]:
    """Height and width of each sample: from folds.csv where it has them all, because opening every image takes long."""
    if folds is not None and folds.is_file():
        table = fold_table.read(folds).set_index("sample_id")
        if set(ids) <= set(table.index):
            sizes = table.loc[list(ids), ["height", "width"]].to_numpy(int)
            # 0 stands for a file that could not be read when the folds were made.
            if (sizes > 0).all():
                return {name: (int(height), int(width)) for name, (height, width) in zip(ids, sizes, strict=True)}
    samples = {sample.sample_id: sample for sample in competition.samples() if sample.height * sample.width}
    return {name: (samples[name].height, samples[name].width) for name in ids if name in samples}


def _path(config: Config) -> Path:
    if config.file is not None:
        return Path(config.file)
    folder = config.path("submissions") / config.competition.name
    names = [config.name] if config.name else sorted(path.parent.name for path in folder.glob("*/submission.csv"))
    if len(names) != 1:
        found = f"there are {', '.join(names)}" if names else f"there is none in {folder}"
        raise ConfigError(f"name=null: which submission? {found}; name=NAME checks that one, file=PATH any CSV")
    return folder / names[0] / "submission.csv"
