"""`validate`: any CSV against a competition's rules, with the row and the column of each fault."""

from __future__ import annotations

import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

from histofold.cli import main
from histofold.inference.ensemble import Ensemble, RunWeight


@pytest.fixture
def bowl(tmp_path: Path) -> Path:
    """A very small Data Science Bowl, unpacked; gives the folder that holds `input`."""
    root = tmp_path / "input" / "data-science-bowl-2018"
    for name, stage in (("a", "stage1_train"), ("t1", "stage1_test"), ("t2", "stage1_test")):
        path = root / stage / name / "images" / f"{name}.png"
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), np.full((8, 8, 3), 60, np.uint8))
    mask = root / "stage1_train" / "a" / "masks" / "1.png"
    mask.parent.mkdir()
    cv2.imwrite(str(mask), np.full((8, 8), 255, np.uint8))
    (root / "stage1_sample_submission.csv").write_text("ImageId,EncodedPixels\nt1,\nt2,\n")
    return tmp_path


def run(place: Path, text: str | None, *more: str) -> int:
    overrides = ["competition=dsb2018", f"paths.submissions={place}/sent", f"paths.prepared={place}/prepared"]
    if text is not None:
        (place / "own.csv").write_text(text)
        overrides.append(f"file={place}/own.csv")
    return main("validate", [*overrides, f"paths.input={place}/input", *more])


def test_a_good_file(bowl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(bowl, "ImageId,EncodedPixels\nt1,1 3\nt1,9 2\nt2,\n") == 0
    assert "keeps all rules of dsb2018" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "line", "expected"),
    [
        ("t1,1 3 5\nt2,\n", 2, "EncodedPixels"),
        ("t1,1 3\nt1,2 4\nt2,\n", 3, "shares 2 pixels"),
        ("t1,63 5\nt2,\n", 2, "EncodedPixels"),
        ("t1,\nt3,\nt2,\n", 3, "ImageId"),
        ("t1,1 3\nt1,\nt2,\n", 3, "empty row"),
        ("t1,1 3\nt1,  \nt2,\n", 3, "empty row"),
    ],
)
def test_faults_are_named(
    bowl: Path, capsys: pytest.CaptureFixture[str], rows: str, line: int, expected: str
) -> None:
    assert run(bowl, "ImageId,EncodedPixels\n" + rows) == 1
    output = capsys.readouterr()
    assert f"own.csv: line {line}, " in output.out
    assert expected in output.out
    assert "1 fault; Kaggle would refuse it" in output.err


def test_a_byte_order_mark_is_a_warning(bowl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(bowl, "\ufeffImageId,EncodedPixels\nt1,\nt2,\n") == 0
    assert "own.csv: warning: begins with a byte-order mark" in capsys.readouterr().out
    assert run(bowl, "ImageId,EncodedPixels\nt1,\nt2,\n") == 0
    assert "warning" not in capsys.readouterr().out


def test_sizes_come_from_folds_where_it_has_them(bowl: Path) -> None:
    path = bowl / "prepared" / "dsb2018" / "folds.csv"
    path.parent.mkdir(parents=True)
    table = "sample_id,split,height,width,group,stratum,fold\nt1,test,4,4,,,-1\nt2,test,4,4,,,-1\n"
    for text in (table, "\ufeff" + table):  # as written here, and as a spreadsheet saved it
        path.write_text(text)
        assert run(bowl, "ImageId,EncodedPixels\nt1,14 3\nt2,\n") == 0
        assert run(bowl, "ImageId,EncodedPixels\nt1,20 3\nt2,\n") == 1


def test_sizes_of_a_sample_that_is_called_na_come_from_folds_too(bowl: Path) -> None:
    root, path = bowl / "input" / "data-science-bowl-2018", bowl / "prepared" / "dsb2018" / "folds.csv"
    for name in ("t1", "t2"):
        (root / "stage1_test" / name / "images" / f"{name}.png").unlink()
    (root / "stage1_sample_submission.csv").write_text("ImageId,EncodedPixels\nNA,\n")
    (root / "stage1_test" / "NA" / "images").mkdir(parents=True)
    cv2.imwrite(str(root / "stage1_test" / "NA" / "images" / "NA.png"), np.full((8, 8, 3), 60, np.uint8))
    path.parent.mkdir(parents=True)
    path.write_text("sample_id,split,height,width,group,stratum,fold\nNA,test,4,4,,,-1\n")
    assert run(bowl, "ImageId,EncodedPixels\nNA,14 3\n") == 0
    assert run(bowl, "ImageId,EncodedPixels\nNA,20 3\n") == 1


def test_many_faults_are_cut_short(bowl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(bowl, "ImageId,EncodedPixels\n" + "t1,x\n" * 80 + "t2,\n") == 1
    output = capsys.readouterr()
    assert "and 30 more" in output.out
    assert "80 faults" in output.err


def test_the_only_submission_is_found(bowl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(bowl, None) == 2
    assert "there is none" in capsys.readouterr().err
    for name in ("one", "two"):
        path = bowl / "sent" / "dsb2018" / name / "submission.csv"
        path.parent.mkdir(parents=True)
        path.write_text("ImageId,EncodedPixels\nt1,\nt2,\n")
        assert run(bowl, None, f"name={name}") == 0
        if name == "one":
            assert run(bowl, None) == 0
    assert run(bowl, None) == 2
    assert "there are one, two" in capsys.readouterr().err


def test_a_missing_file_and_a_competition_without_csv(bowl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(bowl, None, "name=nothing") == 1
    assert "no such file" in capsys.readouterr().err
    assert run(bowl, "ImageId,EncodedPixels\n", "competition=glas") == 2
    assert "no submission file" in capsys.readouterr().err


def test_a_good_file_stays_good_where_the_truth_cannot_be_read(bowl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = bowl / "input" / "data-science-bowl-2018"
    (folder / "stage1_train" / "a" / "masks" / "1.png").write_bytes(b"no PNG")
    (folder / "stage1_train" / "a" / "images" / "a.png").write_bytes(b"no PNG")
    assert run(bowl, "ImageId,EncodedPixels\nt1,1 3\nt2,\n") == 0
    output = capsys.readouterr().out
    assert "keeps all rules of dsb2018" in output
    assert "not compared: " in output
    assert "not a whole image" in output


def test_the_command_that_writes_what_is_missing_is_whole(bowl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for partial, folds in ((False, []), (True, ["folds=[0,1]"])):
        members = (RunWeight("one", 0.5), RunWeight("two", 0.5))
        Ensemble("dsb2018", "best", "dsb", members, (0, 1), partial, (), ()).write(bowl / "oof")
        rows = "ImageId,EncodedPixels\nt1,1 3\nt2,\n"
        assert run(bowl, rows, "name=best", f"paths.oof={bowl}/oof") == 0
        (line,) = (line for line in capsys.readouterr().out.splitlines() if "this writes it" in line)
        words = shlex.split(line.split("this writes it: ")[1])
        assert words[:3] == ["./run.sh", "evaluate", "competition=dsb2018"]
        assert words[-2 - len(folds) :] == ["name=best", "runs=[one,two]", *folds]
    assert run(bowl, rows, "name=none", f"paths.oof={bowl}/oof") == 0
    assert "name=none 'runs=[…]'" in capsys.readouterr().out
