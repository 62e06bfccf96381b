"""The loop on a network of a few weights: what is no number, what a checkpoint keeps, and how time is counted."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils.data import Dataset

from histofold.compose import compose, load
from histofold.config import TrainConfig
from histofold.errors import ConfigError, HistofoldError, ResourceError
from histofold.options import OptimizerOptions
from histofold.preprocess import Preprocess
from histofold.training import loop
from histofold.training.loop import Parts, _gradient_norm, fit
from histofold.training.optim import build_optimizer, build_schedule
from histofold.training.state import Progress, foreign, save

SMALL = ["train.batch=2", "train.samples_per_epoch=11", "train.epochs=2", "train.workers=0", "train.validate_every=0"]
STEPS = 5
"""Steps of an epoch; one example is left over."""
EACH = "train.checkpoint_minutes=1e-9"
"""A checkpoint after every step."""


class Noise(Dataset[dict[str, torch.Tensor]]):
    """Examples that follow from their key, with the process that made them."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        time.sleep(0.005)
        pixels = torch.randint(0, 256, (3, 8, 8), generator=torch.Generator().manual_seed(100 * key[0] + key[1]))
        return {"image": pixels.to(torch.uint8), "pid": torch.tensor(os.getpid())}


class Loss(nn.Module):
    """The mean output; in batch `broken` a value with an infinite gradient, or an infinite value."""

    def __init__(self, broken: int = 0, kind: str = "gradient") -> None:
        super().__init__()
        self.broken, self.kind, self.count, self.pids = broken, kind, 0, set[int]()

    def forward(self, raw: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        self.count += 1
        self.pids |= set(batch["pid"].tolist())
        loss = raw.float().square().mean()
        if self.count != self.broken:
            return loss
        return loss * float("inf") if self.kind == "loss" else loss + (raw.float().sum() * 0).sqrt()


class Run:
    """Parts and settings of a small training in a folder of its own."""

    def __init__(self, folder: Path, *more: str, loss: Loss | None = None, network: nn.Module | None = None) -> None:
        self.settings: TrainConfig = load(compose([*SMALL, *more])).train
        self.last = folder / "last.ckpt"
        torch.manual_seed(0)
        model = network or nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.1), nn.Conv2d(2, 1, 1))
        options = OptimizerOptions(schedule="constant", warmup=0)
        optimizer = build_optimizer(model, options)
        schedule = build_schedule(optimizer, options, 100, STEPS)
        self.loss = loss or Loss()
        self.parts = Parts(model, ModelEmaV3(model), optimizer, schedule, self.loss, Preprocess())
        self.history: list[dict[str, Any]] = []

    def fit(self, fabric: Fabric | None = None) -> Progress:
        def report(history: list[dict[str, Any]]) -> None:
            self.history = [*history]

        data: Any = Noise(self.settings.samples_per_epoch)
        fabric = fabric or Fabric(accelerator="cpu", devices=1)
        return fit(fabric, self.parts, data, self.settings, 0, self.last, "x", ["a"], lambda _: 0.0, report)


def finite(state: dict[str, torch.Tensor]) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in state.values())


@pytest.mark.parametrize("clip", [0, 1])
@pytest.mark.parametrize("kind", ["gradient", "loss"])
def test_what_is_no_number_is_never_stepped_into_the_weights(tmp_path: Path, clip: int, kind: str) -> None:
    run = Run(tmp_path, EACH, f"train.clip={clip}", loss=Loss(3, kind))
    with pytest.raises(HistofoldError, match=rf"the {kind} became (nan|inf) in epoch 1, batch 3; give run=NAME with a"):
        run.fit()
    kept = torch.load(run.last, weights_only=True)
    assert kept["progress"]["step"] == 2
    assert finite(run.parts.model.state_dict())
    assert finite(run.parts.ema.module.state_dict())
    for key, value in run.parts.model.named_parameters():
        assert torch.equal(value, kept["model"][key]), key


def half(scale: float) -> Fabric:
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu", scaler))


@pytest.mark.parametrize("clip", [0, 1])
def test_half_precision_leaves_the_step_out_and_a_checkpoint_keeps_its_scale(tmp_path: Path, clip: int) -> None:
    run = Run(tmp_path, EACH, f"train.clip={clip}", loss=Loss(3))
    run.fit(half(1024.0))
    assert finite(run.parts.model.state_dict())
    kept = torch.load(run.last, weights_only=True)["scaler"]
    assert kept["scale"] == 512.0
    again, fabric = Run(tmp_path, EACH, "train.epochs=3"), half(1024.0)
    again.fit(fabric)
    scaler = fabric.strategy.precision.scaler
    assert (scaler.get_scale(), scaler.state_dict()["_growth_tracker"]) == (512.0, kept["_growth_tracker"] + STEPS)
    Run(tmp_path, "train.epochs=4").fit()  # in single precision there is none to restore


def test_images_per_second_counts_the_whole_epoch_over_checkpoints_and_sittings(tmp_path: Path) -> None:
    with pytest.raises(HistofoldError, match="batch 4"):
        Run(tmp_path, EACH, loss=Loss(4, "loss")).fit()
    run = Run(tmp_path, EACH)
    run.fit()
    before = 0.0
    for row in run.history:
        assert row["images_per_second"] == pytest.approx(2 * STEPS / (row["seconds"] - before), rel=0.05)
        before = row["seconds"]


def test_one_value_a_channel_is_a_setting_error(tmp_path: Path) -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))
    run = Run(tmp_path, "train.batch=1", "train.crop=16", network=network)
    with pytest.raises(ConfigError, match=r"train\.batch=1, train\.crop=16: batch normalisation .* needs more; take"):
        run.fit()


@pytest.mark.parametrize(("workers", "cores"), [(1, 2), (2, 1)], ids=["as many as set", "no more than cores"])
def test_loader_processes_live_through_the_epochs_and_give_the_same_crops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, cores: int
) -> None:
    monkeypatch.setattr(loop, "cores", lambda: cores)
    (tmp_path / "alone").mkdir()
    alone, helped = Run(tmp_path / "alone"), Run(tmp_path, f"train.workers={workers}")
    alone.fit()
    helped.fit()
    assert len(helped.loss.pids) == 1
    assert os.getpid() not in helped.loss.pids
    for key, value in alone.parts.model.state_dict().items():
        assert torch.equal(value, helped.parts.model.state_dict()[key]), key


def test_a_checkpoint_keeps_what_the_start_had_seen(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.fit()
    assert foreign(run.last) == ["a"]
    values = torch.load(run.last, weights_only=True)
    del values["progress"]["foreign"]  # as files from before it was kept
    torch.save(values, run.last)
    assert foreign(run.last) is None
    run.last.write_bytes(b"no checkpoint")
    with pytest.raises(HistofoldError, match="cannot go on from it"):
        foreign(run.last)


@pytest.mark.parametrize(("value", "expected"), [(1e20, 0.0), (float("inf"), float("inf")), (3.0, 6.0)])
def test_a_norm_that_overflows_is_no_gradient_that_is_not_finite(value: float, expected: float) -> None:
    model = torch.nn.Linear(4, 1, bias=False)
    model.weight.grad = torch.full((1, 4), value)
    settings, parts = SimpleNamespace(clip=0), SimpleNamespace(model=model)
    assert _gradient_norm(cast(Any, None), model, None, cast(Any, parts), cast(Any, settings)) == expected


def test_the_bar_of_a_resumed_epoch_counts_this_sitting_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(HistofoldError, match="batch 4"):
        Run(tmp_path, EACH, loss=Loss(4, "loss")).fit()
    monkeypatch.delenv("HISTOFOLD_QUIET")
    Run(tmp_path).fit()
    # Batches that it begins with are no speed; those that it is moved by are.
    assert re.match(r"\s*epoch 1/2:  60%.* 3/5 \[00:00<", capsys.readouterr().err)


@pytest.mark.parametrize("room", [0, 100, 9000, 2_000_000])
def test_a_full_disk_is_said_and_leaves_the_last_checkpoint(
    tmp_path: Path, small_disk: Callable[[int], AbstractContextManager[None]], room: int
) -> None:
    last, parts = tmp_path / "last.ckpt", {"model": nn.Linear(1000, 1000)}
    save(last, Progress(epoch=1), parts)
    before = last.read_bytes()
    assert len(before) > 2_000_000
    with small_disk(room), pytest.raises(ResourceError, match=r"last\.ckpt: the disk is full"):
        save(last, Progress(epoch=2), parts)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("last.ckpt", before)]
