"""Where the files of one configuration are: the contracts' folder names in one place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from histofold import competitions, given
from histofold.competitions.base import Competition, Sample
from histofold.config import Config
from histofold.errors import ConfigError, DataError
from histofold.tiles import folds
from histofold.tiles.store import Recipe, Store

ALL_FOLDS = ("all", "default")


def fold_set_named(folds: Any) -> str:
    """Name of the fold set that `folds=` means; `all` and a list of folds mean the default one."""
    return folds if isinstance(folds, str) and folds not in ALL_FOLDS else "default"


@dataclass(frozen=True)
class Workspace:
    """Paths and opened parts of one configuration; nothing is read before it is asked for."""

    config: Config

    @cached_property
    def competition(self) -> Competition:
        """The competition's files, present and complete.

        Raises:
            DataError: raw files are missing; says how to get them.
        """
        competition = competitions.open(self.config.competition, self.config.path("input"))
        competition.check()
        return competition

    @property
    def prepared(self) -> Path:
        """`input/prepared/<competition>`."""
        return self.config.path("prepared") / self.config.competition.name

    @property
    def oof(self) -> Path:
        """`oof/<competition>`."""
        return self.config.path("oof") / self.config.competition.name

    @property
    def submissions(self) -> Path:
        """`submissions/<competition>`."""
        return self.config.path("submissions") / self.config.competition.name

    @property
    def fold_set(self) -> str:
        """Name of the fold set, see `fold_set_named`."""
        return fold_set_named(self.config.folds)

    def folds_path(self, fold_set: str | None = None) -> Path:
        """`folds.csv`, or `folds-NAME.csv` of another fold set."""
        name = fold_set or self.fold_set
        return self.prepared / ("folds.csv" if name == "default" else f"folds-{name}.csv")

    def folds(self, fold_set: str | None = None) -> pd.DataFrame:
        """The table of folds, checked.

        Raises:
            DataError: it was not made yet, or an edit broke it.
        """
        path = self.folds_path(fold_set)
        if not path.exists():
            name = fold_set or self.fold_set
            more = [] if self.config.folds == name == "default" else [f"folds={name}"]
            more += [] if name == "default" else ["prepare.fold_seed=1"]
            how = given.again("prepare", self.config.competition.name, *more)
            raise DataError(f"{path}: no such file; run `{how}` first")
        return folds.read(path)

    @property
    def recipe(self) -> Recipe:
        """How the store is made, from `prepare.*`."""
        settings = self.config.prepare
        return Recipe(settings.kind, settings.tile, float(settings.scale), tuple(settings.grids), settings.min_tissue)

    @property
    def store_path(self) -> Path:
        """`input/prepared/<competition>/<recipe>`."""
        return self.prepared / self.recipe.name

    def store(self) -> Store:
        """The prepared store.

        Raises:
            DataError: it was not made yet, or with other settings than `prepare.*` has now.
        """
        if not (self.store_path / "recipe.json").exists():
            how = given.again("prepare", self.config.competition.name)
            raise DataError(f"{self.store_path}: no store; run `{how}` first")
        store = Store.open(self.store_path)
        made, asked = store.recipe.to_dict(), self.recipe.to_dict()
        other = [key for key in asked if made.get(key) != asked[key]]
        if other:
            old, new = (f"prepare.{other[0]}={given.typed_value(values.get(other[0]))}" for values in (made, asked))
            how = given.again("prepare", self.config.competition.name, new)
            raise DataError(
                f"{self.store_path}: was prepared with {old}, now it is {new}; run `{how}` to prepare it anew, or give "
                f"{old} to this command, too"
            )
        return store

    def sample(self, sample_id: str) -> Sample:
        """One sample of the competition by id."""
        return self.competition.sample(sample_id)

    def shard(self) -> tuple[int, int] | None:
        """`shard=i/n` as numbers.

        Raises:
            ConfigError: not of that form, or i is not below n.
        """
        text = self.config.shard
        if text is None:
            return None
        part, _, count = text.partition("/")
        if not (part.isdigit() and count.isdigit() and int(part) < int(count)):
            raise ConfigError(f"shard={text}: expected i/n with 0 ≤ i < n, for example shard=0/4")
        return int(part), int(count)
