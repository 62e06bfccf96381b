"""Training curves as PNG files."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from histofold.errors import DataError
from histofold.report.figures import read_metrics, training_curves

HEADER = "epoch,step,lr,loss,score,seconds,images_per_second\n"


def write_metrics(path: Path, rows: str) -> Path:
    path.write_text(HEADER + rows)
    return path


def test_curves_of_a_usual_run(tmp_path: Path) -> None:
    rows = "".join(
        f"{i},{i * 10},{0.001 / (i + 1)},{1 / (i + 1)},{'' if i % 2 else 0.1 * i},1.5,20\n" for i in range(6)
    )
    out = training_curves(write_metrics(tmp_path / "metrics.csv", rows), tmp_path / "curves.png")
    picture = cv2.imread(str(out))
    assert picture is not None
    assert picture.shape[0] > 400
    assert picture.std() > 5
    assert not list(tmp_path.glob(".*")), "the temporary file is gone"


def test_curves_before_the_first_validation(tmp_path: Path) -> None:
    out = training_curves(write_metrics(tmp_path / "metrics.csv", "0,10,0.001,0.9,,1,20\n"), tmp_path / "curves.png")
    assert cv2.imread(str(out)) is not None


def test_a_resumed_step_counts_once(tmp_path: Path) -> None:
    path = write_metrics(tmp_path / "metrics.csv", "0,10,0.1,0.9,,1,2\n1,20,0.1,0.8,,1,2\n1,20,0.1,0.7,0.5,1,2\n")
    table = read_metrics(path)
    assert table["loss"].tolist() == [0.9, 0.7]


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        training_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    with pytest.raises(DataError, match="no row yet"):
        training_curves(write_metrics(tmp_path / "empty.csv", ""), tmp_path / "curves.png")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="column 'epoch' is missing"):
        training_curves(tmp_path / "other.csv", tmp_path / "curves.png")
