"""Small CSV tables beside images, read whole: rows by column, or by id."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from histofold.competitions.rows import nfc, require_columns
from histofold.errors import DataError

Row = dict[str, str]

KNOWN = ("id", "group", "type", "split")
"""Columns of tables beside images that are known without being named, whatever the case of their letters."""


def rows_of(path: Path, columns: Sequence[str]) -> list[Row]:
    """Every row by column, but those without any value; a row that ends early has empty values.

    Names and values are without the space around them, and their accents as in `nfc`.

    Raises:
        DataError: no such file, one of `columns` is missing or there twice, not text in UTF-8, or more values than the
            header has.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            reader.fieldnames = _header(path, reader.fieldnames or [], columns)
            found = []
            for row in reader:
                beyond = row.pop(None, [])  # where csv keeps what goes beyond the header
                if any(text.strip() for text in beyond):
                    raise DataError(
                        f"{path}: line {reader.line_num}: {len(row) + len(beyond)} values where the header has "
                        f"{len(row)}; put a value that holds a comma in quotes"
                    )
                if any(text.strip() for text in row.values()):
                    found.append({name: nfc(text.strip()) for name, text in row.items()})
            return found
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file; it belongs to this layout: put it there, or set competition.options.folder=PATH to "
            "the folder that holds it"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text in UTF-8 ({error.reason}); save the table as CSV in UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV table ({error}); save it as CSV in UTF-8") from error


def _header(path: Path, names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Names of columns as `rows_of` gives them: `Group ` is the known `group`, unless `Group` was asked for."""
    stripped = [nfc(name.strip()) for name in names]
    header = [name.lower() if name.lower() in KNOWN and name not in columns else name for name in stripped]
    require_columns(path, header, columns)
    for wanted in (*columns, *KNOWN):
        same = [name for name, meant in zip(stripped, header, strict=True) if meant == wanted]
        if len(same) > 1:
            found = " and ".join(map(repr, same))
            raise DataError(f"{path}: columns {found} both count as {wanted!r}; rename or remove one of them")
    return header


def by_id(path: Path, columns: Sequence[str]) -> dict[str, Row]:
    """Rows by the first of `columns`.

    Raises:
        DataError: as `rows_of`, or two rows have the same id.
    """
    found: dict[str, Row] = {}
    for row in rows_of(path, columns):
        key = row[columns[0]]
        if key in found:
            raise DataError(f"{path}: {columns[0]} {key!r} is there twice; each has one row, remove the other")
        found[key] = row
    return found


def value(path: Path, key: str, row: Row, column: str) -> str:
    """What the row of `key` says in `column`.

    Raises:
        DataError: nothing.
    """
    text = row[column]
    if not text:
        raise DataError(f"{path}: the row of {key} has no {column!r}; fill it in")
    return text
