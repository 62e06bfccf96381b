"""Memory of one prediction in a process of its own, as JSON.

    python tests/bench/memory_case.py SLIDE.tif smp cpu

`slide_memory.py` starts it. The allocator is told before any library starts a thread, as `predict` does.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from histofold.allocator import one_arena


def main() -> None:
    """Measure what the command line says and print the result."""
    one_arena()
    # Only now: torch and GDAL start threads.
    import slide_memory

    path, network, device = sys.argv[1:]
    print(json.dumps(asdict(slide_memory.measure(Path(path), slide_memory.member(network, device), device))))


if __name__ == "__main__":
    main()
