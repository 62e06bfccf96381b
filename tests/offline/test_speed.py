"""What the networks are run on: the GPU, with less at once, or the CPU; and never silently."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from histofold.errors import ResourceError
from histofold.inference import planning
from histofold.inference.member import Member
from histofold.inference.planning import Trial
from histofold.inference.settings import Settings
from histofold.offline.speed import settle
from histofold.preprocess import Preprocess
from histofold.targets.foreground import Foreground

Tried = Callable[[Settings], Trial]


def given(monkeypatch: pytest.MonkeyPatch, tried: Tried) -> None:
    """A machine with a GPU on which `tried` stands in for a batch."""
    monkeypatch.setattr(Settings, "torch_device", lambda self: torch.device("cpu" if self.device == "cpu" else "cuda"))
    monkeypatch.setattr(planning, "try_out", lambda members, settings: tried(settings))


def test_a_gpu_that_works_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, lambda settings: Trial(1.0, 1))
    said: list[str] = []
    assert settle([], Settings(batch=8), said.append) == Settings(batch=8, device="cuda")
    assert said == []


def test_a_gpu_without_kernels_is_left_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def tried(settings: Settings) -> Trial:
        if settings.device != "cpu":
            raise RuntimeError("CUDA error: no kernel image is available\nfor execution on the device")
        return Trial(1.0, 1)

    given(monkeypatch, tried)
    said: list[str] = []
    assert settle([], Settings(batch=8), said.append) == Settings(batch=8, device="cpu")
    assert "cuda cannot be used (CUDA error: no kernel image is available" in said[0]


@pytest.mark.parametrize(("asked", "gpus", "used"), [("cuda", 0, "cpu"), ("cuda:1", 1, "cuda"), ("gpu", 0, "cpu")])
def test_a_device_that_is_not_there_is_told_and_replaced(
    monkeypatch: pytest.MonkeyPatch, asked: str, gpus: int, used: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(planning, "try_out", lambda members, settings: Trial(1.0, 1))
    said: list[str] = []
    assert settle([], Settings(device=asked), said.append) == Settings(device=used)
    assert len(said) == 1
    assert said[0].startswith(f"{asked} cannot be used (predict.device=")
    assert said[0].endswith(f"going on with {used}")


def test_too_little_memory_means_smaller_batches_and_then_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[tuple[int, str]] = []

    def tried(settings: Settings) -> Trial:
        tries.append((settings.batch, settings.device))
        if settings.device != "cpu":
            raise ResourceError("cuda: out of memory")
        return Trial(1.0, 1)

    given(monkeypatch, tried)
    assert settle([], Settings(batch=4), lambda text: None).device == "cpu"
    assert tries == [(4, "auto"), (2, "auto"), (1, "auto"), (1, "cpu")]


class Holding(torch.nn.Module):
    """A network on a device that holds two images at once."""

    divisor = 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:
            raise torch.cuda.OutOfMemoryError("full")
        return x[:, :1]


def test_less_than_all_views_at_once_is_tried_before_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    members = [Member(Holding(), Foreground(), Preprocess())]
    try_out = planning.try_out
    given(monkeypatch, lambda settings: try_out(members, replace(settings, device="cpu")))
    said: list[str] = []
    found = settle(members, Settings(tile=16, tta="dihedral", batch=8), said.append)
    assert (found.batch, found.device, found.tta) == (2, "cuda", "dihedral")
    assert [line.split("; ")[-1] for line in said] == ["trying {'batch': 4}", "trying {'batch': 2}"]


def test_a_cpu_that_cannot_do_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def tried(settings: Settings) -> Trial:
        raise RuntimeError("broken network")

    given(monkeypatch, tried)
    with pytest.raises(RuntimeError, match="broken network"):
        settle([], Settings(device="cpu"), lambda text: None)
