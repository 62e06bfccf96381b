"""Submission and label files: `id, run-length text`, one row a sample or one row an instance."""

from __future__ import annotations

import codecs
import csv
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from histofold.errors import DataError
from histofold.files import atomic


@dataclass(frozen=True)
class CsvFormat:
    """The columns and the run-length dialect of a competition's file.

    `per_instance` files hold one row for each instance of a sample (and one empty row for a sample without any), the
    others exactly one row a sample.
    """

    id_column: str
    rle_column: str
    dialect: str = "columns"
    per_instance: bool = False


@contextmanager
def long_fields() -> Iterator[None]:
    """Lift the csv module's limit on a field (131,072 characters): a slide's text has millions."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def write(path: Path, format: CsvFormat, rows: Iterable[tuple[str, str]]) -> int:  # noqa: A002
    """Write `(sample_id, text)` rows as they come, atomically; gives their number.

    Raises:
        ResourceError: the disk is full; what stood at `path` before is untouched.
    """
    count = 0
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([format.id_column, format.rle_column])
        for sample_id, text in rows:
            writer.writerow([sample_id, text])
            count += 1
    return count


def read(path: Path, format: CsvFormat) -> list[tuple[str, str]]:  # noqa: A002
    """Read `(sample_id, text)` rows in the order of the file; further columns are passed over.

    Raises:
        DataError: the file is missing, empty, no UTF-8 CSV, lacks a column, or a row has too few or too many cells.
    """
    return [(sample_id, text) for _, sample_id, text in numbered(path, format)]


def numbered(path: Path, format: CsvFormat) -> Iterator[tuple[int, str, str]]:  # noqa: A002
    """As `read`, one `(line in the file, sample_id, text)` at a time; the header is line 1."""
    columns = header(path)
    missing = [name for name in (format.id_column, format.rle_column) if name not in columns]
    if missing:
        raise DataError(
            f"{path}: no column {missing[0]!r}; expected {format.id_column},{format.rle_column}, "
            f"found {','.join(columns)}"
        )
    id_index, rle_index = columns.index(format.id_column), columns.index(format.rle_column)
    for line, cells in lines(path):
        if line == 1 or not cells:
            continue
        if len(cells) != len(columns):
            raise DataError(f"{path}, line {line}: {len(cells)} cells, expected {len(columns)} ({','.join(columns)})")
        yield line, cells[id_index], cells[rle_index]


def header(path: Path) -> list[str]:
    """The column names of a CSV.

    Raises:
        DataError: the file is missing, empty or no UTF-8 CSV.
    """
    for _, cells in lines(path):
        return cells
    raise DataError(f"{path}: an empty file; expected a header of column names")


def has_mark(path: Path) -> bool:
    """Whether a file begins with a byte-order mark, which this module passes over and other readers may not.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        return stream.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8


def lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The cells of each line, with the line's number in the file from 1.

    Raises:
        DataError: the file is missing or no UTF-8 CSV.
    """
    try:
        # utf-8-sig: spreadsheet programs put a byte-order mark in front of the first column's name.
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            while True:
                line = reader.line_num + 1
                with long_fields():
                    cells = next(reader, None)
                if cells is None:
                    return
                yield line, cells
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: a folder, expected a CSV file") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as a CSV file ({error})") from error
