"""As many processes encode a submission as there is memory for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from histofold.config import LimitsConfig
from histofold.errors import ResourceError
from histofold.submission import room

GB = 1_000_000_000


@dataclass
class Size:
    height: int
    width: int


@pytest.fixture
def workers(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """What is chosen for images of 1,000 × 1,000 or as given, with 0.5 GB held already."""
    monkeypatch.setattr(room.planning, "resident", lambda: GB // 2)

    def ask(memory: str, asked: int = 4, side: int = 1000, disk: str = "100G") -> int:
        config = SimpleNamespace(limits=LimitsConfig(memory, disk, 0), evaluate=SimpleNamespace(workers=asked))
        workspace = SimpleNamespace(config=config, competition=SimpleNamespace(kind="images"))
        ensemble = SimpleNamespace(instances={"name": "watershed"})
        submission: Any = SimpleNamespace(workspace=workspace, ensemble=ensemble, folder=tmp_path)
        samples: Any = [Size(10, 10), Size(side, side), Size(20, 20), Size(side, side), Size(10, 10)]
        return room.workers_for(submission, samples)

    return ask


def test_there_are_fewer_processes_where_memory_is_short(
    workers: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert workers("100G") == 4
    assert "processes" not in capsys.readouterr().out
    assert workers("1400MB") == 2
    assert "submit: 2 of 4 processes, as there is no memory for more" in capsys.readouterr().out
    assert workers("1G") == 1
    assert workers("100G", asked=9) == 5, "no more than samples"


def test_what_does_not_fit_at_all_is_refused_with_advice(workers: Callable[..., int]) -> None:
    with pytest.raises(ResourceError, match=r"submit would need memory .*cut the largest images into parts"):
        workers("1G", side=6000)
    with pytest.raises(ResourceError, match=r"submit would need disk .*paths.submissions"):
        workers("1G", disk="1kB")


def test_slides_need_little_of_their_pixels() -> None:
    pixels = [40_000**2] * 3
    assert room.plan("streamed", pixels, 1, 0).peak_memory < 5 * GB < room.plan("mask", pixels, 1, 0).peak_memory
    assert room.plan("mask", pixels, 3, 0).peak_memory > 3 * room.plan("mask", pixels, 1, 0).peak_memory


def test_submit_is_refused_by_a_limit(draw: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    world = draw(2, seed=9)
    assert world.run("evaluate", "runs=[run]", "evaluate.tune=false") == 0
    capsys.readouterr()
    assert world.run("submit", "limits.memory=1MB") == 1
    text = capsys.readouterr()
    assert "submit: memory about" in text.out
    assert "submit would need memory" in text.err
    assert not (world.submission / "submission.csv").exists()
    assert not (world.submission / "labels").exists()
    assert world.run("submit") == 0
