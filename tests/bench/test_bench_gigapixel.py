"""The memory of a verb is that of all its processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import bench_gigapixel
import process_memory
import pytest

MB = 1 << 20
HOLD = "data = b'1' * (300 << 20)"
"""300 MiB that are written to, so that they are resident."""


def test_peak_counts_what_a_child_holds(tmp_path: Path) -> None:
    child = f"{HOLD}; import time; time.sleep(4)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    seconds, peak = bench_gigapixel.watch("prepare", [sys.executable, "-c", parent], tmp_path / "log")
    assert seconds >= 4
    assert 0.29 <= peak <= 0.45, "the parent alone holds some 10 MB"


def test_pages_that_processes_share_count_once() -> None:
    ready = "print('ready', flush=True) if os.fork() else None"
    forked = f"import os, sys; {HOLD}; {ready}; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", forked], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(process_memory.tree(process.pid)) == 2
        assert 300 * MB <= process_memory.in_use(process.pid) <= 400 * MB
        assert process_memory.peak_of(process.pid) >= 300 * MB
        process.stdin.close()  # type: ignore[union-attr]
        process.wait()
    assert process_memory.in_use(process.pid) == process_memory.peak_of(process.pid) == 0


def test_a_verb_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"prepare failed:\nno slides here"):
        bench_gigapixel.watch("prepare", [sys.executable, "-c", "exit('no slides here')"], tmp_path / "log")


def test_verbs_run_by_themselves_in_a_kept_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "prepared" / "hubmap_kidney").mkdir(parents=True)
    (tmp_path / "prepared" / "hubmap_kidney" / "folds.csv").write_text("sample_id,fold\n2f6ecfcdf,1\n8242609fa,0\n")
    called = []
    monkeypatch.setattr(bench_gigapixel, "run", lambda verb, given, log: called.append((verb, given)) or (1.0, 2.0))
    rows = bench_gigapixel.measure(tmp_path, ["competition=x"], 3, ["evaluate", "predict"])
    assert rows == [("evaluate", 1.0, 2.0), ("predict", 1.0, 2.0)]
    assert called == [
        ("evaluate", ["competition=x", "runs=[giga]", "folds=[1]", "name=giga"]),
        ("predict", ["competition=x", "name=giga"]),
    ]
