"""`last.ckpt`: everything that a broken run needs to go on as if nothing had happened."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from histofold.errors import ConfigError, DataError
from histofold.files import atomic
from histofold.inference import checkpoint

FORMAT = 1
LATER = ("scaler",)
"""Parts that files from before they were kept lack, and those of another precision."""


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        epoch: the epoch under way, from 0.
        batches: batches of this epoch that are done (on each rank).
        step: optimiser steps done.
        loss_sum, loss_count: of this epoch so far.
        seconds: training time so far, over all sittings.
        epoch_seconds: of them, those of this epoch.
        history: finished epochs, the rows of metrics.csv.
        seen: digest of the samples that are learned from.
        foreign: those that the weights of `train.start` had seen; None in files from before it was kept.
        ranks: processes that train together; batches and steps are counted by them.
    """

    epoch: int = 0
    batches: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    history: list[dict[str, float | int | None]] = field(default_factory=list)
    seen: str = ""
    foreign: list[str] | None = None
    ranks: int = 0

    def took(self, seconds: float) -> None:
        """Count seconds of training."""
        self.seconds += seconds
        self.epoch_seconds += seconds

    def check(self, path: Path, seen: str, ranks: int) -> None:
        """Make sure that training goes on with the same samples and as many processes as it began with.

        Raises:
            DataError: folds.csv or the weights of `train.start` were changed in between.
            ConfigError: the number of processes was.
        """
        # Files from before these were kept say nothing of them.
        if self.seen and self.seen != seen:
            raise DataError(
                f"{path}: began with other training samples; restore folds.csv (and what train.start names), or give "
                "run=NAME for a new run: samples that are held out now may have been learned from"
            )
        if self.ranks and self.ranks != ranks:
            raise ConfigError(
                f"{path}: began on {self.ranks} processes, now there are {ranks}: batch and learning rate would be "
                "others from here on; start it as before, or give run=NAME for a new run"
            )


def save(path: Path, progress: Progress, parts: dict[str, Any]) -> None:
    """Write progress and the `state_dict()` of every part atomically.

    Raises:
        ResourceError: the disk is full; an older file at `path` stays whole.
    """
    values = {"format": FORMAT, "progress": vars(progress)}
    values.update({name: part.state_dict() for name, part in parts.items()})
    with atomic(path) as temporary:
        checkpoint.write(temporary, values)


def load(path: Path, parts: dict[str, Any]) -> Progress:
    """Restore every part in place and give the progress; of `LATER` parts only those that the file has.

    Raises:
        DataError: the file is no `last.ckpt`, or of another network.
    """
    with _readable(path):
        values = _values(path)
        for name, part in parts.items():
            if name in values or name not in LATER:
                part.load_state_dict(values[name])
        return Progress(**values["progress"])


def foreign(path: Path) -> list[str] | None:
    """The samples that the weights of `train.start` had seen when this `last.ckpt` began; None where it does not say.

    Raises:
        DataError: the file is no `last.ckpt`.
    """
    with _readable(path):
        return Progress(**_values(path, mmap=True)["progress"]).foreign


def _values(path: Path, mmap: bool = False) -> dict[str, Any]:
    values: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    if values["format"] != FORMAT:
        raise DataError(f"{path}: format {values['format']}, expected {FORMAT}; delete the folder and train anew")
    return values


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what torch says of a broken file into a DataError."""
    try:
        yield
    except (KeyError, TypeError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot go on from it ({first}); delete it to train this fold anew") from error


@dataclass
class Clock:
    """Tells when the next checkpoint is due and how long this sitting has run."""

    minutes: float
    started: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Whether `minutes` have passed since the last call that said so; never when `minutes` is 0."""
        if self.minutes <= 0 or time.monotonic() - self.saved < self.minutes * 60:
            return False
        self.saved = time.monotonic()
        return True

    def lap(self) -> float:
        """Seconds since the start or the last lap."""
        now = time.monotonic()
        seconds, self.started = now - self.started, now
        return seconds
