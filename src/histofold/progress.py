"""Progress bars with a rate and an estimate of what is left, the same everywhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def bar(
    items: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    text: str = "",
    unit: str = "it",
    initial: int = 0,
) -> tqdm[Any]:
    """A progress bar over `items`, or one moved by hand with `.update(n)` when `items` is None.

    Without a terminal (a log file, CI) it writes a line now and then instead of thousands of carriage returns.
    `HISTOFOLD_QUIET=1` hides it.

    Args:
        items: what to go over.
        total: of all units, also of those done before.
        text: what stands before the bar.
        unit: what is counted.
        initial: units that were done before; rate and estimate leave them out.
    """
    terminal = sys.stderr.isatty()
    return tqdm(
        items,
        total=total,
        initial=initial,
        desc=text,
        unit=unit,
        dynamic_ncols=terminal,
        mininterval=0.2 if terminal else 10.0,
        disable=os.environ.get("HISTOFOLD_QUIET") == "1",
        file=sys.stderr,
    )
