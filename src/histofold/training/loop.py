"""The training loop, read from top to bottom.

Exact resume: which crops a step sees is a function of (seed, epoch, index), the random numbers of dropout are a
function of (seed, step, rank), the learning rate is a function of the step, and everything else is in `last.ckpt`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils.data import DataLoader

from histofold.config import TrainConfig
from histofold.errors import ConfigError, HistofoldError
from histofold.parallel import cores, single_threaded, unthreaded
from histofold.preprocess import Preprocess
from histofold.progress import bar
from histofold.tiles.dataset import CropDataset
from histofold.tiles.sampler import EpochSampler
from histofold.training.state import Clock, Progress, load, save

PREFETCH = 4
"""Batches that each process draws ahead; they lie in shared memory."""

Batch = dict[str, torch.Tensor]
Validate = Callable[[nn.Module], float]
Report = Callable[[list[dict[str, Any]]], None]


@dataclass
class Parts:
    """What is trained, and what trains it."""

    model: nn.Module
    ema: ModelEmaV3
    optimizer: torch.optim.Optimizer
    schedule: Scheduler
    loss: nn.Module
    preprocess: Preprocess
    memory_format: torch.memory_format = torch.contiguous_format

    def saved(self) -> dict[str, Any]:
        """The parts whose state `last.ckpt` keeps."""
        return {"model": self.model, "ema": self.ema.module, "optimizer": self.optimizer}


def steps_per_epoch(settings: TrainConfig, ranks: int) -> int:
    """Optimiser steps in an epoch; a last batch that is not full is left out.

    Raises:
        ConfigError: there is not one.
    """
    steps = settings.samples_per_epoch // (settings.batch * ranks) // settings.accumulate
    if steps == 0:
        needed = settings.batch * ranks * settings.accumulate
        raise ConfigError(
            f"train.samples_per_epoch={settings.samples_per_epoch}: expected at least {needed}, one step's crops "
            f"(train.batch={settings.batch} × {ranks} processes × train.accumulate={settings.accumulate})"
        )
    return steps


def fit(
    fabric: Fabric,
    parts: Parts,
    dataset: CropDataset,
    settings: TrainConfig,
    seed: int,
    last: Path,
    seen: str,
    foreign: list[str],
    validate: Validate,
    report: Report,
) -> Progress:
    """Train until the last epoch is done, going on from `last` when it exists; the result is `parts.ema`.

    Args:
        seen: digest of the samples that are learned from; `last` must have the same.
        foreign: those that the weights it starts from had seen, kept in `last`.
        validate: EMA network → score; called every `settings.validate_every` epochs.
        report: called with all finished epochs after each one (metrics.csv, curves).

    Raises:
        DataError: `last` is broken, or began with other samples.
        ConfigError: an epoch has too few crops for one step, `last` began on more or fewer processes, or a batch is too
            small for the network's normalisation.
        HistofoldError: loss or gradient are no numbers any more.
    """
    kept = {**parts.saved(), **_scaler(fabric)}
    progress = load(last, kept) if last.exists() else Progress()
    progress.check(last, seen, fabric.world_size)
    progress.seen, progress.foreign, progress.ranks = seen, foreign, fabric.world_size
    if progress.epoch >= settings.epochs and fabric.is_global_zero:
        report(progress.history)  # killed between the last checkpoint and its report
    trained = torch.compile(parts.model) if settings.compile else parts.model
    model, optimizer = fabric.setup(trained, parts.optimizer)
    clock = Clock(settings.checkpoint_minutes)
    batches = steps_per_epoch(settings, fabric.world_size) * settings.accumulate
    sampler = EpochSampler(len(dataset), 0, fabric.global_rank, fabric.world_size)
    loader = fabric.setup_dataloaders(_loader(fabric, dataset, settings, sampler), use_distributed_sampler=False)
    while progress.epoch < settings.epochs:
        sampler.epoch, sampler.first = progress.epoch, progress.batches * settings.batch
        text = f"epoch {progress.epoch + 1}/{settings.epochs}"
        with bar(total=batches, text=text, unit="batch", initial=progress.batches) as shown:
            for batch in _first(loader, batches - progress.batches):
                _train_batch(fabric, model, optimizer, parts, settings, seed, progress, batch, batches)
                shown.update()
                shown.set_postfix(loss=f"{progress.loss_sum / progress.loss_count:.4f}", refresh=False)
                # A checkpoint lies between optimiser steps: half-accumulated gradients are not kept.
                if progress.batches % settings.accumulate == 0 and clock.due() and fabric.is_global_zero:
                    progress.took(clock.lap())
                    save(last, progress, kept)
        _finish_epoch(fabric, parts, settings, progress, clock, validate)
        if fabric.is_global_zero:
            save(last, progress, kept)
            report(progress.history)
    return progress


def _first(loader: Any, count: int) -> Iterator[Batch]:
    batches = islice(loader, count)
    # The loader's processes are forked with the first batch of all.
    with unthreaded():
        first = list(islice(batches, 1))
    yield from first
    yield from batches


def _scaler(fabric: Fabric) -> dict[str, Any]:
    """The scale of half precision's gradients, as a part of `last.ckpt`; nothing in other precisions."""
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    return {} if scaler is None else {"scaler": scaler}


def _loader(
    fabric: Fabric, dataset: CropDataset, settings: TrainConfig, sampler: EpochSampler
) -> DataLoader[Batch]:
    workers = loader_workers(settings)
    return DataLoader(
        dataset,
        batch_size=settings.batch,
        sampler=sampler,
        num_workers=workers,
        drop_last=True,
        pin_memory=fabric.device.type == "cuda",
        worker_init_fn=_start_worker,
        prefetch_factor=PREFETCH if workers else None,
        # They keep the images that they have enhanced; the sampler's keys say which epoch an example is of.
        persistent_workers=workers > 0,
    )


def loader_workers(settings: TrainConfig) -> int:
    """Processes that draw crops: `train.workers`, but no more than there are cores; what is drawn is the same."""
    return min(settings.workers, cores())


def _start_worker(_: int) -> None:
    single_threaded()
    torch.set_num_threads(1)


def _train_batch(
    fabric: Fabric,
    model: Any,
    optimizer: Any,
    parts: Parts,
    settings: TrainConfig,
    seed: int,
    progress: Progress,
    batch: Batch,
    batches: int,
) -> None:
    # Dropout's draws follow from the position alone, so a resumed run repeats them.
    torch.manual_seed(hash((seed, progress.epoch, progress.batches, fabric.global_rank)) % 2**63)
    last_of_step = (progress.batches + 1) % settings.accumulate == 0
    parts.schedule.step_update(progress.step)
    model.train()
    waiting: AbstractContextManager[Any] = nullcontext() if last_of_step else fabric.no_backward_sync(model)
    with waiting:
        image = parts.preprocess.normalise(batch.pop("image")).contiguous(memory_format=parts.memory_format)
        with enough_values(settings):
            raw = model(image)
        loss = parts.loss(raw, batch)
        fabric.backward(loss / settings.accumulate)
    value = float(loss.detach())
    _require_finite("loss", value, progress)
    if last_of_step:
        norm = _gradient_norm(fabric, model, optimizer, parts, settings)
        # In half precision infinite gradients are to be expected: the scaler leaves that step out and scales less.
        if not _scaler(fabric):
            _require_finite("gradient", norm, progress)
        optimizer.step()
        optimizer.zero_grad()
        progress.step += 1
        parts.ema.update(parts.model, progress.step)
    progress.loss_sum += value
    progress.loss_count += 1
    progress.batches += 1


@contextmanager
def enough_values(settings: TrainConfig) -> Iterator[None]:
    """Say which settings to change when a batch is too small for a network.

    Raises:
        ConfigError: a normalisation layer gets one value a channel, which has no spread.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            f"train.batch={settings.batch}, train.crop={settings.crop}: batch normalisation of this network gets one "
            "value a channel and needs more; take a larger train.batch or train.crop"
        ) from error


def _gradient_norm(fabric: Fabric, model: Any, optimizer: Any, parts: Parts, settings: TrainConfig) -> float:
    """Clip the gradients where that is asked for; gives their norm before, 0 where only the norm itself overflows."""
    if settings.clip > 0:
        norm = float(fabric.clip_gradients(model, optimizer, max_norm=settings.clip, error_if_nonfinite=False))
    else:
        norm = float(nn.utils.get_total_norm([one.grad for one in parts.model.parameters() if one.grad is not None]))
    if math.isinf(norm):
        # Where they are clipped, they are 0 by now, or NaN where one was infinite: such a step does no harm.
        clipped = (one.grad for one in parts.model.parameters() if one.grad is not None)
        return 0.0 if all(bool(grad.isfinite().all()) for grad in clipped) else norm
    return norm


def _require_finite(name: str, value: float, progress: Progress) -> None:
    """Stop before weights are changed by what is no number: `last.ckpt` never holds such weights.

    Raises:
        HistofoldError: the value is infinite or none.
    """
    if not math.isfinite(value):
        raise HistofoldError(
            f"the {name} became {value} in epoch {progress.epoch + 1}, batch {progress.batches + 1}; give run=NAME "
            "with a lower optimizer.lr or train.precision=32-true (weights and checkpoint are still those from before)"
        )


def _finish_epoch(
    fabric: Fabric, parts: Parts, settings: TrainConfig, progress: Progress, clock: Clock, validate: Validate
) -> None:
    progress.took(clock.lap())
    due = settings.validate_every > 0 and (progress.epoch + 1) % settings.validate_every == 0
    # The last epoch is scored in full by the OOF predictions right after.
    score = validate(parts.ema.module) if due and progress.epoch + 1 < settings.epochs else None
    samples = progress.loss_count * settings.batch * fabric.world_size
    progress.history.append(
        {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "lr": parts.optimizer.param_groups[0]["lr"],
            "loss": progress.loss_sum / max(1, progress.loss_count),
            "score": score,
            "seconds": round(progress.seconds, 3),
            "images_per_second": round(samples / max(progress.epoch_seconds, 1e-9), 3),
        }
    )
    clock.lap()  # validation is not training time
    progress.epoch += 1
    progress.batches, progress.loss_sum, progress.loss_count, progress.epoch_seconds = 0, 0.0, 0, 0.0
