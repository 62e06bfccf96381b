"""Two processes under torchrun share the examples of an epoch and the samples of the held-out fold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from histofold.cli import main
from histofold.compose import ROOT

SETTINGS = [
    "competition=demo_nuclei",
    "model=unet",
    "model.width=4",
    "model.norm=none",
    "train.crop=32",
    "train.batch=2",
    "train.samples_per_epoch=16",
    "train.epochs=1",
    "train.workers=0",
    "train.validate_every=0",
    "train.precision=32-true",
    "train.accelerator=cpu",
    "train.loggers=[]",
    "predict.tta=none",
    "evaluate.workers=1",
    "prepare.workers=1",
]


@pytest.mark.slow
def test_torchrun_trains_one_network_with_two_ranks(tmp_path: Path) -> None:
    places = [f"paths.{name}={tmp_path / name}" for name in ("input", "prepared", "oof", "submissions")]
    assert main("prepare", [*SETTINGS, *places]) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "src/train.py", *SETTINGS, *places]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    folder = tmp_path / "oof" / "demo_nuclei" / "unet" / "fold0"
    metrics = pd.read_csv(folder / "metrics.csv")
    assert metrics["step"].tolist() == [4]  # 16 examples, 2 ranks, batch 2
    folds = pd.read_csv(tmp_path / "prepared" / "demo_nuclei" / "folds.csv", dtype={"sample_id": str})
    held_out = folds[folds["fold"] == 0]["sample_id"]
    assert {path.stem for path in (folder / "predictions").glob("*.tif")} == set(held_out)
    assert set(pd.read_csv(folder / "scores.csv", dtype={"sample_id": str})["sample_id"]) == set(held_out)
    assert not list(tmp_path.rglob("multirun"))
    # What only the first rank finds is said once, without a traceback of the others.
    (folder / "scores.csv").unlink()
    done = subprocess.run(
        [*command, "model.width=8"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode != 0
    assert done.stderr.count("was trained with model.width=4, now it is 8") == 1
    assert "src/histofold" not in done.stderr


@pytest.mark.slow
def test_ranks_train_a_network_with_layers_that_take_no_part(tmp_path: Path, discs: Path) -> None:
    """PSPNet uses the first stages of its encoder and has them all."""
    names = ("prepared", "oof", "submissions")
    places = [f"paths.input={discs}", *(f"paths.{name}={tmp_path / name}" for name in names)]
    given = [setting for setting in SETTINGS if not setting.startswith(("competition", "model"))]
    given += ["competition=folders", "model=smp", "model.arch=PSPNet", "prepare.n_folds=2", "train.crop=64", *places]
    assert main("prepare", given) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "src/train.py", *given]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(pd.read_csv(tmp_path / "oof/custom/smp/fold0/scores.csv")) == 2
