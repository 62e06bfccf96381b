"""Layers between the DiCE units: what a prediction computes on a CPU is what torch's own layers give."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from histofold.models.cpu import halved, normed, pointwise
from histofold.models.dense_fast import joined, means


@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (2, 70, 64, 33), (3, 33, 90, 80)])
@pytest.mark.parametrize("made", [1, 13])
def test_a_pointwise_convolution(shape: tuple[int, ...], made: int) -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(shape[1], made, 1), torch.randn(shape)
    with torch.inference_mode():
        assert torch.allclose(pointwise(conv, x), conv(x), atol=1e-5)
    again = pointwise(conv, x.requires_grad_())  # with gradients, too
    assert torch.allclose(again, conv(x), atol=1e-5)
    assert again.requires_grad


def test_parts_are_joined_as_if_they_lay_in_one_tensor() -> None:
    torch.manual_seed(0)
    conv, parts = nn.Conv2d(5 * 12, 20, 1), [torch.randn(2, 12, 30, 31) for _ in range(4)]
    constant = torch.randn(2, 12)
    whole = torch.cat([*parts, constant[..., None, None].expand_as(parts[0])], 1)
    with torch.inference_mode():
        assert torch.allclose(joined(conv, parts, constant), conv(whole), atol=1e-5)
    assert torch.allclose(means(parts[0]), parts[0].mean((2, 3)), atol=1e-6)


@pytest.mark.parametrize(("size", "channels"), [((9, 7), 3), ((40, 70), 1), ((33, 64), 4), ((20, 20), 12)])
def test_a_norm_is_folded_into_the_convolution(size: tuple[int, int], channels: int) -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(channels, 11, 3, padding=1), nn.BatchNorm2d(11).eval()
    with torch.no_grad():
        for values in (norm.running_mean, norm.bias):
            values.normal_()
        for values in (norm.running_var, norm.weight):
            values.uniform_(0.5, 2)
    x = torch.randn(2, channels, *size)
    with torch.inference_mode():
        assert torch.allclose(normed(conv, norm, x), functional.relu(norm(conv(x))), atol=1e-5)


@pytest.mark.parametrize("size", [(2, 2), (9, 7), (64, 70), (33, 128)])
def test_pooling_drops_odd_rows_and_columns_and_keeps_what_is_not_a_number(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, *size)
    x[1, 2, 1, 0] = float("nan")
    x[1, 3, 0, 1] = float("inf")
    with torch.inference_mode():
        found = halved(x)
    assert torch.equal(found.nan_to_num(1e9), functional.max_pool2d(x, 2).nan_to_num(1e9))
    assert found[1, 2, 0, 0].isnan()
