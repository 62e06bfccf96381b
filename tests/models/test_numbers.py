"""The counts that a faithful network has (seed notes 6.6), and the fast DiCE unit against its definition."""

from __future__ import annotations

import pytest
import torch

from histofold import models
from histofold.models.dice import DiceUnit, set_form


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "outputs", "options", "count"),
    [
        ("kidney_segnet", 1, {"size": 512, "decoder": "gated"}, 972_356),
        ("kidney_segnet", 1, {"size": 256, "decoder": "gated"}, 941_764),
        ("fullnet", 3, {}, 1_780_233),
        ("fullnet", 3, {"pooling": True}, 1_780_233),
        ("unet", 1, {}, 31_032_837),
        ("glomerulus_unet", 1, {}, 7_782_913),
        ("unetpp", 1, {}, 32_038_980),
    ],
)
def test_parameter_counts(name: str, outputs: int, options: dict[str, object], count: int) -> None:
    with torch.device("meta"):
        assert parameters(models.build(name, outputs=outputs, **options)) == count


@pytest.mark.parametrize(
    ("sizes", "count"), [((32, 32, 512), 10_880), ((32, 64, 256), 6_912), ((256, 256, 64), 43_136)]
)
def test_dice_unit_parameters(sizes: tuple[int, int, int], count: int) -> None:
    channels, out, side = sizes
    assert parameters(DiceUnit(channels, out, side, side)) == count


@pytest.mark.parametrize("decoder", ["unet", "gated"])
@pytest.mark.parametrize("training", [False, True])
def test_the_fast_form_computes_what_the_plain_form_defines(decoder: str, training: bool) -> None:
    torch.manual_seed(0)
    network = models.build("kidney_segnet", outputs=2, size=32, width=8, decoder=decoder)
    for _ in range(2):  # running statistics that are not those of the start
        network.train()(torch.randn(2, 3, 32, 32))
    state = {key: value.clone() for key, value in network.state_dict().items()}
    image = torch.randn(2, 3, 32, 32)
    results = {}
    for form in ("plain", "auto"):
        network.load_state_dict(state)
        set_form(network, form)
        network.train(training).zero_grad()
        with torch.set_grad_enabled(training):
            raw = network(image)
        if training:
            raw.square().mean().backward()
        gradients = {name: value.grad.clone() for name, value in network.named_parameters() if value.grad is not None}
        buffers = {name: value.clone() for name, value in network.named_buffers()}
        results[form] = (raw.detach(), gradients, buffers)
    plain, fast = results["plain"], results["auto"]
    assert torch.allclose(plain[0], fast[0], atol=1e-4)
    assert plain[1].keys() == fast[1].keys()
    for name, gradient in plain[1].items():
        assert torch.allclose(gradient, fast[1][name], atol=1e-4 * max(1.0, float(gradient.abs().max()))), name
    for name, buffer in plain[2].items():
        assert torch.allclose(buffer.float(), fast[2][name].float(), atol=1e-4), name


@pytest.mark.parametrize(
    ("name", "options"), [("unet", {"width": 4}), ("glomerulus_unet", {"width": 4}), ("fullnet", {})]
)
def test_any_size_goes_in_and_comes_out(name: str, options: dict[str, object]) -> None:
    network = models.build(name, outputs=3, **options).eval()
    side = 4 * max(8, network.divisor)
    with torch.inference_mode():
        assert network(torch.randn(1, 3, side, 2 * side)).shape == (1, 3, side, 2 * side)


def test_deep_supervision_gives_heads_in_training_and_one_tensor_after() -> None:
    network = models.build("unetpp", outputs=1, width=4)
    image = torch.randn(1, 3, 32, 32)
    heads = network.train()(image)
    assert isinstance(heads, tuple)
    assert len(heads) == 4
    assert torch.is_tensor(network.eval()(image))


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_pruned_unetpp_computes_less(depth: int) -> None:
    network = models.build("unetpp", outputs=1, width=4, mode="fast", depth=depth).eval()
    seen: list[str] = []
    for name, layer in network.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda *_, name=name: seen.append(name))
    with torch.inference_mode():
        network(torch.randn(1, 3, 32, 32))
    whole = sum(isinstance(layer, torch.nn.Conv2d) for layer in network.modules())
    assert len(seen) < whole
