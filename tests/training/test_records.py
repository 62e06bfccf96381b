"""When a fold's curves are drawn: now and then, and at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

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
