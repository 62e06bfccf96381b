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
from histofold.evaluation import ensembling, objective, room

GB = 1_000_000_000


@dataclass
class Evaluate:
    workers: int
    tune: bool = True
    second_level: str = "off"


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


def test_a_second_level_holds_every_sample(workers: Callable[..., int]) -> None:
    """The truth of all is kept at full size, and what was found at the size of the predictions."""
    pixels = [1_000_000] * 500
    for scale, least in ((1.0, 8), (4.0, 4)):
        without, within = (room.plan("instances", pixels, 1, 1, 0, scale, second=second) for second in (False, True))
        more = within.peak_memory - without.peak_memory
        assert least * sum(pixels) <= more <= 16 * sum(pixels)


def test_what_a_limit_leaves_is_what_a_search_may_keep(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.planning, "resident", lambda: GB // 2)
    competition = SimpleNamespace(kind="images", truth="instances", metric="dsb", name="drawn")
    samples = pd.DataFrame({"sample_id": ["a", "b"], "fold": [0, 1], "height": 1000, "width": 1000})
    needed = room.plan("instances", [1_000_000] * 2, 2, 2, GB // 2).peak_memory
    members: Any = SimpleNamespace(rows=samples, bands=[SimpleNamespace(scale=1.0)] * 2, weights=(0.5, 0.5))
    for more, most in ((50_000_000, 50_000_000), (-50_000_000, 0)):
        config: Any = Config(LimitsConfig(str(needed + more), "100G", 0), Evaluate(2))
        workspace: Any = SimpleNamespace(config=config, competition=competition, oof=tmp_path)
        tuned: Any = SimpleNamespace(instances=None)
        scorer: Any = ensembling._judges(workspace, members, tuned).all._score
        assert scorer.kept.room <= most
    monkeypatch.setattr(objective, "available_memory", lambda: 100 * GB)
    assert objective.Kept().room == objective.KEPT
    assert objective.Kept(50).room == 50
    monkeypatch.setattr(objective, "available_memory", lambda: 100)
    assert objective.Kept(50).room == 25, "the machine counts, too"
