"""What several processes that train together do in turn: one works, the others wait for how it went."""

from __future__ import annotations

import sys
from collections.abc import Callable

from lightning.fabric import Fabric


def on_first(fabric: Fabric, work: Callable[[], object]) -> None:
    """Do something on rank 0 alone, while the others wait; it should not take minutes.

    Where it fails, rank 0 raises its error, and the others end without a word: a traceback of each of them would bury
    the line that says what is wrong.

    Raises:
        SystemExit: on the other ranks, with the exit code of rank 0.
    """
    failure: Exception | None = None
    if fabric.is_global_zero:
        try:
            work()
        except Exception as error:
            failure = error
    code = fabric.broadcast(None if failure is None else getattr(failure, "exit_code", 1))
    if failure is not None:
        raise failure
    if code is not None:
        sys.exit(code)
