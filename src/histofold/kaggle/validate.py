"""Does a CSV keep the competition's rules? Every fault with its line and column, where Kaggle answers with one word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from histofold.errors import DataError
from histofold.kaggle import csv
from histofold.kaggle.csv import CsvFormat
from histofold.rle.dialects import Dialect, RleError, find
from histofold.rle.text import read as read_runs

UNBOUNDED = 1 << 60
"""Pixels of an image whose size nobody knows: everything but the end is still checked."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in a CSV.

    Attributes:
        row: line in the file, the header is line 1; 0 when it is about the whole file (a missing id).
        column: name of the column, empty when it is about the whole row.
        sample_id: the sample, empty when it is about none.
        message: what was expected and what was found.
    """

    row: int
    column: str
    sample_id: str
    message: str

    def __str__(self) -> str:
        """One line for people."""
        where = [f"line {self.row}"] if self.row else []
        where += [f"column {self.column!r}"] if self.column else []
        where += [f"sample {self.sample_id!r}"] if self.sample_id else []
        return f"{', '.join(where) or 'file'}: {self.message}"


@dataclass(frozen=True)
class Row:
    """One row that could be parsed: its line, sample and 0-based runs."""

    line: int
    sample_id: str
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]


def validate(
    path: Path,
    format: CsvFormat,  # noqa: A002
    ids: Sequence[str],
    shapes: Mapping[str, tuple[int, int]],
) -> list[Fault]:
    """Check a CSV against a competition's rules; an empty list means that it keeps them all.

    `ids` are those of the sample submission; `shapes` gives (height, width) of each sample, and a sample without one is
    checked for all but runs past the end. Checked are the columns' names, unknown, missing and repeated ids, each text,
    and, in files of one row an instance, that no two instances of a sample share a pixel. Faults come in the order of
    the file; those of the whole file come last.
    """
    try:
        faults, rows = _read(path, format, ids, shapes)
    except DataError as error:
        return [Fault(0, "", "", str(error))]
    if rows is None:
        return faults
    if format.per_instance:
        faults += _overlaps(rows, format)
    return sorted(faults, key=lambda fault: fault.row or 1 << 60)


def require(path: Path, format: CsvFormat, ids: Sequence[str], shapes: Mapping[str, tuple[int, int]]) -> None:  # noqa: A002
    """As `validate`, for a program that must not go on with a faulty file.

    Raises:
        DataError: the file has faults; the message gives their number and the first of them.
    """
    faults = validate(path, format, ids, shapes)
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise DataError(f"{path}: {faults[0]}{more}")


def _read(
    path: Path,
    format: CsvFormat,  # noqa: A002
    ids: Sequence[str],
    shapes: Mapping[str, tuple[int, int]],
) -> tuple[list[Fault], list[Row] | None]:
    expected, columns = [format.id_column, format.rle_column], csv.header(path)
    faults: list[Fault] = []
    if columns != expected:
        faults.append(Fault(1, "", "", f"expected the columns {','.join(expected)}, found {','.join(columns)}"))
        if not set(expected) <= set(columns):
            return faults, None
    id_index, rle_index = columns.index(format.id_column), columns.index(format.rle_column)
    known, dialect = set(ids), find(format.dialect)
    rows: list[Row] = []
    seen: dict[str, list[tuple[int, bool]]] = {}
    for line, cells in csv.lines(path):
        if line == 1 or not cells:
            continue
        if len(cells) != len(columns):
            faults.append(Fault(line, "", cells[0], f"{len(cells)} cells, expected {len(columns)}"))
            continue
        # The codec passes over blanks, and so does Kaggle: a row that holds nothing else is an empty one.
        sample_id, text = cells[id_index], cells[rle_index]
        empty = text.strip() == dialect.empty
        if sample_id not in known:
            faults.append(Fault(line, format.id_column, sample_id, "an id that the sample submission does not have"))
        else:
            faults += _repeated(line, sample_id, empty, seen.get(sample_id, []), format)
        seen.setdefault(sample_id, []).append((line, empty))
        try:
            rows.append(Row(line, sample_id, *read_runs(text, _pixels(shapes.get(sample_id)), dialect)))
        except RleError as error:
            faults.append(Fault(line, format.rle_column, sample_id, _hint(str(error), text, dialect)))
    for sample_id in ids:
        if sample_id not in seen:
            faults.append(Fault(0, format.id_column, sample_id, "no row; a sample without foreground needs one, too"))
    return faults, rows


def _hint(message: str, text: str, dialect: Dialect) -> str:
    """Say when the cell is the empty mask of another dialect."""
    if text.strip() in ("", "1 0"):
        return f"{message}; here the empty mask is {dialect.empty!r}"
    return message


def _pixels(shape: tuple[int, int] | None) -> int:
    return UNBOUNDED if shape is None else shape[0] * shape[1]


def _repeated(line: int, sample_id: str, empty: bool, before: list[tuple[int, bool]], format: CsvFormat) -> list[Fault]:  # noqa: A002
    """A second row of a sample: never in one-row files; in the others never together with an empty row."""
    if not before:
        return []
    first, first_empty = before[0]
    if not format.per_instance:
        return [Fault(line, format.id_column, sample_id, f"a second row of this sample; the first is line {first}")]
    if empty or first_empty:
        return [
            Fault(
                line,
                format.rle_column,
                sample_id,
                f"an empty row says that there is nothing, but the sample has another row, line {first}",
            )
        ]
    return []


def _overlaps(rows: list[Row], format: CsvFormat) -> list[Fault]:  # noqa: A002
    """Pairs of instances of one sample that share pixels, each pair of rows once, at the later row."""
    samples: dict[str, list[Row]] = {}
    for row in rows:
        samples.setdefault(row.sample_id, []).append(row)
    faults = []
    for sample_id, instances in samples.items():
        for (one, two), count in _shared(instances).items():
            text = f"shares {count} pixels with the instance of line {one}; instances may not overlap"
            faults.append(Fault(two, format.rle_column, sample_id, text))
    return faults


def _shared(instances: list[Row]) -> dict[tuple[int, int], int]:
    """Shared pixels of each pair of lines that has any."""
    starts = np.concatenate([row.starts for row in instances])
    ends = starts + np.concatenate([row.lengths for row in instances])
    lines = np.repeat([row.line for row in instances], [row.starts.size for row in instances])
    order = np.argsort(starts, kind="stable")
    starts, ends, lines = starts[order], ends[order], lines[order]
    reach = np.maximum.accumulate(ends)
    found: dict[tuple[int, int], int] = {}
    # A run that starts before the furthest end so far overlaps something; almost always there is none of them.
    for later in np.flatnonzero(starts[1:] < reach[:-1]) + 1:
        earlier = later - 1
        while earlier >= 0 and reach[earlier] > starts[later]:
            common = int(min(ends[earlier], ends[later]) - starts[later])
            if common > 0:
                pair = (int(min(lines[earlier], lines[later])), int(max(lines[earlier], lines[later])))
                found[pair] = found.get(pair, 0) + common
            earlier -= 1
    return found
