from __future__ import annotations

import csv as standard
import errno
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histofold.errors import DataError, ResourceError
from histofold.kaggle import csv
from histofold.kaggle.csv import CsvFormat

NUCLEI = CsvFormat("ImageId", "EncodedPixels", per_instance=True)
SLIDES = CsvFormat("id", "predicted")


def test_what_is_written_is_what_kaggle_shows_in_its_samples(tmp_path: Path) -> None:
    path = tmp_path / "new" / "submission.csv"
    assert csv.write(path, SLIDES, iter([("2ec3f1bb9", ""), ("3589adb90", "1 2 9 4")])) == 2
    assert path.read_bytes() == b"id,predicted\n2ec3f1bb9,\n3589adb90,1 2 9 4\n"
    assert csv.read(path, SLIDES) == [("2ec3f1bb9", ""), ("3589adb90", "1 2 9 4")]
    assert [item.name for item in path.parent.iterdir()] == ["submission.csv"]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs", "Cc"])), st.text("0123456789 ", max_size=50)))
)
def test_rows_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.csv"
    csv.write(path, NUCLEI, rows)
    assert csv.read(path, NUCLEI) == rows


def test_a_slide_of_a_million_numbers_is_one_cell(tmp_path: Path) -> None:
    text = " ".join(map(str, range(1, 500_000)))
    limit = standard.field_size_limit()
    csv.write(tmp_path / "a.csv", SLIDES, [("a", text)])
    assert csv.read(tmp_path / "a.csv", SLIDES) == [("a", text)]
    assert standard.field_size_limit() == limit


def test_further_columns_byte_order_marks_and_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(b"\xef\xbb\xbforgan,id,rle\r\nkidney,10044,1 2\r\n\r\nlung,10274,\r\n")
    assert csv.read(path, CsvFormat("id", "rle")) == [("10044", "1 2"), ("10274", "")]
    assert list(csv.numbered(path, CsvFormat("id", "rle"))) == [(2, "10044", "1 2"), (4, "10274", "")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,rle\na,1 1\n", "no column 'predicted'; expected id,predicted, found id,rle"),
        (b"", "an empty file; expected a header"),
        (b"id,predicted\na,1 1\nb\n", "line 3: 1 cells, expected 2"),
        (b"id,predicted\na,1 1,2\n", "line 2: 3 cells"),
        (b"id,predicted\na,\xff\xfe\n", "not readable as a CSV file"),
        (b'id,predicted\na,"1 1\n', "not readable as a CSV file"),
    ],
)
def test_broken_files_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        csv.read(path, SLIDES)
    assert str(caught.value).startswith(str(path))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        csv.read(tmp_path / "none.csv", SLIDES)
    with pytest.raises(DataError, match="a folder"):
        csv.read(tmp_path, SLIDES)


def test_a_full_disk_or_an_error_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    csv.write(path, SLIDES, [("old", "")])

    def rows(error: Exception):  # noqa: ANN202
        yield "new", "1 1"
        raise error

    with pytest.raises(ResourceError, match="the disk is full"):
        csv.write(path, SLIDES, rows(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(KeyboardInterrupt):
        csv.write(path, SLIDES, rows(KeyboardInterrupt()))  # type: ignore[arg-type]
    assert csv.read(path, SLIDES) == [("old", "")]
    assert [item.name for item in tmp_path.iterdir()] == ["submission.csv"]
