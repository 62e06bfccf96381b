"""Device, precision and memory layout: what the machine does best, unless the user says otherwise."""

from __future__ import annotations

import os

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.fabric.strategies import DDPStrategy
from torch import nn

from histofold.config import TrainConfig
from histofold.errors import ConfigError
from histofold.hardware import cpu_has_bf16, gpu_has_bf16

PRECISIONS = ("auto", "32-true", "16-mixed", "bf16-mixed")


def fabric_for(settings: TrainConfig) -> Fabric:
    """Make and launch Fabric; under torchrun the number of processes is torchrun's.

    Raises:
        ConfigError: an unknown precision, a GPU that is not there, or too few tasks of a SLURM job.
    """
    if settings.precision not in PRECISIONS:
        raise ConfigError(f"train.precision={settings.precision}: expected one of {', '.join(PRECISIONS)}")
    if settings.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ConfigError(f"train.accelerator={settings.accelerator}: torch sees no GPU here; use auto or cpu")
    gpu = settings.accelerator != "cpu" and torch.cuda.is_available()
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", settings.devices))
    _check_tasks(devices)
    precision = auto_precision(gpu) if settings.precision == "auto" else settings.precision
    # Some networks have layers that take no part in the loss (PSPNet, EfficientNet, DPT): without the search, several
    # processes would wait for their gradients.
    several = devices > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1
    strategy = DDPStrategy(find_unused_parameters=True) if several else "auto"
    fabric = Fabric(
        accelerator=settings.accelerator,
        devices=devices,
        strategy=strategy,
        precision=precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def _check_tasks(devices: int) -> None:
    """Check that a SLURM job has a task for each device: Fabric starts no processes of its own there.

    It does in a job that is named bash or interactive, and torchrun's processes count before SLURM's.

    Raises:
        ConfigError: it has other tasks.
    """
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return
    machines, tasks = os.environ.get("SLURM_NNODES", "1"), os.environ.get("SLURM_NTASKS_PER_NODE")
    if tasks is None and os.environ["SLURM_NTASKS"] == "1":
        tasks = "1"
    # With one device, each task trains by itself: a fold of its own, perhaps.
    if tasks is not None and (devices == 1 or (tasks == str(devices) and machines == "1")):
        return
    names = ("SLURM_NNODES", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE")
    found = " ".join(f"{name}={os.environ[name]}" for name in names if name in os.environ)
    raise ConfigError(
        f"train.devices={devices}: in a SLURM job expected one machine with --ntasks-per-node={devices}, a task for "
        f"each device, found {found}; with hydra/launcher=slurm add hydra.launcher.tasks_per_node={devices} "
        f"hydra.launcher.gpus_per_node={devices}, without it start `srun --nodes=1 --ntasks-per-node={devices} python "
        f"src/train.py …`, or one task with `torchrun --nproc-per-node={devices} src/train.py …`"
    )


def auto_precision(gpu: bool) -> str:
    """bfloat16 where the processor computes in it, half precision on older GPUs, else single."""
    if gpu:
        return "bf16-mixed" if gpu_has_bf16() else "16-mixed"
    return "bf16-mixed" if cpu_has_bf16() else "32-true"


def scaled(fabric: Fabric) -> bool:
    """Whether gradients carry a scale, in half precision; a fused step would undo it itself, too late for clipping."""
    return str(fabric.strategy.precision.precision) == "16-mixed"


def memory_format(network: nn.Module, fabric: Fabric) -> torch.memory_format:
    """Channels last where convolutions are faster so (GPUs, bfloat16 on CPUs), unless the network asks for planes.

    On a CPU, networks with dilated convolutions get planes: with channels last, torch's bfloat16 kernels give wrong
    gradients for them, infinite ones at some widths (torch 2.15; predictions and other convolutions are right).
    """
    gpu = fabric.device.type == "cuda"
    mixed = gpu or "bf16" in str(fabric.strategy.precision.precision)
    wanted = mixed and getattr(network, "channels_last", True) and (gpu or not _dilated(network))
    return torch.channels_last if wanted else torch.contiguous_format


def _dilated(network: nn.Module) -> bool:
    """Whether any layer says so of itself, with one number or one a side."""
    rates = (getattr(layer, "dilation", 1) for layer in network.modules())
    return any(max(rate) > 1 if isinstance(rate, tuple) else rate > 1 for rate in rates)
