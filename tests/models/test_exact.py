"""What a network computes, beyond its counts: arithmetic, reach, shifts, modes, precision, repetition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from histofold import models
from histofold.models.dice import DiceUnit, set_form

SMALL: dict[str, dict[str, Any]] = {
    "kidney_segnet": {"size": 32, "width": 4},
    "fullnet": {"growth": 4},
    "unet": {"width": 4, "norm": "batch"},
    "glomerulus_unet": {"width": 4},
    "unetpp": {"width": 4},
    "smp": {"encoder": "tu-test_resnet"},
}


def made(name: str, seed: int = 0, **options: Any) -> torch.nn.Module:
    """A small network with outputs of ordinary size, whose norms have seen data; in train mode."""
    torch.manual_seed(seed)
    network = models.build(name, outputs=2, **{**SMALL[name], **options})
    with torch.no_grad():
        for key, value in network.named_parameters():
            if "head" in key and value.ndim == 4:
                value.normal_(std=0.3)
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 0.9
        for _ in range(3):
            network.train()(batch(name, 2))
    return network


def batch(name: str, count: int, seed: int = 1) -> torch.Tensor:
    side = 64 if name == "smp" else 32
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def gmac(network: torch.nn.Module, side: int) -> float:
    """Multiply-accumulates of all (transposed) convolutions at side × side, in 10⁹; nothing is computed."""
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        network.eval()(torch.empty(1, 3, side, side, device="meta"))
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize(
    ("name", "outputs", "options", "side", "expected"),
    [
        ("kidney_segnet", 1, {"size": 512, "decoder": "gated"}, 512, 7.272),
        ("kidney_segnet", 1, {"size": 256, "decoder": "gated"}, 256, 1.818),
        ("fullnet", 3, {}, 256, 116.42),
        ("fullnet", 3, {}, 208, 76.85),
        ("fullnet", 3, {"pooling": True}, 208, 22.66),
        ("unet", 1, {}, 256, 48.24),
        ("glomerulus_unet", 1, {}, 192, 23.85),
        ("glomerulus_unet", 1, {}, 256, 42.40),
        ("unetpp", 1, {}, 256, 94.89),
    ],
)
def test_arithmetic(name: str, outputs: int, options: dict[str, Any], side: int, expected: float) -> None:
    with torch.device("meta"):
        network = models.build(name, outputs=outputs, **options)
    digits = 3 if expected < 10 else 2
    assert round(gmac(network, side), digits) == expected


def test_fullnet_has_the_papers_channel_chain() -> None:
    with torch.device("meta"):
        network = models.build("fullnet", outputs=3)
    chain = [network.stem[0].out_channels, *(block[1][0].out_channels for block in network.blocks)]
    assert chain == [24, 84, 114, 129, 136, 140, 142, 143]


@pytest.mark.parametrize("shape", [(1, 445), (445, 1)])
@pytest.mark.parametrize("hybrid", [True, False])
def test_an_output_of_fullnet_sees_437_pixels_each_way(hybrid: bool, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = models.build("fullnet", outputs=1, growth=2, hybrid=hybrid).double().eval()
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):  # no two paths may cancel
            torch.nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
    image = torch.ones(1, 3, *shape, dtype=torch.float64, requires_grad=True)
    network(image).flatten()[222].backward()
    assert image.grad is not None
    where = (image.grad.flatten(2).abs().sum((0, 1)) > 0).nonzero().flatten()
    assert (int(where[0]), int(where[-1])) == (222 - 218, 222 + 218)


@pytest.mark.parametrize(
    ("name", "options", "shift", "side", "margin"),
    [
        ("fullnet", {"growth": 2}, 1, 480, 222),
        ("unet", {}, 16, 288, 112),
        ("unetpp", {}, 16, 288, 112),
    ],
)
def test_a_shifted_image_gives_a_shifted_output(
    name: str, options: dict[str, Any], shift: int, side: int, margin: int
) -> None:
    network = made(name, **options).eval()
    wide = torch.randn(1, 3, side, side + shift, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        left, right = network(wide[..., :side]), network(wide[..., shift:])
    rows = slice(margin, side - margin)
    one, other = left[..., rows, margin + shift : side - margin], right[..., rows, margin : side - margin - shift]
    assert torch.allclose(one, other, atol=1e-4 * float(one.abs().max()))
    assert float(one.std()) > 1e-3


def test_a_dice_unit_knows_where_it_is() -> None:
    torch.manual_seed(0)
    unit = DiceUnit(8, 8, 32, 32).eval()
    wide = torch.randn(1, 8, 32, 36)
    with torch.inference_mode():
        left, right = unit(wide[..., :32]), unit(wide[..., 4:])
    assert not torch.allclose(left[..., 8:28], right[..., 4:24], atol=1e-2), "rows and columns own kernels"


@pytest.mark.parametrize("name", sorted(SMALL))
def test_in_eval_mode_an_image_does_not_know_its_neighbours(name: str) -> None:
    network, images = made(name).eval(), batch(name, 3)
    with torch.inference_mode():
        together, alone = network(images), network(images[1:2])
    assert torch.allclose(together[1:2], alone, atol=1e-4)


@pytest.mark.parametrize("name", ["kidney_segnet", "fullnet", "unet", "unetpp", "smp"])
def test_in_train_mode_it_does_and_the_statistics_move(name: str) -> None:
    network, images = made(name), batch(name, 3)
    before = {key: value.clone() for key, value in network.named_buffers()}
    with torch.no_grad():
        together, alone = network(images), network(images[1:])
    first = together[0] if isinstance(together, tuple) else together
    second = alone[0] if isinstance(alone, tuple) else alone
    assert not torch.allclose(first[1:], second, atol=1e-3)
    assert all(not torch.equal(value, before[key]) for key, value in network.named_buffers())


def test_a_network_without_norm_and_dropout_is_the_same_in_both_modes() -> None:
    cases: list[tuple[str, dict[str, Any]]] = [("unet", {"norm": "none"}), ("glomerulus_unet", {})]
    for name, options in cases:
        network, images = made(name, **options), batch(name, 2)
        with torch.no_grad():
            assert torch.equal(network.train()(images), network.eval()(images)), name


@pytest.mark.parametrize(("name", "form"), [*((name, "auto") for name in sorted(SMALL)), ("kidney_segnet", "plain")])
def test_bfloat16_stays_near_float32_and_trains(name: str, form: str) -> None:
    network, images = made(name), batch(name, 4)
    set_form(network, form)
    with torch.inference_mode():
        exact = network.eval()(images)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(images).float()
    assert float((rough - exact).norm() / (exact - exact.mean()).norm()) < 0.15
    with torch.autocast("cpu", torch.bfloat16):
        raw = network.train()(images)
        loss = sum(head.float().square().mean() for head in (raw if isinstance(raw, tuple) else (raw,)))
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    gradients = [value.grad for value in network.parameters() if value.grad is not None]
    assert len(gradients) > 5
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def one_step(name: str, threads: int) -> list[torch.Tensor]:
    """Outputs, gradients and statistics of a network made anew, and of one training step."""
    now = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        network, images = made(name), batch(name, 4)
        torch.manual_seed(3)  # of dropout
        raw = network(images)
        heads = raw if isinstance(raw, tuple) else (raw,)
        torch.stack([head.square().mean() for head in heads]).sum().backward()
        with torch.inference_mode():
            result = network.eval()(images)
    finally:
        torch.set_num_threads(now)
    gradients = [value.grad for value in network.parameters() if value.grad is not None]
    return [*(head.detach() for head in heads), *gradients, *network.buffers(), result]


@pytest.mark.parametrize("name", sorted(SMALL))
def test_the_same_seed_gives_the_same_bits(name: str) -> None:
    for one, other in zip(one_step(name, 1), one_step(name, 1), strict=True):
        assert torch.equal(one, other)


def test_a_fast_dice_unit_gives_the_same_bits_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    from histofold.models import dice_numbers

    monkeypatch.setattr(dice_numbers, "BAND_GRAIN", 1)
    monkeypatch.setattr(dice_numbers, "PLANE_GRAIN", 1)
    now, found = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.manual_seed(0)
        unit = DiceUnit(8, 16, 64, 64)
        image = torch.randn(2, 8, 64, 64, requires_grad=True)
        torch.set_num_threads(threads)
        try:
            out = unit(image)
            out.square().sum().backward()
        finally:
            torch.set_num_threads(now)
        found.append([out.detach(), image.grad, *(value.grad for value in unit.parameters())])
    for one, other in zip(*found, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)


def test_checkpointed_fullnet_has_the_same_gradients_and_statistics() -> None:
    results = []
    for checkpoint in (False, True):
        network, images = made("fullnet", checkpoint=checkpoint), batch("fullnet", 2)
        torch.manual_seed(3)
        network(images).square().mean().backward()
        results.append([*(value.grad for value in network.parameters()), *network.buffers()])
    for one, other in zip(*results, strict=True):
        assert one is not None
        assert other is not None
        assert torch.allclose(one, other, atol=1e-6 * max(1.0, float(one.abs().max())))


@pytest.mark.parametrize("shape", [(1, 4, 32, 32), (3, 5, 26, 40), (1, 4, 27, 33), (1, 18, 70, 64)])
def test_attention_gates_made_fast_are_the_whole_gate(shape: tuple[int, ...]) -> None:
    from histofold.models.kidney_segnet import _AttentionGate

    torch.manual_seed(0)
    channels = shape[1]
    gate = _AttentionGate(channels, 2 * channels, channels)
    skip, coarse = torch.randn(shape), torch.randn(shape[0], 2 * channels, shape[2] // 2, shape[3] // 2)
    with torch.inference_mode():
        assert gate.fast(skip, coarse) == (shape[2] % 2 == 0)
        found = gate(skip, coarse)
    assert torch.allclose(found, gate(skip, coarse).detach(), atol=1e-5)
    assert float(found.std()) > 0.01


@pytest.mark.parametrize("decoder", ["unet", "gated"])
def test_a_decoder_reads_the_same_where_nothing_is_joined_in_memory(decoder: str) -> None:
    torch.manual_seed(0)
    network = models.build("kidney_segnet", outputs=1, size=48, width=8, decoder=decoder).eval()
    stage = network.decoder[1]
    skip, coarse = torch.randn(2, 16, 24, 24), torch.randn(2, 32, 12, 12)
    seen: list[int] = []
    with torch.inference_mode():
        fast = stage(skip, coarse)
        handle = stage.units.register_forward_hook(lambda *_: seen.append(1))  # who watches sees the layers run
        watched = stage(skip, coarse)
        handle.remove()
    assert seen
    assert torch.allclose(fast, watched, atol=1e-5)
