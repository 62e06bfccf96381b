"""What `train` will need: one step is tried out on copies, so that nothing of the training moves, before the first."""

from __future__ import annotations

import copy
import os
import pickle
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.fabric import Fabric
from torch import nn
from torch.utils.data import default_collate

from histofold import limits
from histofold.config import Config, TrainConfig
from histofold.errors import ResourceError
from histofold.evaluation import room
from histofold.inference import planning
from histofold.inference.member import Member
from histofold.inference.planning import SampleSize
from histofold.inference.predict import is_done, tag
from histofold.limits import Plan
from histofold.options import OptimizerOptions
from histofold.sources import size_of
from histofold.tiles.dataset import KEPT, CropDataset
from histofold.training.device import scaled
from histofold.training.loop import PREFETCH, Parts, loader_workers, steps_per_epoch
from histofold.training.oof import jobs_of, settings_of
from histofold.training.optim import build_optimizer
from histofold.workspace import Workspace

LOOKED_AT = 4
"""Crops that are drawn to see how long one takes; a batch is filled up with them."""
LOADER_BYTES = 200 << 20
"""What a process that draws crops holds of its own, beside its batches and what it shares with this one."""
ADVICE = {
    "memory": "take a smaller train.batch (train.accumulate makes up for it), train.crop or train.workers, or set "
    "limits.memory",
    "disk": "free some, move paths.oof, or set limits.disk",
    "GPU memory": "take a smaller train.batch (train.accumulate makes up for it) or train.crop",
    "shared memory": "take fewer train.workers (0: this process draws crops itself), a smaller train.batch or "
    f"train.crop, or give the container more of {limits.SHARED} (docker run --shm-size=2g)",
    "time": "take fewer train.epochs or train.samples_per_epoch, more processes, or raise limits.hours; a run that is "
    "stopped goes on with the same command",
}


@dataclass(frozen=True)
class Step:
    """One batch, tried out.

    Attributes:
        seconds: for the batch, with the crops that no other process draws meanwhile.
        peak: resident memory at its peak, without what only the trial needs.
        kept: bytes of gradients and of the optimiser, which stay between steps.
        optimizer: bytes of the optimiser's state.
        gpu: the most GPU memory.
        batch: bytes of the batch as it is drawn.
    """

    seconds: float
    peak: int
    kept: int
    optimizer: int
    gpu: int = 0
    batch: int = 0


def require_room(
    config: Config,
    workspace: Workspace,
    fabric: Fabric,
    parts: Parts,
    dataset: CropDataset,
    folder: Path,
    held_out: pd.DataFrame,
    member: Callable[[nn.Module], Member],
) -> None:
    """Print what is left of a fold beside `limits.*`; see `plan`.

    Raises:
        ConfigError: a limit cannot be read.
        ResourceError: it does not fit; says what is short, and what to change.
    """
    sizes = [size_of(workspace.competition, workspace.sample(str(sample_id))) for sample_id in held_out["sample_id"]]
    held = planning.resident() * local_ranks(fabric)
    kind = room.kind_of(workspace)
    plan(config, fabric, parts, dataset, folder, sizes, member, kind).check(limits.of(config.limits, folder, held))


def require_room_to_predict(
    workspace: Workspace, fabric: Fabric, folder: Path, held_out: pd.DataFrame, member: Member, fingerprint: str
) -> None:
    """Print what the predictions that are still to be made need beside `limits.*`; nothing where all are there.

    Args:
        folder: of the fold.
        member: the trained network.
        fingerprint: of finished predictions.

    Raises:
        ConfigError: a limit cannot be read.
        ResourceError: it does not fit; says what is short, and what to change.
    """
    config = workspace.config
    jobs = jobs_of(workspace, held_out, folder / "predictions")
    todo = [job.sample_id for job in jobs if not is_done(job.out, tag(fingerprint, job.stamp))]
    if not todo:
        return
    sizes = [size_of(workspace.competition, workspace.sample(sample_id)) for sample_id in todo]
    settings = replace(settings_of(config), device=str(fabric.device))
    found = planning.plan(sizes, workspace.recipe.scale, [member], settings)
    ranks = local_ranks(fabric)
    needed = replace(
        found,
        step="train, predictions only",
        peak_memory=ranks * found.peak_memory,
        seconds=found.seconds / fabric.world_size,
        advice={**found.advice, "disk": ADVICE["disk"], "time": ADVICE["time"]},
    )
    needed.check(limits.of(config.limits, folder, planning.resident() * ranks))


def plan(
    config: Config,
    fabric: Fabric,
    parts: Parts,
    dataset: CropDataset,
    folder: Path,
    held_out: Sequence[SampleSize],
    member: Callable[[nn.Module], Member],
    kind: str,
) -> Plan:
    """Estimate memory, disk and time of what is left of a fold; the memory is that of this machine's processes.

    Random numbers, weights and statistics stay as they are.

    Args:
        parts, dataset: of the training.
        folder: the fold's; its `last.ckpt` says what is done already.
        held_out: what is predicted at the end, and after every `train.validate_every` epochs.
        member: network → member, as it will predict.
        kind: what is held of a sample that is scored, see `room.kind_of`.

    Raises:
        ResourceError: the GPU's memory does not suffice for a batch.
    """
    settings = config.train
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        step = try_out(config, fabric, parts, dataset)
        predicted = member(copy.deepcopy(parts.ema.module))
        scale = predicted.spec.scale if predicted.spec else 1.0
        predicting = replace(settings_of(config), device=str(fabric.device))
        prediction = planning.plan(held_out, scale, [predicted], predicting)
    last = folder / "last.ckpt"
    done = batches_done(last)
    batches = steps_per_epoch(settings, fabric.world_size) * settings.accumulate
    seconds = max(0.0, settings.epochs * batches - done[0] * batches - done[1]) * step.seconds
    rounds = 1 + _validations(settings, done[0])
    # A checkpoint is written beside the one before it.
    whole = 2 * state_bytes(parts.model) + step.optimizer
    disk = whole * (1 if last.exists() else 2) + state_bytes(parts.model) + prediction.disk
    # Each has its batches ahead finished, and the crops of one more in hand.
    own = LOADER_BYTES + (KEPT if dataset.preprocess.enhances else 0)
    workers = loader_workers(settings)
    loaders = workers * (own + (PREFETCH + 1) * step.batch)
    pixels = [one.height * one.width for one in held_out]
    scoring = room.plan(kind, pixels, 1, 1, planning.resident(), scale, tune=False)
    peak = loaders + max(step.peak, prediction.peak_memory + step.kept, scoring.peak_memory + step.kept)
    gpu = max(step.gpu, prediction.gpu)
    seconds += rounds * prediction.seconds / fabric.world_size
    ranks = local_ranks(fabric)
    # The one that is learned from lies there, too, until it is done with.
    shared = (workers * PREFETCH + 1) * step.batch if workers else 0
    return Plan("train", ranks * peak, int(disk), seconds, dict(ADVICE), gpu, ranks * shared)


def local_ranks(fabric: Fabric) -> int:
    """Processes of the training on this machine."""
    return min(fabric.world_size, int(os.environ.get("LOCAL_WORLD_SIZE", fabric.world_size)))


def try_out(config: Config, fabric: Fabric, parts: Parts, dataset: CropDataset) -> Step:
    """Train a copy of the network for two steps on crops of the first epoch; the second one counts.

    Raises:
        ResourceError: the GPU's memory does not suffice.
    """
    settings = config.train
    drawing, batch = _batch(dataset, settings.batch)
    network, loss = copy.deepcopy(parts.model), copy.deepcopy(parts.loss)
    weights = state_bytes(network)
    gpu = fabric.device.type == "cuda"
    planning.forget_peak()
    if gpu:
        torch.cuda.reset_peak_memory_stats(fabric.device)
    try:
        stepper = build_optimizer(network, OptimizerOptions(**config.optimizer), fused=not scaled(fabric))
        _step(fabric, parts, network, loss, stepper, batch)
        start = time.perf_counter()
        _step(fabric, parts, network, loss, stepper, batch)
        seconds = time.perf_counter() - start
    except torch.OutOfMemoryError as error:
        raise ResourceError(f"train needs more GPU memory for a batch than there is; {ADVICE['GPU memory']}") from error
    state = sum(_bytes(value) for values in stepper.state.values() for value in values.values())
    kept = state + sum(_bytes(value) for value in network.parameters() if value.requires_grad)
    most = torch.cuda.max_memory_reserved(fabric.device) - weights if gpu else 0
    peak = planning.resident_peak() - (0 if gpu else weights)
    drawing *= settings.batch
    workers = loader_workers(settings)
    seconds = max(seconds, drawing / workers) if workers else seconds + drawing
    drawn = sum(_bytes(value) for value in batch.values())
    return Step(seconds, peak, 0 if gpu else kept, state, most, drawn)


def _batch(dataset: CropDataset, count: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Seconds for a crop, in the median, and a batch of the first few."""
    dataset[(0, 0)]  # the first one compiles kernels and opens files
    crops, seconds = [], []
    for index in range(min(LOOKED_AT, count, len(dataset))):
        start = time.perf_counter()
        crops.append(dataset[(0, index)])
        seconds.append(time.perf_counter() - start)
    # What one of them compiles for all that follow is no part of it.
    return statistics.median(seconds), default_collate(list(islice(cycle(crops), count)))


def _step(
    fabric: Fabric,
    parts: Parts,
    network: nn.Module,
    loss: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: dict[str, torch.Tensor],
) -> None:
    """One step as the loop makes it."""
    network.train()
    truth = {name: value.to(fabric.device) for name, value in batch.items()}
    image = parts.preprocess.normalise(truth.pop("image")).contiguous(memory_format=parts.memory_format)
    with fabric.autocast():
        outputs = network(image)
    value = loss(fabric.strategy.precision.convert_output(outputs), truth)
    value.backward()
    float(value.detach())  # waits for a GPU
    optimizer.step()
    optimizer.zero_grad()


def batches_done(last: Path) -> tuple[int, int]:
    """Epochs that are finished, and batches of the next one; none where there is no checkpoint that can be read."""
    with suppress(OSError, KeyError, TypeError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        # Mapped, so that nothing but the few numbers is read; whoever goes on from it says what is wrong with it.
        progress: dict[str, Any] = torch.load(last, map_location="cpu", weights_only=True, mmap=True)["progress"]
        return int(progress["epoch"]), int(progress["batches"])
    return 0, 0


def _validations(settings: TrainConfig, done: int) -> int:
    """Validations that are still to come; the last epoch has none."""
    every = settings.validate_every
    return sum((epoch + 1) % every == 0 for epoch in range(done, settings.epochs - 1)) if every > 0 else 0


def state_bytes(network: nn.Module) -> int:
    """Bytes of a network's weights and statistics."""
    return sum(_bytes(value) for value in network.state_dict().values())


def _bytes(value: object) -> int:
    return value.numel() * value.element_size() if isinstance(value, torch.Tensor) else 0
