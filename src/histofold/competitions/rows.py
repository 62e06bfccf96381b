"""Rows of a large CSV by id: an index of byte offsets, so that no process holds a hundred megabytes of runs."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from histofold.errors import DataError


def nfc(text: str) -> str:
    """The text with one character for a letter and its accent: a Mac writes names of files with two, others with one.

    Ids are compared so, and leave so; paths stay as the disk has them.
    """
    return unicodedata.normalize("NFC", text)


@dataclass(frozen=True)
class RowIndex:
    """Where the rows of each id are in a CSV file.

    Attributes:
        path: the file.
        header: its column names.
        offsets: id → byte offset and line number (1-based, the header is line 1) of each of its rows, in file order.
    """

    path: Path
    header: tuple[str, ...]
    offsets: dict[str, tuple[tuple[int, int], ...]]

    @classmethod
    def of(cls, path: Path, columns: Sequence[str], unique: bool = False) -> RowIndex:
        """Scan `path`, whose first of `columns` is the id; `unique` refuses a second row of an id.

        Raises:
            DataError: missing file or column, empty id, duplicate id where ids must be unique.
        """
        found: dict[str, list[tuple[int, int]]] = {}
        try:
            stream = path.open("rb")
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file") from error
        with stream:
            header = tuple(name.strip() for name in _fields(stream.readline(), path, 1))
            require_columns(path, header, columns)
            position, offset = header.index(columns[0]), stream.tell()
            for number, line in enumerate(stream, start=2):
                if line.strip():
                    # The id column comes first in every format we read, so long run texts need not be split.
                    key = _id(line, position, path, number)
                    if unique and key in found:
                        raise DataError(f"{path}: line {number}: {key!r} is there twice; each id has one row")
                    found.setdefault(key, []).append((offset, number))
                offset += len(line)
        return cls(path, header, {key: tuple(value) for key, value in found.items()})

    def __contains__(self, key: str) -> bool:
        """Whether the id has a row, however its accents are written."""
        return nfc(key) in self._places

    def ids(self) -> list[str]:
        """Ids as they are written there, in the order of their first rows."""
        return list(self.offsets)

    @cached_property
    def _places(self) -> dict[str, tuple[tuple[int, int], ...]]:
        found: dict[str, tuple[tuple[int, int], ...]] = {}
        for key, places in self.offsets.items():
            found[nfc(key)] = (*found.get(nfc(key), ()), *places)
        return found

    def rows(self, key: str) -> list[dict[str, str]]:
        """The rows of one id as dictionaries by column, empty when there are none.

        Raises:
            DataError: a row has more or fewer fields than the header.
        """
        rows = []
        with self.path.open("rb") as stream:
            for offset, number in self._places.get(nfc(key), ()):
                stream.seek(offset)
                fields = _fields(stream.readline(), self.path, number)
                if len(fields) != len(self.header):
                    raise DataError(
                        f"{self.path}: line {number}: {len(fields)} fields where the header has {len(self.header)}"
                    )
                rows.append(dict(zip(self.header, fields, strict=True)))
        return rows


def require_columns(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    """Raise DataError when one of `columns` is not in `header`."""
    _require_commas(path, header)
    for name in columns:
        if name not in header:
            raise DataError(f"{path}: no column {name!r}; expected {', '.join(columns)}, found {', '.join(header)}")


def _require_commas(path: Path, header: Sequence[str]) -> None:
    """Raise DataError where a header is one value with other separators in it, as spreadsheets write in some countries.

    A table of one column has a header without any.
    """
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and mark in header[0]:
            raise DataError(
                f"{path}: its columns are separated by {name} ({header[0]!r}), expected commas; save the table as CSV "
                "with a comma as the separator"
            )


def _fields(line: bytes, path: Path, number: int) -> list[str]:
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: line {number}: not text in UTF-8") from error
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    try:
        return next(csv.reader([text]), [])
    except csv.Error as error:  # Its fields may be of any length by now: a line end is left, CR without LF.
        raise DataError(
            f"{path}: line {number}: {error}; expected rows that end in LF or CRLF, found CR alone: save it with LF or "
            "CRLF line ends"
        ) from error


def _id(line: bytes, position: int, path: Path, number: int) -> str:
    key = line.split(b",", 1)[0].strip(b' "\r\n') if position == 0 else b""
    text = key.decode("utf-8", "replace") if position == 0 else (_fields(line, path, number) + [""] * 99)[position]
    if not text:
        raise DataError(f"{path}: line {number}: empty id")
    return text
