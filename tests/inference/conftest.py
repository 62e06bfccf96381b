"""Networks and slides small enough to be known exactly."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import histofold
from histofold.inference.member import Member
from histofold.preprocess import Preprocess
from histofold.targets.base import Band

RAW = Preprocess(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
"""Leaves pixels as 0..255."""


@dataclass(frozen=True)
class FakeTarget:
    """Raw outputs are the bands."""

    bands: tuple[Band, ...]

    @property
    def channels(self) -> int:
        return len(self.bands)

    def to_bands(self, raw: torch.Tensor) -> torch.Tensor:
        return raw


class PixelNet(nn.Module):
    """Its output depends on nothing but the pixel: a smooth function of red, green and blue."""

    def __init__(self, phase: float = 0.0, divisor: int = 8) -> None:
        super().__init__()
        self.divisor = divisor
        self.phase = nn.Parameter(torch.tensor(phase))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(x.shape))
        assert x.shape[2] % self.divisor == 0
        assert x.shape[3] % self.divisor == 0
        mixed = x[:, 0:1] * 0.031 + x[:, 1:2] * 0.017 + x[:, 2:3] * 0.0071 + self.phase
        return 0.5 + 0.5 * torch.sin(mixed)


class WideNet(nn.Module):
    """A small network whose output depends on its neighbourhood, like a real one; fixed random weights."""

    def __init__(self, outputs: int = 1, seed: int = 0, divisor: int = 8) -> None:
        super().__init__()
        self.divisor = divisor
        generator = torch.Generator().manual_seed(seed)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, outputs, 5, padding=2), nn.Sigmoid()
        )
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x / 255)


def make_member(network: nn.Module, *bands: Band, preprocess: Preprocess = RAW) -> Member:
    """A member around a network whose raw output is its bands."""
    return Member(network, FakeTarget(bands or (Band("foreground"),)), preprocess)  # type: ignore[arg-type]


class FakeSlide:
    """A slide in memory that counts what is read of it."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.path = Path("fake.tiff")
        self.pixels = pixels
        self.height, self.width = pixels.shape[:2]
        self.rows_read = 0
        self.closed = False

    def bands(self, height: int, scale: float = 1.0, overlap: int = 0) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        assert scale == 1.0
        assert overlap == 0
        for top in range(0, self.height, height):
            rows = self.pixels[top : top + height].copy()
            self.rows_read += len(rows)
            yield top, rows

    def close(self) -> None:
        self.closed = True


def tissue_image(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Random pixels, pink enough to be tissue everywhere."""
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3))
    return (np.array([190, 60, 120]) + noise).astype(np.uint8)


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that finds the package as these tests do."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, env=child_environment()
    )


def child_environment() -> dict[str, str]:
    """The environment of such an interpreter."""
    return {**os.environ, "PYTHONPATH": str(Path(histofold.__file__).parents[1]), "HISTOFOLD_QUIET": "1"}


class Kit:
    """What tests in this folder share, as one fixture."""

    PixelNet = PixelNet
    WideNet = WideNet
    FakeSlide = FakeSlide
    RAW = RAW
    member = staticmethod(make_member)
    tissue = staticmethod(tissue_image)
    run_python = staticmethod(run_python)
    child_environment = staticmethod(child_environment)


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    """Networks, slides and members that are known exactly."""
    return Kit
