"""What there is, found in machines and containers that are drawn as files; and refusals with advice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from histofold import limits
from histofold.compose import compose, load
from histofold.config import LimitsConfig
from histofold.errors import ConfigError, ResourceError

MACHINE = "MemTotal: 16000000 kB\nMemFree: 1000000 kB\nMemAvailable: 8000000 kB\nHugePages_Total: 0\n"
AVAILABLE = 8_000_000 * 1024


def write(root: Path, **contents: str) -> None:
    for name, text in {"proc/meminfo": MACHINE, **contents}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_plain_machine(tmp_path: Path) -> None:
    write(tmp_path)
    assert limits.available_memory(tmp_path) == AVAILABLE


def test_a_container_of_cgroup_v2(tmp_path: Path) -> None:
    write(tmp_path, **{
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "2000000000\n",
        "sys/fs/cgroup/memory.current": "900000000\n",
        "sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 400000000\n",
    })  # fmt: skip
    assert limits.available_memory(tmp_path) == 2_000_000_000 - 500_000_000


def test_the_tightest_group_above_a_process_counts(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/user.slice"
    write(tmp_path, **{
        "proc/self/cgroup": "0::/user.slice/job.scope\n",
        f"{group}/job.scope/memory.max": "max\n",
        f"{group}/memory.max": "3000000000\n",
        f"{group}/memory.current": "1000000000\n",
    })  # fmt: skip
    assert limits.available_memory(tmp_path) == 2_000_000_000


@pytest.mark.parametrize("folder", ["sys/fs/cgroup/memory/docker/abc", "sys/fs/cgroup/memory"])
def test_a_container_of_cgroup_v1_seen_from_outside_or_inside(tmp_path: Path, folder: str) -> None:
    write(tmp_path, **{
        "proc/self/cgroup": "9:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n",
        f"{folder}/memory.limit_in_bytes": "4000000000\n",
        f"{folder}/memory.usage_in_bytes": "1000000000\n",
        f"{folder}/memory.stat": "inactive_file 1\ntotal_inactive_file 250000000\n",
    })  # fmt: skip
    assert limits.available_memory(tmp_path) == 3_250_000_000


def test_an_unlimited_group_is_no_limit(tmp_path: Path) -> None:
    write(tmp_path, **{
        "proc/self/cgroup": "4:memory:/\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory.max": "max\n",
    })  # fmt: skip
    assert limits.available_memory(tmp_path) == AVAILABLE


def test_a_container_that_is_full_has_nothing_left(tmp_path: Path) -> None:
    write(tmp_path, **{
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "1000\n",
        "sys/fs/cgroup/memory.current": "5000\n",
    })  # fmt: skip
    assert limits.available_memory(tmp_path) == 0


def test_this_machine_has_memory_and_disk(tmp_path: Path) -> None:
    assert limits.available_memory() > 50_000_000
    assert limits.available_disk(tmp_path / "not" / "yet" / "there") > 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [("13G", 13e9), ("13 GB", 13e9), ("1.5gb", 1.5e9), ("800 MB", 8e8), ("2Gi", 2**31), ("2 GiB", 2**31), ("1T", 1e12)],
)
def test_sizes(text: str, expected: float) -> None:
    assert limits.size(text) == expected


@pytest.mark.parametrize("text", ["", "much", "-3G", "3X", "G", "3 i"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"limits.memory={text}: expected")):
        limits.size(text, "limits.memory")


def test_limits_are_found_or_given(tmp_path: Path) -> None:
    found = limits.of(LimitsConfig("auto", "auto", 0), tmp_path)
    assert found.disk > 0
    assert found.seconds is None
    given = limits.of(LimitsConfig("2G", "1 GB", 1.5), tmp_path)
    assert (given.memory, given.disk, given.seconds) == (2_000_000_000, 1_000_000_000, 5400)


def test_what_a_process_holds_is_not_missing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "available_memory", lambda: 1_000)
    assert limits.of(LimitsConfig("auto", "auto", 0), tmp_path).memory == 1_000
    assert limits.of(LimitsConfig("auto", "auto", 0), tmp_path, held=500).memory == 1_500
    assert limits.of(LimitsConfig("2G", "auto", 0), tmp_path, held=500).memory == 2_000_000_000, "given: for all of it"


def test_kaggle_s_frame(tmp_path: Path) -> None:
    frame = limits.of(LimitsConfig("kaggle", "kaggle", 0), tmp_path)
    assert (frame.memory, frame.disk, frame.seconds, frame.gpu) == (29e9, 20e9, 9 * 3600, 16e9)
    assert limits.of(LimitsConfig("kaggle", "auto", 2), tmp_path).seconds == 7200


def test_kaggle_s_frame_by_one_word(tmp_path: Path) -> None:
    chosen = load(compose(["limits=kaggle"])).limits
    assert limits.of(chosen, tmp_path) == limits.of(LimitsConfig("kaggle", "kaggle", 9), tmp_path)


def test_a_plan_that_fits_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    limits.Plan("prepare", 1_200_000_000, 40_000_000, 200).check(limits.Limits(8_000_000_000, 10**12, 3600))
    line = capsys.readouterr().out
    assert line == "prepare: memory about 1.2 GB of 8 GB, disk about 40 MB of 1 TB, time about 3 min of 60 min\n"


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (limits.Plan("prepare", 9_000_000_000, 0, 0), "would need memory 9 GB and there is 8 GB; use fewer workers"),
        (limits.Plan("prepare", 0, 2_000_000_000, 0), "would need disk 2 GB and there is 1 GB; free some"),
        (limits.Plan("predict", 0, 0, 7200), "predict would need time 2.0 h and there is 60 min; split the work"),
        (limits.Plan("predict", 0, 0, 7200, {"time": "use one view"}), "there is 60 min; use one view"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_with_advice(plan: limits.Plan, expected: str) -> None:
    with pytest.raises(ResourceError) as error:
        plan.check(limits.Limits(8_000_000_000, 1_000_000_000, 3600))
    assert expected in str(error.value)
    assert error.value.exit_code == 1


def test_kaggle_s_gpu_is_asked_where_one_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = limits.of(LimitsConfig("kaggle", "kaggle", 0), tmp_path)
    with pytest.raises(ResourceError, match=r"would need GPU memory 20 GB and there is 16 GB; .*predict\.batch"):
        limits.Plan("predict", 0, 0, 0, gpu=20_000_000_000).check(frame)
    limits.Plan("predict", 0, 0, 0, gpu=9_000_000_000).check(frame)
    assert "GPU memory about 9 GB of 16 GB" in capsys.readouterr().out
    limits.Plan("predict", 0, 0, 0).check(frame)
    assert "GPU" not in capsys.readouterr().out


@pytest.mark.parametrize("there", [True, False])
def test_shared_memory_is_known_where_it_has_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    (tmp_path / "shm").mkdir()
    monkeypatch.setattr(limits, "SHARED", tmp_path / ("shm" if there else "none"))
    found = limits.of(LimitsConfig("kaggle", "kaggle", 0.0), tmp_path)
    assert (found.shared is not None) == there
    plan = limits.Plan("read", 1, 1, 1.0, shared=1 << 60)
    assert ("shared memory about" in plan.line(found)) == there
    assert "shared memory" not in limits.Plan("read", 1, 1, 1.0).line(found)
