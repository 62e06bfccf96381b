"""`ternary`: background, inside, boundary; one class a pixel (FullNet's target, and our milder form of it)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numba
import numpy as np
import torch
from numpy.typing import NDArray

from histofold.errors import ConfigError
from histofold.registry import require
from histofold.targets.base import Band, Labels, Target, as_labels

BACKGROUND, INSIDE, BOUNDARY = 0, 1, 2


@dataclass(frozen=True)
class Ternary(Target):
    """Three softmax classes: 0 background, 1 inside, 2 boundary.

    `form=single`: an instance's pixel is inside when no pixel within `radius` of it lies outside the instance, and
    boundary otherwise; an instance that is too thin to have an inside keeps its innermost pixels, so that none is
    lost. Components of the inside, dilated by a disc of the same radius, give the instances back.

    `form=fullnet`: the two steps of Qu et al. (MICCAI 2019). Each instance is eroded by a plus; then, on the union of
    what is left, inside is its erosion by a disc of `radius` (1 nuclei, 2 glands), boundary its dilation by a plus
    minus that inside, the rest background. Inside is eroded twice: a disc of radius + 1 gives back most of it.

    The edge of the crop is no outline in either form.

    Args:
        form: `single` or `fullnet`.
        radius: of the (second) erosion, in pixels.
    """

    name: ClassVar[str] = "ternary"
    form: str = "single"
    radius: int = 1
    channels: int = field(default=3, init=False, repr=False)
    bands: tuple[Band, ...] = field(
        default=(Band("foreground"), Band("inside"), Band("boundary")), init=False, repr=False
    )
    activation: str = field(default="softmax", init=False, repr=False)
    default_loss: dict[str, float] = field(
        default_factory=lambda: {"bce": 1.0, "dice": 1.0}, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.form not in ("single", "fullnet"):
            raise ConfigError(f"target.form={self.form!r}: expected single or fullnet")
        require(1 <= self.radius <= 16, "target.radius", self.radius, "1 to 16 pixels")

    def encode(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """Labels (H, W) to int64 classes (H, W)."""
        checked = as_labels(labels)
        return _fullnet(checked, self.radius) if self.form == "fullnet" else _single(checked, self.radius)

    def to_bands(self, raw: torch.Tensor) -> torch.Tensor:
        """Raw (B, 3, H, W) to foreground = 1 − P(background), P(inside) and P(boundary) (B, 3, H, W)."""
        probability = torch.softmax(raw.float(), dim=1)
        # The sum of the two others, not 1 − background: it does not cancel where background is close to 1.
        return torch.cat([probability[:, 1:].sum(dim=1, keepdim=True).clamp(max=1), probability[:, 1:]], dim=1)


def disc(radius: int) -> NDArray[np.uint8]:
    """Disc-shaped structuring element (2r + 1, 2r + 1) of 0 and 1: all offsets no longer than `radius`."""
    axis = np.arange(-radius, radius + 1)
    return (axis[:, None] ** 2 + axis[None, :] ** 2 <= radius * radius).astype(np.uint8)


def _fullnet(labels: Labels, radius: int) -> NDArray[np.int64]:
    first = (_depth(labels, 1) > 1).astype(np.uint8)
    inside = cv2.erode(first, disc(radius))
    outer = cv2.dilate(first, disc(1))
    return np.where(inside > 0, INSIDE, np.where(outer > 0, BOUNDARY, BACKGROUND)).astype(np.int64)


def _single(labels: Labels, radius: int) -> NDArray[np.int64]:
    depth = _depth(labels, radius)
    return _classes(labels, depth, _deepest(labels, depth), radius)


def _depth(labels: Labels, radius: int) -> NDArray[np.uint8]:
    """1 + the largest r <= radius for which a disc of radius r around the pixel stays in the instance; 0 outside."""
    depth = (labels > 0).astype(np.uint8)
    for step in range(1, radius + 1):
        axis = np.arange(-step, step + 1)
        dy, dx = np.meshgrid(axis, axis, indexing="ij")
        square = dy * dy + dx * dx
        ring = (square <= step * step) & (square > (step - 1) ** 2)
        _deepen(labels, depth, np.stack([dy[ring], dx[ring]], axis=1), step)
    return depth


@numba.njit(cache=True)
def _deepen(labels: Labels, depth: NDArray[np.uint8], ring: NDArray[np.int64], step: int) -> None:
    height, width = labels.shape
    for y in range(height):
        for x in range(width):
            if depth[y, x] != step:
                continue
            whole = True
            for k in range(len(ring)):
                row, column = y + ring[k, 0], x + ring[k, 1]
                if 0 <= row < height and 0 <= column < width and labels[row, column] != labels[y, x]:
                    whole = False
                    break
            if whole:
                depth[y, x] = step + 1


@numba.njit(cache=True)
def _deepest(labels: Labels, depth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Largest depth of each label, index = label."""
    deepest = np.zeros(labels.max() + 1, np.uint8)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            deepest[labels[y, x]] = max(deepest[labels[y, x]], depth[y, x])
    return deepest


@numba.njit(cache=True)
def _classes(labels: Labels, depth: NDArray[np.uint8], deepest: NDArray[np.uint8], radius: int) -> NDArray[np.int64]:
    out = np.zeros(labels.shape, np.int64)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            label = labels[y, x]
            if label > 0:
                out[y, x] = INSIDE if depth[y, x] >= min(radius + 1, deepest[label]) else BOUNDARY
    return out
