"""One training a fold at a time, and a lock that ends with the process that holds it."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from histofold.compose import ROOT
from histofold.errors import HistofoldError
from histofold.training.lock import LOCK, locked

HOLDER = """
import os, sys, time
from pathlib import Path
from histofold.training.lock import locked
with locked(Path(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""
"""Holds the lock of a folder until its input ends; beside it, a helper that it forked, which outlives it."""


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of a folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_a_second_training_of_a_fold_is_refused_until_the_first_ends_or_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "fold0"
    with held(folder) as process:
        who = f"process {process.pid} on {socket.gethostname()}"
        with pytest.raises(HistofoldError, match=rf"another process trains this fold \({who}\); wait .* run=NAME"):
            locked(folder).__enter__()
        assert who in (folder / LOCK).read_text(), "it is still the other's"
        with locked(folder.with_name("fold1")):
            pass
        process.kill()
        process.wait()
        with locked(folder):  # at once, although a helper of the other is alive
            assert f"process {os.getpid()} on" in (folder / LOCK).read_text()
    assert folder.is_dir()
    assert not (folder / LOCK).exists()


@pytest.mark.parametrize("begun", [False, True])
def test_what_was_left_empty_is_taken_away(tmp_path: Path, begun: bool) -> None:
    folder = tmp_path / "run" / "fold0"
    with locked(folder):
        if begun:
            (folder / "last.ckpt").touch()
    assert [path.name for path in tmp_path.rglob("*")] == (["run", "fold0", "last.ckpt"] if begun else [])


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_where_there_are_no_locks_it_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    def none(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", none)
    with locked(tmp_path):
        assert not list(tmp_path.iterdir())
    assert capsys.readouterr().out.count("no locks on this file system") == 1


def test_other_trouble_is_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output error"):
        locked(tmp_path).__enter__()
