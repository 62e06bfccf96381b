"""A run that is killed at any moment and started again ends with the same weights, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from histofold.cli import main
from histofold.compose import ROOT
from histofold.inference import checkpoint
from histofold.inference.member import Member

SETTINGS = [
    "competition=folders",
    "model=fullnet",  # has dropout, whose draws must repeat, too
    "model.growth=4",
    "model.pooling=true",
    "target=ternary",
    "optimizer=muon",  # biases and norms take its AdamW, whose state must repeat, too
    "train.crop=32",
    "train.batch=2",
    "train.accumulate=2",
    "train.samples_per_epoch=24",
    "train.epochs=3",
    "train.workers=0",
    "train.validate_every=0",
    "train.precision=32-true",
    "train.accelerator=cpu",
    "train.loggers=[]",
    "predict.tta=none",
    "predict.tile=64",
    "evaluate.workers=1",
    "prepare.workers=1",
    "prepare.n_folds=2",
]
RUN = Path("custom/fullnet/fold0")


def overrides(discs: Path, root: Path, oof: str) -> list[str]:
    places = {"prepared": "prepared", "oof": oof, "submissions": "submissions"}
    return [*SETTINGS, f"paths.input={discs}", *(f"paths.{name}={root / place}" for name, place in places.items())]


def weights(root: Path, oof: str) -> dict[str, torch.Tensor]:
    content = torch.load(root / oof / RUN / "last.ckpt", weights_only=True)
    return {**content["model"], **{f"ema.{key}": value for key, value in content["ema"].items()}}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, discs: Path) -> Path:
    root = tmp_path_factory.mktemp("resume")
    assert main("prepare", overrides(discs, root, "oof")) == 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert main("train", overrides(discs, root, "oof")) == 0
    torch.set_num_threads(threads)
    return root


def killed(command: list[str], environment: dict[str, str], last: Path, checkpoints: int) -> int:
    """Kill the run after so many new checkpoints; gives the steps that the last one has."""
    seen = {last.stat().st_mtime_ns} if last.exists() else set()
    wanted = len(seen) + checkpoints
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(seen) < wanted and time.monotonic() < deadline and process.poll() is None:
        if last.exists():
            seen.add(last.stat().st_mtime_ns)
        time.sleep(0.002)
    assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (last.parent / "model.ckpt").exists()
    return int(torch.load(last, weights_only=True)["progress"]["step"])


def test_killed_twice_and_started_again_it_ends_with_the_same_bits(unbroken: Path, discs: Path) -> None:
    # A checkpoint after every step, so that most kills fall into the middle of an epoch.
    command = [
        sys.executable, "src/train.py", *overrides(discs, unbroken, "killed"), "train.checkpoint_minutes=0.00001",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    last = unbroken / "killed" / RUN / "last.ckpt"
    first = killed(command, environment, last, 1)
    second = killed(command, environment, last, 3)
    assert 1 <= first < second < 18  # of 3 epochs of 6 steps
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=200)

    expected, found = weights(unbroken, "oof"), weights(unbroken, "killed")
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key
    columns = ["epoch", "step", "lr", "loss"]
    tables = [pd.read_csv(unbroken / place / RUN / "metrics.csv")[columns] for place in ("oof", "killed")]
    pd.testing.assert_frame_equal(*tables)


def test_the_epoch_that_validates_best_is_not_chosen(
    unbroken: Path, discs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fold's truth that chose its weights would make its score optimistic."""
    seen: list[dict[str, torch.Tensor]] = []

    def best_first(_: Any, member: Member, *rest: Any) -> float:
        seen.append({key: value.clone() for key, value in member.network.state_dict().items()})
        return 1.0 / len(seen)

    monkeypatch.setattr("histofold.training.run.validate", best_first)
    assert main("train", [*overrides(discs, unbroken, "chosen"), "train.epochs=2", "train.validate_every=1"]) == 0
    saved = checkpoint.load(unbroken / "chosen" / RUN / "model.ckpt")[1]
    last = torch.load(unbroken / "chosen" / RUN / "last.ckpt", weights_only=True)["ema"]
    assert len(seen) == 1, "the last epoch is scored by its OOF predictions"
    assert all(torch.equal(saved[key], last[key]) for key in saved)
    assert not all(torch.equal(saved[key], seen[0][key]) for key in saved)
