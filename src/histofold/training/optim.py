"""Optimiser and learning-rate schedule from the configuration; both are timm's and torch's."""

from __future__ import annotations

from functools import partial

import torch
from timm.optim import create_optimizer_v2, muon
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn

from histofold.errors import ConfigError
from histofold.hardware import cpu_has_bf16
from histofold.options import OptimizerOptions

FUSED = ("adam", "adamw")
"""Optimisers of torch whose step can be a single pass over each parameter, on GPUs and on CPUs."""


def build_optimizer(model: nn.Module, options: OptimizerOptions, fused: bool = False) -> torch.optim.Optimizer:
    """Make the optimiser for a model's parameters.

    Args:
        fused: step in a single pass where the optimiser can (`FUSED`) and the options do not say otherwise: on a CPU
            a quarter of the time, of a ResNet-18 and batches of 16 crops of 128² a tenth of all.

    Raises:
        ConfigError: timm knows no such optimiser, or it does not take one of the options.
    """
    if not next(model.parameters()).is_cuda and not cpu_has_bf16():
        orthogonalise_in_single_precision()
    single = {"fused": True} if fused and options.name in FUSED and "foreach" not in options.options else {}
    try:
        return create_optimizer_v2(
            model,
            opt=options.name,
            lr=options.lr,
            weight_decay=options.weight_decay,
            filter_bias_and_bn=not options.decay_all,
            **{**single, **options.options},
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(f"optimizer.name={options.name}: {error}; see timm.optim.list_optimizers()") from error


def orthogonalise_in_single_precision() -> None:
    """Have timm's Muon orthogonalise in float32 from now on.

    It does so in bfloat16 and takes no word for it. A processor without that type emulates it: 330 ms for one iteration
    on a matrix of 256 × 2,304, where float32 takes 15.
    """
    if not isinstance(muon.zeropower_via_newtonschulz, partial):
        muon.zeropower_via_newtonschulz = partial(muon.zeropower_via_newtonschulz, dtype=torch.float32)


def build_schedule(
    optimizer: torch.optim.Optimizer, options: OptimizerOptions, steps: int, steps_per_epoch: int
) -> Scheduler:
    """Make the schedule over `steps` optimiser steps; `schedule.step_update(n)` is a pure function of n.

    Raises:
        ConfigError: an unknown schedule.
    """
    warmup = round(options.warmup * steps)
    common = {"warmup_t": warmup, "warmup_lr_init": options.lr * 0.01, "t_in_epochs": False}
    if options.schedule == "cosine":
        # With the prefix the cosine begins where the warm-up ends instead of part of the way down.
        return CosineLRScheduler(
            optimizer,
            t_initial=max(1, steps - warmup),
            lr_min=options.lr * options.final,
            warmup_prefix=True,
            **common,
        )
    if options.schedule == "step" and options.times > 0:
        # timm counts from one here, and from zero in the schedule above.
        falls = [options.every * steps_per_epoch * number + 1 for number in range(1, options.times + 1)]
        return MultiStepLRScheduler(optimizer, decay_t=falls, decay_rate=options.factor, **common)
    if options.schedule == "step":
        return StepLRScheduler(optimizer, decay_t=options.every * steps_per_epoch, decay_rate=options.factor, **common)
    if options.schedule == "constant":
        return StepLRScheduler(optimizer, decay_t=max(1, steps), decay_rate=1.0, **common)
    raise ConfigError(f"optimizer.schedule={options.schedule}: expected cosine, step or constant")
