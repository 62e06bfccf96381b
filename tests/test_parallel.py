"""Work over processes: what fails alone, and what takes a whole worker with it."""

from __future__ import annotations

import os
import signal

import pytest

from histofold.errors import ResourceError
from histofold.parallel import each


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
