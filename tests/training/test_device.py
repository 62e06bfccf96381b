"""How batches lie in memory: a format whose gradients are right."""

import os

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy
from torch import nn

from histofold import models
from histofold.compose import compose, load
from histofold.errors import ConfigError
from histofold.training import device
from histofold.training.device import memory_format

BFLOAT = "bf16-mixed"


def on_cpu(precision: str = BFLOAT) -> Fabric:
    return Fabric(accelerator="cpu", devices=1, precision=precision)  # type: ignore[arg-type]


def test_plain_networks_have_channels_last_where_the_cpu_computes_in_bfloat16() -> None:
    network = models.build("smp", outputs=1, encoder="resnet18", weights="none")
    assert memory_format(network, on_cpu()) == torch.channels_last
    assert memory_format(network, on_cpu("32-true")) == torch.contiguous_format


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fullnet", {}),
        ("kidney_segnet", {"size": 64, "width": 8}),
        ("smp", {"arch": "DeepLabV3Plus", "encoder": "resnet18", "weights": "none"}),
    ],
)
def test_networks_with_dilated_convolutions_have_planes_on_a_cpu(name: str, options: dict[str, object]) -> None:
    assert memory_format(models.build(name, outputs=1, **options), on_cpu()) == torch.contiguous_format


def test_a_network_may_ask_for_planes() -> None:
    network = nn.Conv2d(3, 8, 3)
    network.channels_last = False  # type: ignore[assignment]
    assert memory_format(network, on_cpu()) == torch.contiguous_format


@pytest.mark.parametrize("groups", [1, 24])
def test_a_dilated_layers_gradients_are_those_of_single_precision(groups: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(24, 24, 3, padding=4, dilation=4, groups=groups)
    wanted = memory_format(layer, on_cpu())
    layer, x = layer.to(memory_format=wanted), torch.randn(2, 24, 40, 40).contiguous(memory_format=wanted)
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = layer(x).float().square().sum()
        found.append(torch.autograd.grad(loss, layer.weight)[0].flatten())
    assert nn.functional.cosine_similarity(*found, dim=0) > 0.99


def test_fullnets_gradients_are_finite_in_bfloat16() -> None:
    """With channels last, the weights of its dilated layers got infinite ones in the first step."""
    torch.manual_seed(0)
    network = models.build("fullnet", outputs=3, growth=8, pooling=True)
    wanted = memory_format(network, on_cpu())
    network, x = network.to(memory_format=wanted), torch.randn(2, 3, 64, 64).contiguous(memory_format=wanted)
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(x).float().square().mean()
    assert all(torch.isfinite(found).all() for found in torch.autograd.grad(loss, list(network.parameters())))


@pytest.mark.parametrize(("ranks", "searched"), [("1", False), ("2", True)])
def test_several_processes_look_for_layers_that_take_no_part(
    monkeypatch: pytest.MonkeyPatch, ranks: str, searched: bool
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    monkeypatch.setattr(device.Fabric, "launch", lambda self: None)
    strategy = device.fabric_for(load(compose(["train.accelerator=cpu"])).train).strategy
    assert isinstance(strategy, DDPStrategy) == searched
    assert getattr(strategy, "_ddp_kwargs", {}).get("find_unused_parameters", False) == searched


JOB = {"NTASKS": "1", "JOB_NAME": "x", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
TORCHRUN = {"RANK": "0", "GROUP_RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"}
TORCHRUN |= {"TORCHELASTIC_RUN_ID": "x"}


@pytest.fixture
def in_job(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """In a SLURM job of one task, whatever this test runs in."""
    for name in [name for name in os.environ if name.startswith("SLURM_")] + list(TORCHRUN):
        monkeypatch.delenv(name, raising=False)
    for name, value in JOB.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return monkeypatch


def launched(devices: int) -> Fabric:
    return device.fabric_for(load(compose(["train.accelerator=cpu", f"train.devices={devices}"])).train)


@pytest.mark.parametrize(
    ("given", "devices", "found"),
    [
        ({"NTASKS_PER_NODE": "1"}, 2, "SLURM_NTASKS=1 SLURM_NTASKS_PER_NODE=1"),
        ({}, 2, "SLURM_NTASKS=1"),
        ({"NTASKS": "2"}, 2, "SLURM_NTASKS=2"),
        ({"NTASKS": "2"}, 1, "SLURM_NTASKS=2"),
        ({"NTASKS": "4", "NTASKS_PER_NODE": "2", "NNODES": "2"}, 2, "SLURM_NNODES=2 SLURM_NTASKS=4 SLURM_NTASKS_PER_N"),
    ],
    ids=["launcher", "srun", "ntasks", "one device", "machines"],
)
def test_a_slurm_job_with_other_tasks_than_devices_is_told_what_to_ask_for(
    in_job: pytest.MonkeyPatch, given: dict[str, str], devices: int, found: str
) -> None:
    for name, value in given.items():
        in_job.setenv(f"SLURM_{name}", value)
    with pytest.raises(ConfigError, match=f"--ntasks-per-node={devices}, a task for each device, found {found}") as e:
        launched(devices)
    assert f"hydra.launcher.tasks_per_node={devices} " in str(e.value)


@pytest.mark.parametrize(
    ("given", "devices"),
    [
        ({"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}, 2),
        ({"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}, 1),
        ({}, 1),
        ({"SLURM_JOB_NAME": "bash"}, 2),
        ({"SLURM_JOB_NAME": "interactive", "SLURM_NTASKS_PER_NODE": "1"}, 2),
        (TORCHRUN, 1),
    ],
    ids=["tasks", "a fold each", "alone", "bash", "interactive", "torchrun"],
)
def test_a_slurm_job_with_a_task_for_each_device_is_launched(
    in_job: pytest.MonkeyPatch, given: dict[str, str], devices: int
) -> None:
    for name, value in given.items():
        in_job.setenv(name, value)
    in_job.setattr(device.Fabric, "launch", lambda self: None)
    assert isinstance(launched(devices).strategy, DDPStrategy) == (devices == 2 or given is TORCHRUN)
