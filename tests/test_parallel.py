"""Work over processes: what fails alone, and what takes a whole worker with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from histofold.errors import ResourceError
from histofold.parallel import each, workers_end


def halved(value: int) -> int:
    if value % 2:
        raise ValueError(value)
    return value // 2


def killed(value: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return value


@pytest.mark.parametrize("workers", [1, 2])
def test_one_that_fails_does_not_stop_the_others(workers: int) -> None:
    found = dict(each(halved, [2, 3, 4], workers))
    assert (found[2], found[4]) == (1, 2)
    assert isinstance(found[3], ValueError)


def test_a_killed_worker_is_told_with_what_to_do() -> None:
    with pytest.raises(ResourceError, match=r"worker process was killed.*prepare\.workers=1"):
        list(each(killed, [1, 2, 3], 2))


def who(_: int) -> int:
    return os.getpid()


def test_processes_stay_for_the_next_call_and_end_with_their_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    def pids(workers: int, items: int = 8) -> set[int | Exception]:
        return {pid for _, pid in each(who, list(range(items)), workers)}

    with workers_end():
        first = pids(2)
        assert os.getpid() not in first
        assert pids(2) <= first
        assert not pids(3) & first  # more are wanted, so that others are started
        before = pids(2)
        monkeypatch.setenv("HISTOFOLD_DRAWN", "1")  # they would not see it
        assert not pids(2) & before
        last = pids(2)
    assert not pids(2) & last


def test_after_a_killed_worker_the_next_call_has_others() -> None:
    with workers_end():
        with pytest.raises(ResourceError):
            list(each(killed, [1, 2, 3], 2))
        assert sorted(value for _, value in each(halved, [2, 4], 2)) == [1, 2]  # type: ignore[type-var]


def test_a_worker_that_is_killed_while_idle_is_replaced() -> None:
    with workers_end():
        pids = {pid for _, pid in each(who, list(range(8)), 2)}
        os.kill(next(pid for pid in pids if isinstance(pid, int)), signal.SIGKILL)
        time.sleep(0.5)
        assert len(list(each(who, [1, 2, 3], 2))) == 3


def test_one_call_that_ends_early_leaves_another_alone() -> None:
    with workers_end():
        first, second = each(who, list(range(6)), 2), each(who, list(range(30)), 2)
        next(first)
        next(second)
        first.close()
        assert len(list(second)) == 29
        assert len(list(each(who, [1, 2], 2))) == 2


PARENT = """
import os, sys, time
sys.path[:0] = [{here!r}, {source!r}]
from histofold.parallel import each
from test_parallel import who

def slow(value):
    print(os.getpid(), flush=True)
    time.sleep(100)

if __name__ == "__main__":
    if {busy}:
        list(each(slow, [0, 1], 2))
    list(each(who, list(range(20)), 2))  # and now they wait for more
    from histofold.parallel import _Kept
    print(*_Kept.pool._processes, sep="\\n", flush=True)
    time.sleep(100)
"""


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie that nobody has asked for its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="Linux tells whether a process is there")
@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path, how: int, busy: bool) -> None:
    here = Path(__file__).parent
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(here=str(here), source=str(here.parent / "src"), busy=busy))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, cwd=tmp_path) as parent:
        try:
            assert parent.stdout is not None
            pids = [int(parent.stdout.readline()) for _ in range(2)]
            assert all(map(runs, pids))
            parent.send_signal(how)
            parent.wait()
            end = time.monotonic() + 5
            while any(map(runs, pids)) and time.monotonic() < end:
                time.sleep(0.05)
            assert not any(map(runs, pids))
        finally:
            parent.kill()
            for pid in filter(runs, pids):
                os.kill(pid, signal.SIGKILL)
