"""What a fold writes while it trains: curves now and then and at the end, and runs of loggers that are its own."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from lightning.pytorch.loggers import wandb as adapter

from histofold.training import records

ROW = {"epoch": 1, "step": 2, "lr": 0.1, "loss": 0.5, "score": None, "seconds": 1.0, "images_per_second": 8.0}


def test_curves_are_drawn_once_in_a_while_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(records, "training_curves", lambda _, out: drawn.append(out))
    monkeypatch.setattr(records.time, "monotonic", lambda: now)
    now = 0.0
    writer = records.Records(tmp_path, [], "x")
    history: list[dict[str, Any]] = []
    for now in (1.0, 59.0, 60.0, 61.0, 119.0, 120.0):
        history.append({**ROW, "step": len(history)})
        writer.write(history)
        assert len(pd.read_csv(tmp_path / "metrics.csv")) == len(history)
        assert len(drawn) == now // 60
    records.close(tmp_path, 0.75)
    assert drawn == [tmp_path / "curves.png"] * 3
    assert pd.read_csv(tmp_path / "metrics.csv")["score"].iloc[-1] == 0.75


class Wandb(ModuleType):
    """Stands in for the package: one run at a time, which the process has until it is finished."""

    class Run:
        def __init__(self, home: Wandb, name: str) -> None:
            self.home, self.name, self.logged, self.code = home, name, list[float](), -1

        def log(self, values: dict[str, float]) -> None:
            self.logged.append(values["loss"])

        def finish(self, exit_code: int) -> None:
            self.home.run, self.code = None, exit_code

    def __init__(self) -> None:
        super().__init__("wandb")
        self.run: Wandb.Run | None = None
        self.runs: list[Wandb.Run] = []
        self.RunDisabled = type(None)

    def init(self, name: str, **_: object) -> Wandb.Run:
        self.run = self.Run(self, name)
        self.runs.append(self.run)
        return self.run


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    package = Wandb()
    for name in ("wandb", "wandb.sdk", "wandb.sdk.lib", "wandb.wandb_run"):
        monkeypatch.setitem(sys.modules, name, package)
    monkeypatch.setattr(adapter, "_WANDB_AVAILABLE", True)
    return package


def test_each_fold_of_a_process_has_a_run_of_its_own(tmp_path: Path, wandb: Wandb) -> None:
    """Also after one that failed."""
    for fold in range(3):
        with suppress(RuntimeError), records.Records(tmp_path, ["wandb", "tensorboard"], f"fold {fold}") as writer:
            writer.write([{**ROW, "loss": fold}])
            if fold == 1:
                raise RuntimeError
    assert [(run.name, run.logged, run.code) for run in wandb.runs] == [
        ("fold 0", [0.0], 0),
        ("fold 1", [1.0], 1),
        ("fold 2", [2.0], 0),
    ]
    assert wandb.run is None


def test_where_nothing_was_written_no_run_is_begun(tmp_path: Path, wandb: Wandb) -> None:
    """As on all ranks but the first."""
    with records.Records(tmp_path, ["wandb", "tensorboard"], "x"):
        pass
    assert not wandb.runs
    assert not list(tmp_path.iterdir())
