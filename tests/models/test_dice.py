"""The DiCE unit against its definition, written down tap by tap."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from histofold import models
from histofold.models.dice import DiceUnit, set_form

Volume = NDArray[np.float64]


def moved(x: Volume, axis: int, by: int) -> Volume:
    """x at the place `by` further along an axis, zero beyond the border."""
    out = np.zeros_like(x)
    size = x.shape[axis]
    if abs(by) < size:
        into, source = [slice(None)] * 3, [slice(None)] * 3
        into[axis] = slice(max(0, -by), size - max(0, by))
        source[axis] = slice(max(0, by), size - max(0, -by))
        out[tuple(into)] = x[tuple(source)]
    return out


def view(x: Volume, kernels: Volume, owner: int, axes: tuple[int, int], dilation: int) -> Volume:
    """Σ over the taps of a plane `axes` of (C, H, W), with a kernel for each index of the axis `owner`."""
    shape = [1, 1, 1]
    shape[owner] = -1
    reach = kernels.shape[-1] // 2
    out = np.zeros_like(x)
    for i in range(kernels.shape[-2]):
        for j in range(kernels.shape[-1]):
            tap = moved(moved(x, axes[0], (i - reach) * dilation), axes[1], (j - reach) * dilation)
            out += kernels[:, 0, i, j].reshape(shape) * tap
    return out


def settle(unit: nn.Module) -> None:
    """Norms, slopes and statistics that are not those of the start."""
    with torch.no_grad():
        for layer in unit.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(std=0.2)
                layer.running_var.uniform_(0.5, 2)
                layer.weight.uniform_(0.5, 2)
                layer.bias.normal_(std=0.2)
            if isinstance(layer, nn.PReLU):
                layer.weight.uniform_(-0.5, 0.8)


def numbers(tensor: torch.Tensor) -> Volume:
    return tensor.detach().double().numpy()


def norm_act(x: Volume, norm: nn.BatchNorm2d, act: nn.PReLU) -> Volume:
    mean, variance = numbers(norm.running_mean), numbers(norm.running_var)
    factor = numbers(norm.weight) / np.sqrt(variance + norm.eps)
    y = (x - mean[:, None, None]) * factor[:, None, None] + numbers(norm.bias)[:, None, None]
    return np.where(y > 0, y, numbers(act.weight)[:, None, None] * y)


def defined(unit: DiceUnit, x: Volume) -> Volume:
    """The unit (C, H, W) → (C', H, W) in eval mode, step by step as the paper and the authors' code have it."""
    views = [
        view(x, numbers(unit.channel), 0, (1, 2), unit.dilation),
        view(x, numbers(unit.height), 1, (0, 2), unit.dilation),
        view(x, numbers(unit.width), 2, (1, 0), unit.dilation),
    ]
    joined = norm_act(np.concatenate(views), unit.views[0], unit.views[1])
    channels = len(x)
    weights = numbers(unit.fuse[0].weight)[:, :, 0, 0]
    fused = np.stack([sum(weights[c, v] * joined[v * channels + c] for v in range(3)) for c in range(channels)])
    fused = norm_act(fused, unit.fuse[1], unit.fuse[2])
    kernel = numbers(unit.project[0].weight)
    groups = unit.project[0].groups
    members, given = channels // groups, unit.out_channels // groups
    projected = np.zeros((unit.out_channels, *x.shape[1:]))
    for o in range(unit.out_channels):
        for m in range(members):
            plane = fused[o // given * members + m][None]
            projected[o] += view(plane, kernel[o : o + 1, m : m + 1], 0, (1, 2), 1)[0]
    projected = norm_act(projected, unit.project[1], unit.project[2])
    hidden = np.maximum(numbers(unit.gate[1].weight)[:, :, 0, 0] @ fused.mean((1, 2)), 0)
    gate = 1 / (1 + np.exp(-numbers(unit.gate[3].weight)[:, :, 0, 0] @ hidden))
    return np.asarray(projected * gate[:, None, None])


@pytest.mark.parametrize("form", ["plain", "auto"])
@pytest.mark.parametrize(
    ("channels", "out", "height", "width", "kernel", "dilation"),
    [(8, 8, 10, 12, 3, 1), (8, 16, 9, 7, 3, 1), (24, 8, 6, 12, 3, 1), (8, 8, 16, 11, 3, 4), (8, 8, 10, 10, 1, 1)],
)
def test_both_forms_are_the_definition(
    channels: int, out: int, height: int, width: int, kernel: int, dilation: int, form: str
) -> None:
    torch.manual_seed(0)
    unit = DiceUnit(channels, out, height, width, kernel, dilation).eval()
    settle(unit)
    set_form(unit, form)
    x = torch.randn(2, channels, height, width)
    with torch.inference_mode():
        found = unit(x).double().numpy()
    for one, image in zip(found, x.double().numpy(), strict=True):
        assert np.allclose(one, defined(unit, image), atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "out", "height", "width", "dilation"),
    [(12, 8, 70, 37, 1), (64, 64, 40, 48, 1), (8, 16, 50, 1100, 1), (24, 24, 35, 70, 8), (8, 8, 130, 513, 4)],
)
def test_a_prediction_in_bands_and_ranges_of_channels_is_the_plain_form(
    channels: int, out: int, height: int, width: int, dilation: int
) -> None:
    torch.manual_seed(0)
    unit, norm = DiceUnit(channels, out, height, width, 3, dilation).eval(), nn.BatchNorm2d(out).eval()
    settle(unit)
    settle(norm)
    x = torch.randn(2, channels, height, width)
    threads = torch.get_num_threads()
    with torch.inference_mode():
        plain = nn.functional.relu(norm(unit.plain(x)))
        found = []
        try:
            for number in (1, 3):
                torch.set_num_threads(number)
                found.append(unit(x, norm))
        finally:
            torch.set_num_threads(threads)
    assert torch.allclose(found[0], plain, atol=1e-5)
    assert torch.equal(*found)


def test_what_is_not_a_number_stays_visible() -> None:
    torch.manual_seed(0)
    unit, norm = DiceUnit(4, 4, 20, 20).eval(), nn.BatchNorm2d(4).eval()
    x = torch.randn(2, 4, 20, 20)
    x[0, 2, 7, 7] = float("nan")
    with torch.inference_mode():
        found = unit(x, norm)
    assert found[0].isnan().all()
    assert not found[1].isnan().any()


@pytest.mark.parametrize(("height", "width"), [(24, 24), (16, 40), (8, 12), (10, 30)])
def test_at_another_size_the_views_go_through_the_size_they_were_built_for(height: int, width: int) -> None:
    torch.manual_seed(0)
    unit = DiceUnit(8, 8, 16, 16).eval()
    settle(unit)
    x = torch.randn(1, 8, height, width)
    with torch.inference_mode():
        found = unit._height_view(x)
        rows = x
        if height < 16:
            rows = nn.functional.interpolate(x, (16, width), mode="bilinear", align_corners=True)
        elif height > 16:
            rows = nn.functional.adaptive_avg_pool2d(x, (16, width))
        seen = view(rows[0].double().numpy(), numbers(unit.height), 1, (0, 2), 1)
        assert unit(x).shape == x.shape
    if height == 16:
        assert np.allclose(found[0], seen, atol=1e-5)
    back = torch.from_numpy(seen)[None].float()
    if height > 16:
        back = nn.functional.interpolate(back, (height, width), mode="bilinear", align_corners=True)
    else:
        back = nn.functional.adaptive_avg_pool2d(back, (height, width))
    assert torch.allclose(found, back, atol=1e-5)


@pytest.mark.parametrize("shape", [(32, 32), (48, 40), (24, 24), (64, 33)])
@pytest.mark.parametrize("decoder", ["unet", "gated"])
def test_a_network_built_for_one_size_runs_at_any(decoder: str, shape: tuple[int, int]) -> None:
    network = models.build("kidney_segnet", outputs=2, size=32, width=4, decoder=decoder).eval()
    with torch.inference_mode():
        assert network(torch.randn(1, 3, *shape)).shape == (1, 2, *shape)


def test_the_head_does_not_start_dead_behind_a_relu() -> None:
    for seed in range(6):
        torch.manual_seed(seed)
        network = models.build("kidney_segnet", outputs=1, size=32, width=8, decoder="gated")
        image = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            assert float((network.train()(image) > 0).float().mean()) > 0.9
            assert float((network.eval()(image) > 0).float().mean()) > 0.9
