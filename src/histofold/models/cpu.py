"""Layers of torch computed in a cheaper way on a CPU: the same function of the same weights, gradients included.

Predictions are computed by kernels on the DiCE units' threads, because torch's threads spin for some milliseconds after
their work and keep the units' threads from theirs. Where somebody watches the layers (export, compilation, tracing, a
counter of operations, a hook), or on a GPU, the layers themselves run.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

FEW = 8
"""Channels of an image, at most; with more, a 3 × 3 convolution is better left to torch."""


def observed(module: nn.Module) -> bool:
    """Whether export, compilation, tracing, a counter of operations or a hook wants to see the layers in `module`."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or any(layer._forward_hooks or layer._forward_pre_hooks for layer in module.modules())
    )


def theirs(module: nn.Module, x: torch.Tensor) -> bool:
    """Whether torch's own layers are to run, because the device, the precision or an observer asks for it."""
    return x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu") or observed(module)


def pointwise(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """A 1 × 1 convolution with a bias as a matrix product, which spares library's change of layout there and back."""
    if theirs(conv, x) or conv.bias is None:
        out: torch.Tensor = conv(x)
        return out
    if not torch.is_grad_enabled():
        from histofold.models import dense_fast

        return dense_fast.pointwise(conv, x)
    weight = conv.weight.flatten(1).expand(len(x), -1, -1)
    return torch.baddbmm(conv.bias[:, None], weight, x.flatten(2)).unflatten(2, x.shape[2:])


def halved(x: torch.Tensor) -> torch.Tensor:
    """2 × 2 max-pooling, an odd last row or column dropped, without the positions that torch's writes down.

    Where two values are equal they share the gradient, torch gives it to the first: behind a ReLU, where equal values
    are zeros, no gradient passes either way.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return functional.max_pool2d(x, 2)
    if not torch.is_grad_enabled() and x.dtype == torch.float32 and torch._C._len_torch_dispatch_stack() == 0:
        from histofold.models import dense_fast

        return dense_fast.halved(x)
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    rows = torch.maximum(x[:, :, 0:height:2, :width], x[:, :, 1:height:2, :width])
    return torch.maximum(rows[..., 0::2], rows[..., 1::2])


def normed(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    """ReLU(norm(conv(x))); for predictions the norm is folded into the weights."""
    if norm.training or torch.is_grad_enabled() or theirs(conv, x) or conv.bias is None or observed(norm):
        return functional.relu(norm(conv(x)))
    factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    bias = norm.bias + factor * (conv.bias - norm.running_mean)
    weight = conv.weight * factor[:, None, None, None]
    if conv.kernel_size == (3, 3) and conv.padding == (1, 1) and conv.in_channels <= FEW:
        from histofold.models import dense_fast

        return dense_fast.near_relu(weight, bias, x)
    return functional.conv2d(x, weight, bias, padding=conv.padding).relu_()
