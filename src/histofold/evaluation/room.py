"""How many processes `evaluate` may use: what tuning on the largest samples side by side needs, beside `limits.*`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from histofold import limits, parallel
from histofold.config import Config
from histofold.inference import planning
from histofold.limits import Plan
from histofold.tiles.planning import WORKER_BYTES
from histofold.workspace import Workspace

EACH = {"instances": 40, "mask": 28, "streamed": 3}
"""Memory for a full-size pixel while a sample is scored: as instances, as a mask that is kept as a label image, and as
the mask of a slide, which is read by rows."""
TUNED = 90
"""Memory for a pixel of the prediction while instances are decoded with all settings; beside the bands of the runs."""
TRUTH, GATHERED = 4, 12
"""Memory for a pixel of every sample while a second level is learned, the truth at full size; and for a pixel of its
prediction: the truth again, the masks of all candidates, and the labels that are kept of them."""
SECONDS = {"instances": 2e-7, "mask": 5e-8, "streamed": 5e-8}
"""Of a core for a full-size pixel that is scored."""
TUNING_SECONDS = 3e-5
"""Of a core for a pixel of the prediction, instances decoded with all settings."""
WRITTEN = 4096
"""Bytes on disk for a sample: its rows of tables, and outlines' extents."""
ADVICE = {
    "memory": "even for one sample after another; cut the largest images into parts, or set limits.memory",
    "disk": "free some, move paths.oof, or set limits.disk",
    "time": "use more processes (evaluate.workers), fewer runs or folds=[0], or raise limits.hours",
}


def fitting(
    workspace: Workspace,
    samples: pd.DataFrame,
    runs: int,
    scale: float = 1.0,
    tune: bool | None = None,
    step: str = "evaluate",
) -> Config:
    """The configuration with as many `evaluate.workers` as there is memory for; says so where these are fewer.

    Args:
        samples: those that are scored, rows of folds.csv.
        runs: how many runs are averaged.
        scale: of their predictions.
        tune: whether settings are tuned; by default `evaluate.tune`.
        step: what it is a part of, for the person who reads it.

    Raises:
        ConfigError: a limit cannot be read.
        ResourceError: not even one fits; says what is short, and what to change.
    """
    config = workspace.config
    held = planning.resident()
    room = limits.of(config.limits, workspace.oof, held)
    asked = max(1, min(config.evaluate.workers or parallel.cores(), len(samples)))
    count = limits.processes(
        asked, lambda count: replace(_plan(workspace, samples, runs, count, held, scale, tune), step=step), room
    )
    return replace(config, evaluate=replace(config.evaluate, workers=count)) if count < asked else config


def left(workspace: Workspace, samples: pd.DataFrame, runs: int, scale: float = 1.0) -> int:
    """Bytes of `limits.memory` beside what scoring with `evaluate.workers` needs; arguments as of `fitting`.

    Raises:
        ConfigError: a limit cannot be read.
    """
    config, held = workspace.config, planning.resident()
    workers = max(1, min(config.evaluate.workers or parallel.cores(), len(samples)))
    needed = _plan(workspace, samples, runs, workers, held, scale, None).peak_memory
    return max(0, limits.of(config.limits, workspace.oof, held).memory - needed)


def _plan(
    workspace: Workspace,
    samples: pd.DataFrame,
    runs: int,
    workers: int,
    held: int,
    scale: float,
    tune: bool | None,
) -> Plan:
    """`plan` of a workspace's samples, as `evaluate.*` asks for it."""
    settings = workspace.config.evaluate
    pixels = [int(size) for size in samples["height"] * samples["width"]]
    # A second level is learned of what was tuned.
    second = tune is None and settings.second_level != "off"
    tuned = settings.tune if tune is None else tune
    return plan(kind_of(workspace), pixels, runs, workers, held, scale, tuned, second)


def kind_of(workspace: Workspace) -> str:
    """What is held of a sample: `instances`, a `mask`, or some rows at a time (`streamed`)."""
    if workspace.competition.truth != "mask":
        return "instances"
    return "mask" if workspace.competition.kind == "images" else "streamed"


def plan(
    kind: str,
    pixels: Sequence[int],
    runs: int,
    workers: int,
    held: int,
    scale: float = 1.0,
    tune: bool = True,
    second: bool = False,
) -> Plan:
    """Estimate what tuning and scoring needs.

    Args:
        kind: as `kind_of` says.
        pixels: of each sample at full size.
        runs: how many runs are averaged.
        workers: processes; one is this process itself.
        held: bytes that this process has already.
        scale: of the predictions, full-size pixels a side of one of theirs.
        tune: whether settings are tuned, or the given ones scored only.
        second: whether a second level is learned.
    """
    instances = kind == "instances" and tune
    # The largest ones may well meet: whoever is done takes the next.
    tuned = (TUNED if instances else 0) + (0 if kind == "streamed" else 4 * runs)
    each = max(EACH[kind], tuned / scale**2)
    memory = held + round(each * sum(sorted(pixels)[-workers:])) + (workers * WORKER_BYTES if workers > 1 else 0)
    memory += round((TRUTH + GATHERED / scale**2) * sum(pixels)) if second else 0
    seconds = (SECONDS[kind] + (TUNING_SECONDS / scale**2 if instances else 0)) * sum(pixels) / workers
    return Plan("evaluate", memory, WRITTEN * len(pixels), seconds, ADVICE)
