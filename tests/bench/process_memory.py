"""Memory of a process with all that it started: what a verb needs of a machine, worker processes included."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

PROC = Path("/proc")


def tree(root: int) -> list[int]:
    """A process and all that descend from it, those that have ended left out."""
    children = defaultdict(list)
    for folder in PROC.iterdir():
        if folder.name.isdigit() and (parent := _parent(folder)) is not None:
            children[parent].append(int(folder.name))
    found = [root]
    for process in found:
        found += children[process]
    return found


def _parent(folder: Path) -> int | None:
    try:
        # The name, in parentheses, may hold blanks and parentheses of its own.
        return int((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):  # it has ended meanwhile
        return None


def in_use(root: int) -> int:
    """Bytes that a process and its descendants hold at the moment; 0 when they have ended.

    Pages that several of them share count once in all (proportional set size). Where the kernel does not tell that,
    resident memory is added up, which counts them for each.
    """
    return sum(_size(process, "smaps_rollup", "Pss") or _size(process, "status", "VmRSS") for process in tree(root))


def peak_of(process: int) -> int:
    """Bytes of the largest resident memory of one process so far; 0 when it has ended."""
    return _size(process, "status", "VmHWM")


def _size(process: int, file: str, key: str) -> int:
    try:
        lines = (PROC / str(process) / file).read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0)
