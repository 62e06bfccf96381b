"""Runs that differ in their seed or their fold set only: their spread is the noise that other differences must beat.

And folds that do not differ: those of one run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histofold.config import FREE
from histofold.errors import DataError
from histofold.evaluation.oof import Run
from histofold.files import digest
from histofold.identity import completed, difference
from histofold.tiles import folds as fold_sets
from histofold.workspace import ALL_FOLDS

SAME = ("competition", "model", "target", "loss", "augment", "optimizer", "prepare", "train")
"""Settings that two runs share when one repeats the other."""

VARIED = {**FREE, "prepare": (*FREE["prepare"], "fold_seed")}
"""Those of them that may differ: they change nothing, or make another fold set."""


def one_network(run: Run, folds: Sequence[int]) -> None:
    """Make sure that folds of a run were trained alike, so that their scores are one cross-validation.

    Raises:
        DataError: they differ in a setting that makes a run what it is.
    """
    first = folds[0]
    for fold in folds[1:]:
        found = difference(run.config(first), run.config(fold)) if {first, fold} <= set(run.folds) else None
        if found:
            key, one, other = found
            raise DataError(
                f"{run.folder}: fold {first} was trained with {key}={one}, fold {fold} with {other}: two runs; "
                f"evaluate them apart with folds=[…], or train the folds with {key}={other} under another run="
            )


def alike(configs: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Names of runs that repeat one another, at least two together, in the order given.

    Args:
        configs: run → its saved configuration.
    """
    kinds: dict[str, list[str]] = {}
    for name, config in configs.items():
        kinds.setdefault(digest({key: _shared(key, config.get(key)) for key in SAME}), []).append(name)
    return [names for names in kinds.values() if len(names) > 1]


def _shared(section: str, values: Any) -> Any:
    varied = VARIED.get(section, ())
    if not isinstance(values, Mapping):
        return values
    return {key: each for key, each in completed(section, dict(values)).items() if key not in varied}


class FoldSets(dict[str, int]):
    """Fold set → number of its folds.

    Attributes:
        held: fold set → sample → the fold that holds it today.
    """

    def __init__(self, tables: Mapping[str, pd.DataFrame]) -> None:
        super().__init__({name: int(table["fold"].nunique()) for name, table in tables.items()})
        self.held = {name: dict(zip(table["sample_id"], table["fold"], strict=True)) for name, table in tables.items()}


@dataclass(frozen=True)
class Scored:
    """What a run has to be compared by.

    Attributes:
        config: its saved configuration.
        table: a row a sample, with `sample_id`, `fold` and `score`.
        lacking: how many samples its folds hold today that it has no score of.
        gone: how many scores it has of samples that its folds do not hold today, and which `table` leaves out.
    """

    config: Mapping[str, Any]
    table: pd.DataFrame
    lacking: int = 0
    gone: int = 0

    @classmethod
    def today(cls, config: Mapping[str, Any], scores: pd.DataFrame, counts: Mapping[str, int]) -> Scored:
        """A run's scores of what its folds hold today: folds.csv may have been changed since it was trained.

        Args:
            scores: raw ones, NaN where it has none.
            counts: as of `partial`; only `FoldSets` know which samples there are, else all are taken.
        """
        table = scores.dropna(subset="score")
        held = counts.held.get(fold_set_of(config)) if isinstance(counts, FoldSets) else None
        if held is None:
            return cls(config, table)
        names = zip(table["sample_id"], table["fold"], strict=True)
        inside = np.array([held.get(name) == fold for name, fold in names], np.bool_)
        folds, kept = set(table["fold"]), int(inside.sum())
        wanted = sum(fold in folds for fold in held.values())
        return cls(config, table[inside], wanted - kept, len(table) - kept)

    @property
    def fold_set(self) -> str:
        """Name of the fold set that it was trained on."""
        return fold_set_of(self.config)

    @property
    def folds(self) -> frozenset[int]:
        """Folds that are scored."""
        return frozenset(int(fold) for fold in self.table["fold"].unique())

    @property
    def parts(self) -> frozenset[tuple[int, frozenset[str]]]:
        """Each fold with its samples."""
        names, folds = self.table["sample_id"], self.table["fold"]
        return frozenset((fold, frozenset(names[folds == fold])) for fold in self.folds)


@dataclass(frozen=True)
class Repeat:
    """Runs of one kind and their means over the same samples.

    Attributes:
        folds: that were compared; None where it is the complete CV of each.
    """

    names: tuple[str, ...]
    means: tuple[float, ...]
    folds: tuple[int, ...] | None

    @property
    def mean(self) -> float:
        """Of the runs' means."""
        return float(np.mean(self.means))

    @property
    def spread(self) -> float:
        """Standard deviation of the runs' means: the noise of one run."""
        return float(np.std(self.means, ddof=1))


def fold_set_of(config: Mapping[str, Any]) -> str:
    """The fold set that a run was trained on, from its saved configuration."""
    name = str(config.get("folds", "default"))
    return "default" if name in ALL_FOLDS else name


def fold_counts(prepared: Path) -> FoldSets:
    """How many folds each fold set in the folder `prepared` of a competition has, by its name, and of which samples.

    Raises:
        DataError: an edit broke one.
    """
    paths = {"default": prepared / "folds.csv"}
    paths |= {path.stem.removeprefix("folds-"): path for path in sorted(prepared.glob("folds-*.csv"))}
    return FoldSets({name: fold_sets.in_cv(fold_sets.read(path)) for name, path in paths.items() if path.exists()})


def partial(runs: Mapping[str, Scored], counts: Mapping[str, int]) -> set[str]:
    """Names of the runs that have not all folds of their fold set.

    Args:
        counts: fold set → number of its folds; where it is not known, the most that a run has.
    """
    known = dict(counts)
    for run in runs.values():
        if run.fold_set not in counts:
            known[run.fold_set] = max(known.get(run.fold_set, 0), len(run.folds))
    return {name for name, run in runs.items() if len(run.folds) < known[run.fold_set]}


def repeats(runs: Mapping[str, Scored], counts: Mapping[str, int]) -> list[Repeat]:
    """Runs that repeat one another, compared on the same samples, at least two together.

    Of one fold set those are the folds that all of them have, with the same samples; a run that has none of these is
    left out. Runs on different fold sets have only complete CVs in common.

    Args:
        counts: as of `partial`.
    """
    unfinished = partial(runs, counts)
    found: list[Repeat] = []
    for names in alike({name: run.config for name, run in runs.items()}):
        kind = {name: runs[name] for name in names}
        sets = {run.fold_set for run in kind.values()}
        complete = {name: run for name, run in kind.items() if name not in unfinished}
        across = _same_samples(complete) if len(sets) > 1 else []
        found += across
        for own in sorted(sets) if not across else []:
            found += _shared_folds({name: run for name, run in kind.items() if run.fold_set == own}, unfinished)
    return found


def _same_samples(kind: Mapping[str, Scored]) -> list[Repeat]:
    """Complete runs of one kind and any fold set, those of the same samples together."""
    alike: dict[frozenset[str], dict[str, Scored]] = {}
    for name, run in kind.items():
        alike.setdefault(frozenset(run.table["sample_id"]), {})[name] = run
    return [_repeat(runs, None) for runs in alike.values() if len(runs) > 1]


def _shared_folds(kind: Mapping[str, Scored], unfinished: set[str]) -> list[Repeat]:
    """Runs of one kind and fold set on the folds that they share; nothing where there are no two."""
    found: list[Repeat] = []
    left = dict(sorted(kind.items(), key=lambda item: -len(item[1].folds)))
    while left:
        chosen: dict[str, Scored] = {}
        common: frozenset[tuple[int, frozenset[str]]] = frozenset()
        for name, run in left.items():
            shared = run.parts & common if chosen else run.parts
            if shared or not chosen:
                chosen[name], common = run, shared
        left = {name: run for name, run in left.items() if name not in chosen}
        ordered = {name: run for name, run in kind.items() if name in chosen}
        whole = not unfinished & set(ordered) and all(run.parts == common for run in ordered.values())
        folds = None if whole else tuple(sorted(fold for fold, _ in common))
        found += [_repeat(ordered, folds)] if len(ordered) > 1 else []
    return found


def _repeat(kind: Mapping[str, Scored], folds: tuple[int, ...] | None) -> Repeat:
    tables = [run.table if folds is None else run.table[run.table["fold"].isin(folds)] for run in kind.values()]
    return Repeat(tuple(kind), tuple(float(table["score"].mean()) for table in tables), folds)
