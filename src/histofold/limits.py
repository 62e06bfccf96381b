"""What a step will need and what there is: refused with advice before it starts, not killed in the middle."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from histofold.config import LimitsConfig
from histofold.errors import ConfigError, ResourceError

GB = 1_000_000_000
KAGGLE = {"memory": 29 * GB, "disk": 20 * GB, "gpu": 16 * GB, "hours": 9.0}
"""Frame of a Kaggle notebook with one GPU."""
UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
SHARED = Path("/dev/shm")
"""Where Linux keeps memory that processes share; containers have 64 MB of it unless they are given more."""
UNLIMITED = 1 << 60
"""What cgroup v1 reports where nothing is limited is a little below 2 ** 63."""


@dataclass(frozen=True)
class Limits:
    """What a step may use: bytes of memory and disk, seconds (None: as long as it takes), and bytes of GPU memory.

    `shared` is how much of `memory` processes may hand to one another: Linux limits it; None elsewhere.
    """

    memory: int
    disk: int
    seconds: float | None = None
    gpu: int | None = None
    shared: int | None = None


@dataclass(frozen=True)
class Plan:
    """What a step is expected to need.

    Attributes:
        step: its name.
        peak_memory, disk: bytes; over all processes, and written.
        seconds: wall time.
        gpu: bytes of GPU memory; 0 where nothing was measured on one.
        shared: bytes of `peak_memory` that processes hand to one another through `SHARED`.
        advice: what to change when `memory`, `disk` or `time` is short, by that key; there are defaults.
    """

    step: str
    peak_memory: int
    disk: int
    seconds: float
    advice: dict[str, str] = field(default_factory=dict)
    gpu: int = 0
    shared: int = 0

    def check(self, limits: Limits) -> None:
        """Print the plan beside the limits.

        Raises:
            ResourceError: it does not fit; says what is short, by how much, and what to change.
        """
        print(self.line(limits))
        for name, need, have in self._demands(limits):
            if have is not None and need > have:
                shown = _duration if name == "time" else _size
                advice = self.advice.get(name, ADVICE[name])
                raise ResourceError(f"{self.step} would need {name} {shown(need)} and there is {shown(have)}; {advice}")

    def line(self, limits: Limits) -> str:
        """The plan in one line."""
        parts = []
        for name, need, have in self._demands(limits):
            shown = _duration if name == "time" else _size
            parts.append(f"{name} about {shown(need)}" + (f" of {shown(have)}" if have is not None else ""))
        return f"{self.step}: {', '.join(parts)}"

    def _demands(self, limits: Limits) -> list[tuple[str, float, float | None]]:
        return [
            ("memory", self.peak_memory, limits.memory),
            ("disk", self.disk, limits.disk),
            ("time", self.seconds, limits.seconds),
            *([("GPU memory", self.gpu, limits.gpu)] if self.gpu else []),
            *([("shared memory", self.shared, limits.shared)] if self.shared and limits.shared is not None else []),
        ]


ADVICE = {
    "memory": "use fewer workers (prepare.workers=1), a smaller tile or a larger scale, or set limits.memory",
    "disk": "free some, move paths.prepared, take a larger prepare.scale or fewer prepare.grids, or set limits.disk",
    "GPU memory": "take a smaller predict.batch, predict.tile or fewer members",
    "shared memory": f"use fewer processes, or give the container more of {SHARED} (docker run --shm-size=2g)",
    "time": "split the work over machines with shard=i/n, take a larger scale, or raise limits.hours",
}
"""What to change when something is short, unless the plan knows better."""


def of(config: LimitsConfig, folder: Path, held: int = 0) -> Limits:
    """The limits that a configuration asks for.

    Args:
        config: what is asked for.
        folder: where the step writes.
        held: bytes that this process has already and that the step's plan counts, too. What is found as available is
            without them, so that they would be missing twice; a limit that was given holds for all of the step.

    Raises:
        ConfigError: a size that cannot be read.
    """
    memory = _resolve("memory", config.memory)
    disk = _resolve("disk", config.disk)
    kaggle = "kaggle" in (config.memory, config.disk)
    hours = config.hours or (KAGGLE["hours"] if kaggle else 0.0)
    return Limits(
        available_memory() + held if memory is None else memory,
        available_disk(folder) if disk is None else disk,
        hours * 3600 if hours else None,
        int(KAGGLE["gpu"]) if kaggle else None,
        available_disk(SHARED) if SHARED.is_dir() else None,
    )


def _resolve(name: str, text: str) -> int | None:
    """A size in bytes, None for `auto`."""
    if text == "auto":
        return None
    return int(KAGGLE[name]) if text == "kaggle" else size(text, f"limits.{name}")


def size(text: str, key: str = "size") -> int:
    """Read a size: `13G` and `13 GB` are 13e9 bytes, `13Gi` and `13 GiB` are 13 × 2³⁰.

    Raises:
        ConfigError: not a size.
    """
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([kmgt]?i?)b?\s*", str(text).lower())
    if not found or found[2] not in UNITS:
        raise ConfigError(f"{key}={text}: expected auto, kaggle, or a size such as 13G or 800 MB")
    return int(float(found[1]) * UNITS[found[2]])


def available_disk(folder: Path) -> int:
    """Free bytes of the disk that `folder` is on, or will be on."""
    folder = Path(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def available_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that can still be used: the machine's, or the container's if that is less (cgroup v1 and v2).

    Args:
        root: where /proc and /sys are found.
    """
    return min([_machine(root), *_containers(root)])


def _machine(root: Path) -> int:
    try:
        text = (root / "proc/meminfo").read_text()
    except OSError:  # not Linux: half of what is built in is a guess that has not harmed yet
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in text.splitlines() if line.endswith("kB")}
    return values.get("MemAvailable", values.get("MemFree", 0))


def _containers(root: Path) -> list[int]:
    """What is left in each control group that this process is in, from its own up to the root."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    left: list[int] = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            names = ("memory.max", "memory.current", "inactive_file")
            for base in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
                left += _groups(root / base, path, names)
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            left += _groups(root / "sys/fs/cgroup/memory", path, names)
    return left


def _groups(base: Path, path: str, names: tuple[str, str, str]) -> list[int]:
    """Left in the group `path` and its parents. In a container the path is the host's: then only the root is there."""
    limit_name, usage_name, cache_name = names
    left = []
    folder = base / path.strip("/")
    while True:
        limit = _number(folder / limit_name)
        if limit is not None and limit < UNLIMITED:
            # Cached file pages count as used but are given back when they are needed.
            used = (_number(folder / usage_name) or 0) - _statistic(folder / "memory.stat", cache_name)
            left.append(max(0, limit - max(0, used)))
        if folder == base:
            return left
        folder = folder.parent


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # absent, or `max`
        return None


def _statistic(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), 0)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB" if count < 999.5 else f"{count / 1000:.3g} TB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def processes(asked: int, plan: Callable[[int], Plan], room: Limits) -> int:
    """How many of `asked` processes there is memory for, one at least; prints the plan, and says so where it is fewer.

    Args:
        asked: processes that are wanted.
        plan: processes → what they need.
        room: what there is.

    Raises:
        ResourceError: not even one fits.
    """
    plans = {count: plan(count) for count in range(asked, 0, -1)}
    count = next((count for count, found in plans.items() if found.peak_memory <= room.memory), 1)
    plans[count].check(room)
    if count < asked:
        print(f"{plans[count].step}: {count} of {asked} processes, as there is no memory for more")
    return count
