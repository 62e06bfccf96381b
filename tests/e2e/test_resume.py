"""A run that is killed at any moment and started again ends with the same weights, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from histofold.cli import main
from histofold.compose import ROOT

SETTINGS = [
    "competition=demo_nuclei",
    "model=fullnet",  # has dropout, whose draws must repeat, too
    "model.growth=4",
    "model.pooling=true",
    "target=ternary",
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
]


def overrides(root: Path, oof: str) -> list[str]:
    places = {"input": "input", "prepared": "prepared", "oof": oof, "submissions": "submissions"}
    return [*SETTINGS, *(f"paths.{name}={root / place}" for name, place in places.items())]


def weights(root: Path, oof: str) -> dict[str, torch.Tensor]:
    path = root / oof / "demo_nuclei" / "fullnet" / "fold0" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    return {**content["model"], **{f"ema.{key}": value for key, value in content["ema"].items()}}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("resume")
    assert main("prepare", overrides(root, "oof")) == 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert main("train", overrides(root, "oof")) == 0
    torch.set_num_threads(threads)
    return root


@pytest.mark.parametrize("checkpoints", [1, 4])
def test_killed_and_started_again_it_ends_with_the_same_bits(unbroken: Path, checkpoints: int) -> None:
    oof = f"killed{checkpoints}"
    # A checkpoint after every step, so that most kills fall into the middle of an epoch.
    command = [sys.executable, "src/train.py", *overrides(unbroken, oof), "train.checkpoint_minutes=0.00001"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    last = unbroken / oof / "demo_nuclei" / "fullnet" / "fold0" / "last.ckpt"
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    seen: set[int] = set()
    deadline = time.monotonic() + 120
    while len(seen) < checkpoints and time.monotonic() < deadline and process.poll() is None:
        if last.exists():
            seen.add(last.stat().st_mtime_ns)
        time.sleep(0.002)
    assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (last.parent / "model.ckpt").exists()
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=200)

    expected, found = weights(unbroken, "oof"), weights(unbroken, oof)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key
    columns = ["epoch", "step", "lr", "loss"]
    tables = [
        pd.read_csv(unbroken / place / "demo_nuclei/fullnet/fold0/metrics.csv")[columns] for place in ("oof", oof)
    ]
    pd.testing.assert_frame_equal(*tables)
