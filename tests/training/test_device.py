"""How batches lie in memory: a format whose gradients are right."""

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy
from torch import nn

from histofold import models
from histofold.compose import compose, load
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
