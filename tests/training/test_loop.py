"""What may not change between the sittings of a run, and an epoch that is too short to learn anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from histofold.compose import ROOT, compose, load
from histofold.config import TrainConfig
from histofold.errors import ConfigError, DataError
from histofold.training.loop import steps_per_epoch
from histofold.training.state import Progress

LAST = Path("oof/x/last.ckpt")


def settings(*more: str) -> TrainConfig:
    return load(compose(["competition=demo_kidney", *more], ROOT / "configs")).train


@pytest.mark.parametrize(
    ("samples", "batch", "accumulate", "ranks", "steps"),
    [(64, 8, 1, 1, 8), (67, 8, 1, 1, 8), (64, 8, 2, 1, 4), (64, 8, 2, 4, 1)],
)
def test_steps_of_an_epoch(samples: int, batch: int, accumulate: int, ranks: int, steps: int) -> None:
    given = settings(f"train.samples_per_epoch={samples}", f"train.batch={batch}", f"train.accumulate={accumulate}")
    assert steps_per_epoch(given, ranks) == steps


@pytest.mark.parametrize(("batch", "accumulate", "ranks"), [(65, 1, 1), (8, 9, 1), (16, 1, 8)])
def test_an_epoch_without_a_step_is_refused(batch: int, accumulate: int, ranks: int) -> None:
    given = settings("train.samples_per_epoch=64", f"train.batch={batch}", f"train.accumulate={accumulate}")
    with pytest.raises(ConfigError, match=f"samples_per_epoch=64: expected at least {batch * accumulate * ranks},"):
        steps_per_epoch(given, ranks)


def test_training_goes_on_with_the_same_samples_and_processes_only() -> None:
    progress = Progress(seen="abc", ranks=2)
    progress.check(LAST, "abc", 2)
    Progress().check(LAST, "abc", 2)  # from before these were kept
    with pytest.raises(DataError, match=r"last\.ckpt: began with other training samples"):
        progress.check(LAST, "abd", 2)
    with pytest.raises(ConfigError, match="began on 2 processes, now there are 4"):
        progress.check(LAST, "abc", 4)
