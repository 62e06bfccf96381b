"""As many processes tune as there is memory for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from histofold.config import LimitsConfig
from histofold.errors import ResourceError
from histofold.evaluation import room

GB = 1_000_000_000


@dataclass
class Evaluate:
    workers: int
    tune: bool = True


@dataclass
class Config:
    limits: LimitsConfig
    evaluate: Evaluate


@pytest.fixture
def workers(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """What is chosen for images of 1,000 × 1,000 or as given, with 0.5 GB held already."""
    monkeypatch.setattr(room.planning, "resident", lambda: GB // 2)

    def ask(memory: str, asked: int = 4, side: int = 1000, disk: str = "100G", hours: float = 0) -> int:
        config = Config(LimitsConfig(memory, disk, hours), Evaluate(asked))
        competition = SimpleNamespace(kind="images", truth="instances")
        workspace: Any = SimpleNamespace(config=config, competition=competition, oof=tmp_path)
        sides = [10, side, 20, side, 10]
        found = room.fitting(workspace, pd.DataFrame({"height": sides, "width": sides}), 1)
        assert config.evaluate.workers == asked, "the caller's configuration stays as it is"
        return found.evaluate.workers

    return ask


def test_there_are_fewer_processes_where_memory_is_short(
    workers: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert workers("100G") == 4
    assert "processes" not in capsys.readouterr().out
    assert workers("1500MB") == 2
    assert "evaluate: 2 of 4 processes, as there is no memory for more" in capsys.readouterr().out
    assert workers("1G") == 1


def test_what_does_not_fit_at_all_is_refused_with_advice(workers: Callable[..., int]) -> None:
    with pytest.raises(ResourceError, match=r"evaluate would need memory .*cut the largest images into parts"):
        workers("1G", side=9000)
    with pytest.raises(ResourceError, match=r"evaluate would need disk .*paths.oof"):
        workers("1G", disk="1kB")
    with pytest.raises(ResourceError, match=r"evaluate would need time .*limits.hours"):
        workers("1G", hours=1e-6)


def test_slides_need_little_of_their_pixels() -> None:
    pixels = [40_000**2] * 3
    assert room.plan("streamed", pixels, 3, 1, 0).peak_memory * 5 < room.plan("mask", pixels, 3, 1, 0).peak_memory


def test_instances_are_tuned_at_the_size_of_their_predictions() -> None:
    whole, eighth = (room.plan("instances", [1_400_000] * 98, 2, 2, 0, scale) for scale in (1.0, 8.0))
    assert eighth.seconds * 30 < whole.seconds
    assert eighth.peak_memory < whole.peak_memory
    assert 10 < eighth.seconds < 120  # 98 fields of glomeruli took 28 seconds on two cores
