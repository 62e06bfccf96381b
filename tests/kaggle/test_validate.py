from __future__ import annotations

import csv as standard
import os
import time
from pathlib import Path

import numpy as np
import pytest

from histofold import rle
from histofold.errors import DataError
from histofold.kaggle import csv
from histofold.kaggle.csv import CsvFormat
from histofold.kaggle.validate import Fault, require, validate

SLIDES = CsvFormat("id", "predicted")
NUCLEI = CsvFormat("ImageId", "EncodedPixels", per_instance=True)
VESSELS = CsvFormat("id", "rle", dialect="rows")
SHAPES = {"a": (4, 5), "b": (10, 10), "c": (1, 1)}


@pytest.fixture
def faults(tmp_path: Path):  # noqa: ANN201
    """Check a text against three samples; gives (row, column, sample, message) of each fault."""

    def check(text: str, form: CsvFormat = SLIDES, ids: str = "abc") -> list[Fault]:
        path = tmp_path / "submission.csv"
        path.write_text(text)
        return validate(path, form, list(ids), SHAPES)

    return check


def places(found: list[Fault]) -> list[tuple[int, str, str]]:
    return [(fault.row, fault.column, fault.sample_id) for fault in found]


def test_good_files(faults) -> None:  # noqa: ANN001
    assert faults("id,predicted\na,1 20\nb,\nc,1 1\n") == []
    assert faults("id,predicted\nc,\nb,1 2 50 51\na,\n") == []
    assert faults("ImageId,EncodedPixels\na,1 3\na,4 2\nb,\nc,1 1\na,20 1\n", NUCLEI) == []
    assert faults("id,rle\na,1 0\nb,5 5\nc,1 1\n", VESSELS) == []


def test_each_fault_has_its_line_and_column(faults) -> None:  # noqa: ANN001
    found = faults("id,predicted\na,1 21\nb,1 2 3\nd,\nb,\na,5 1\n")
    assert places(found) == [
        (2, "predicted", "a"),
        (3, "predicted", "b"),
        (4, "id", "d"),
        (5, "id", "b"),
        (6, "id", "a"),
        (0, "id", "c"),
    ]
    assert "goes past the last pixel, 20" in found[0].message
    assert "odd count" in found[1].message
    assert "a second row of this sample; the first is line 3" in found[3].message
    assert str(found[0]).startswith("line 2, column 'predicted', sample 'a': run 1 of 1 (1 21)")
    assert str(found[-1]) == "column 'id', sample 'c': no row; a sample without foreground needs one, too"


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("1 2 3", "odd count"),
        ("3 0", "a length is at least 1"),
        ("3 -1", "a length is at least 1"),
        ("0 1", "the first pixel has the number 1"),
        ("9 2 3 1", "sorted"),
        ("1 4 3 4", "overlaps"),
        ("20 2", "past the last pixel"),
        ("1 0", "here the empty mask is ''"),
        ("x", "not an integer"),
        ("1.0 2.0", "not an integer"),
    ],
)
def test_rules_of_a_text(cell: str, message: str, faults) -> None:  # noqa: ANN001
    (found,) = faults(f"id,predicted\na,{cell}\nb,\nc,\n")
    assert (found.row, found.column, found.sample_id) == (2, "predicted", "a")
    assert message in found.message


def test_the_empty_mask_of_another_dialect(faults) -> None:  # noqa: ANN001
    (found,) = faults("id,rle\na,1 0\nb,\nc,1 0\n", VESSELS)
    assert (found.row, found.column) == (3, "rle")
    assert "here the empty mask is '1 0'" in found.message


def test_columns(faults) -> None:  # noqa: ANN001
    (found,) = faults("id,rle\na,\nb,\nc,\n")
    assert (found.row, found.message) == (1, "expected the columns id,predicted, found id,rle")
    (found,) = faults("predicted,id\n,a\n,b\n,c\n")
    assert found.row == 1
    found = faults("id,predicted,note\na,,\nb,1 1 1,x\nc,,\n")
    assert places(found) == [(1, "", ""), (3, "predicted", "b")]
    found = faults("id,predicted\na\nb,,\nc,\n")
    assert places(found) == [(2, "", "a"), (3, "", "b"), (0, "id", "a"), (0, "id", "b")]


def test_files_that_are_no_csv(faults, tmp_path: Path) -> None:  # noqa: ANN001
    assert "an empty file" in faults("")[0].message
    assert "not readable as a CSV" in faults('id,predicted\na,"1\n')[0].message
    assert "no such file" in validate(tmp_path / "none.csv", SLIDES, [], {})[0].message


def test_nuclei_of_an_image_may_not_overlap(faults) -> None:  # noqa: ANN001
    found = faults("ImageId,EncodedPixels\na,1 3 9 2\nb,1 50\na,3 2\nc,\na,2 1 10 4\n", NUCLEI)
    assert places(found) == [(4, "EncodedPixels", "a"), (6, "EncodedPixels", "a")]
    assert [fault.message.split(";")[0] for fault in found] == [
        "shares 1 pixels with the instance of line 2",
        "shares 2 pixels with the instance of line 2",
    ]


def test_overlaps_are_found_behind_a_long_run(faults) -> None:  # noqa: ANN001
    found = faults("ImageId,EncodedPixels\nb,1 90\nb,95 2\nb,3 1 10 1\nb,80 16\na,\nc,\n", NUCLEI)
    assert [(fault.row, fault.message.split(";")[0]) for fault in found] == [
        (4, "shares 2 pixels with the instance of line 2"),
        (5, "shares 11 pixels with the instance of line 2"),
        (5, "shares 1 pixels with the instance of line 3"),
    ]


def test_overlaps_agree_with_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "s.csv"
    for _ in range(40):
        masks = rng.random((4, 10, 10)) < 0.1
        csv.write(path, NUCLEI, [("b", rle.encode(mask)) for mask in masks if mask.any()])
        masks = masks[[mask.any() for mask in masks]]
        expected = {
            (j + 2, int((masks[i] & masks[j]).sum()), i + 2)
            for j in range(len(masks))
            for i in range(j)
            if (masks[i] & masks[j]).any()
        }
        found = {
            (fault.row, int(fault.message.split()[1]), int(fault.message.split(" line ")[1].split(";")[0]))
            for fault in validate(path, NUCLEI, ["b"], SHAPES)
        }
        assert found == expected


def test_an_empty_row_beside_nuclei(faults) -> None:  # noqa: ANN001
    found = faults("ImageId,EncodedPixels\na,1 3\na,\nb,\nb,\nc,\n", NUCLEI)
    assert places(found) == [(3, "EncodedPixels", "a"), (5, "EncodedPixels", "b")]
    assert "the sample has another row, line 2" in found[0].message


def test_samples_of_unknown_size_are_checked_but_for_the_end(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.csv"
    path.write_text("id,predicted\nx,1 2 999999999999 5\ny,1 2 2 2\n")
    (found,) = validate(path, SLIDES, ["x", "y"], {})
    assert (found.row, found.sample_id) == (3, "y")


def test_require_names_the_first_of_many(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("id,predicted\na,1\nb,1\n")
    with pytest.raises(DataError, match=r"s\.csv: line 2, column 'predicted', sample 'a': .* \(and 2 more\)"):
        require(path, SLIDES, ["a", "b", "c"], SHAPES)
    require_ok = tmp_path / "ok.csv"
    require_ok.write_text("id,predicted\nc,1 1\n")
    require(require_ok, SLIDES, ["c"], SHAPES)


def test_a_large_file_takes_seconds(tmp_path: Path) -> None:
    """30,000 nuclei, and a slide of 100,000 runs on 1.3 billion pixels."""
    rows = [
        (f"image{i // 100}", " ".join(f"{1000 * (i % 100) + 20 * k + 1} 9" for k in range(20))) for i in range(30_000)
    ]
    csv.write(tmp_path / "n.csv", NUCLEI, rows)
    ids = [f"image{i}" for i in range(300)]
    start = time.process_time()
    assert validate(tmp_path / "n.csv", NUCLEI, ids, dict.fromkeys(ids, (400, 400))) == []
    csv.write(tmp_path / "s.csv", SLIDES, [("x", " ".join(f"{13_000 * k + 1} 77" for k in range(100_000)))])
    assert validate(tmp_path / "s.csv", SLIDES, ["x"], {"x": (31_299, 44_066)}) == []
    assert time.process_time() - start < 10


def test_real_labels_of_dsb() -> None:
    if "HISTOFOLD_DATA" not in os.environ:
        pytest.skip("HISTOFOLD_DATA is not set")
    folder = Path(os.environ["HISTOFOLD_DATA"]) / "dsb2018"
    with (folder / "index.csv").open() as stream:
        shapes = {row["id"]: (int(row["height"]), int(row["width"])) for row in standard.DictReader(stream)}
    path = folder / "stage1_train_labels.csv"
    rows = csv.read(path, NUCLEI)
    ids = list(dict.fromkeys(sample_id for sample_id, _ in rows))
    found = validate(path, NUCLEI, ids, shapes)
    # What is found is in the real file: shown by painting the two nuclei that are said to share pixels.
    for fault in found[:20]:
        other = int(fault.message.split(" line ")[1].split(";")[0])
        one, two = (rle.decode(rows[line - 2][1], shapes[fault.sample_id]) for line in (fault.row, other))
        assert int((one & two).sum()) == int(fault.message.split()[1])
    assert all("shares" in fault.message for fault in found)
