"""`predict` says what it will need before it begins, and refuses what does not fit; what is kept needs nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from histofold import slides
from histofold.errors import DataError
from histofold.inference import planning

Said = Callable[[], str]

LINE = r"^predict: memory about (\S+ .?B) of (\S+ .?B), disk about \S+ .?B of \S+ .?B, time about .+$"


@pytest.fixture(params=["nuclei", "kidney"])
def world(request: pytest.FixtureRequest) -> Any:  # a World of tests/e2e/conftest.py
    return request.getfixturevalue(request.param)


def files(folder: Path) -> dict[str, bytes]:
    """Contents of every file below a folder, hidden ones included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def bands(folder: Path) -> dict[str, bytes]:
    """Contents of the band files of a submission."""
    return files(folder / "predictions")


@pytest.fixture
def predict(world: Any, tmp_path: Path, said: Said) -> Callable[..., tuple[int, str]]:
    """Predict the test set into a folder of its own; gives the exit code and what was said."""

    def run(*more: str) -> tuple[int, str]:
        said()
        return world.run("predict", "name=both", f"paths.submissions={tmp_path}", *more), said()

    return run


def test_the_plan_is_printed_refuses_what_does_not_fit_and_lets_what_is_kept_alone(
    world: Any, tmp_path: Path, predict: Callable[..., tuple[int, str]]
) -> None:
    code, text = predict("limits.memory=10MB")
    assert code == 1
    assert re.search(LINE, text, re.MULTILINE), "what was planned is shown, too"
    (error,) = [line for line in text.splitlines() if line.startswith("histofold: ")]
    assert re.match(r"histofold: predict would need memory \S+ .B and there is 10 MB; ", error)
    assert "predict.tile" in error
    assert "limits.memory" in error
    assert files(tmp_path) == {}

    code, text = predict("limits.disk=10")
    assert (code, "predict would need disk" in text) == (1, True)
    assert "paths.submissions" in text
    assert files(tmp_path) == {}

    code, text = predict()
    assert code == 0
    assert len(re.findall(LINE, text, re.MULTILINE)) == 1
    made = bands(tmp_path / world.competition / "both")
    assert made == bands(world.submission), "the trial leaves no trace in the predictions"

    code, text = predict("limits.memory=10MB", "limits.disk=10")
    assert code == 0, "nothing is left to do, so nothing is needed"
    assert "memory about" not in text
    assert f"0 predicted, {len(made)} kept" in text

    (tmp_path / world.competition / "both" / "predictions" / min(made)).unlink()
    assert predict("limits.memory=10MB")[0] == 1
    code, text = predict()
    assert (code, f"1 predicted, {len(made) - 1} kept" in text) == (0, True)
    assert len(re.findall(LINE, text, re.MULTILINE)) == 1


def test_only_what_is_still_to_do_is_planned(
    world: Any, tmp_path: Path, predict: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[int] = []
    real = planning.plan

    def counted(samples: Any, *rest: Any) -> Any:
        planned.append(len(samples))
        assert all(sample.slide == (sample.reading > 0) == (world.competition == "demo_kidney") for sample in samples)
        return real(samples, *rest)

    monkeypatch.setattr(planning, "plan", counted)
    assert predict("shard=0/2")[0] == 0
    assert predict()[0] == 0
    assert predict()[0] == 0
    count = len(bands(tmp_path / world.competition / "both"))
    assert planned == ([-(-count // 2), count // 2] if count > 1 else [1])


def test_the_memory_that_is_planned_is_near_to_what_is_needed(world: Any, tmp_path: Path, said: Said) -> None:
    """What a process has is counted once: a plan is at most a little over the peak that was then reached."""
    said()
    planning.forget_peak()
    assert world.run("predict", "name=both", f"paths.submissions={tmp_path}") == 0
    text = said()
    found = re.search(LINE, text, re.MULTILINE)
    assert found is not None
    units = {"MB": 1e6, "GB": 1e9}
    need, have = (float(value) * units[unit] for value, unit in (group.split() for group in found.groups()))
    assert need < have
    peak = planning.resident_peak()
    assert peak - 100e6 < need < peak + 250e6


def test_a_bad_slide_is_told_at_its_turn_and_stops_neither_plan_nor_others(
    kidney: Any, tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = sorted(path.stem for path in (kidney.submission / "predictions").glob("*.tif"))[0]
    real = slides.open

    def opened(path: Any, *rest: Any) -> Any:
        if Path(path).stem == bad:
            raise DataError(f"{path}: strip 7 is cut off")
        return real(path, *rest)

    # The competition itself still sees it: the header is whole and only the pixels are not.
    monkeypatch.setattr("histofold.sources.slides", SimpleNamespace(open=opened))
    code = kidney.run("predict", "name=both", f"paths.submissions={tmp_path}")
    text = said()
    assert re.search(LINE, text, re.MULTILINE)
    others = len(bands(kidney.submission)) - 1
    assert len(bands(tmp_path / "demo_kidney" / "both")) == others
    assert code == 1
    assert "strip 7 is cut off" in text


def test_more_shards_than_samples_is_no_error(kidney: Any, capsys: pytest.CaptureFixture[str]) -> None:
    count = len(list((kidney.submission / "predictions").glob("*.tif")))
    assert kidney.run("predict", "name=both", f"shard={count}/{count + 1}") == 0
    assert "0 predicted, 0 kept" in capsys.readouterr().out
