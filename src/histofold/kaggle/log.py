"""`submissions/<competition>/log.csv`: what was sent when, its CV, and what Kaggle made of it."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from histofold.errors import DataError
from histofold.files import atomic

PENDING, COMPLETE, FAILED = "pending", "complete", "error"


@dataclass(frozen=True)
class Entry:
    """One submission.

    Attributes:
        date: when it was sent, UTC, as ISO 8601.
        name: of the ensemble.
        file: name of the file that was sent.
        sha256: of the file.
        message: the description on Kaggle.
        cv: the cross-fitted score on OOF, as text; empty when it is unknown.
        public, private: Kaggle's scores as text; empty until they are there.
        status: pending, complete or error.
        ref: Kaggle's number of the submission.
    """

    date: str
    name: str
    file: str
    sha256: str
    message: str
    cv: str
    public: str = ""
    private: str = ""
    status: str = PENDING
    ref: str = ""

    def scored(self, status: str, public: str, private: str) -> Entry:
        """The same entry with what Kaggle says now."""
        return replace(self, status=status, public=public, private=private)


COLUMNS = [field.name for field in fields(Entry)]


def read(path: Path) -> list[Entry]:
    """All entries, oldest first; none when the file does not exist.

    Raises:
        DataError: a column is missing.
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        rows = csv.DictReader(stream)
        missing = [name for name in COLUMNS if name not in (rows.fieldnames or [])]
        if missing:
            raise DataError(f"{path}: column {missing[0]!r} is missing; expected {', '.join(COLUMNS)}")
        return [Entry(**{name: row[name] or "" for name in COLUMNS}) for row in rows]


def write(path: Path, entries: list[Entry]) -> None:
    """Write all entries atomically."""
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.DictWriter(stream, COLUMNS)
        rows.writeheader()
        rows.writerows(asdict(entry) for entry in entries)
