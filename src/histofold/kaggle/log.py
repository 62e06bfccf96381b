"""`submissions/<competition>/log.csv`: what was sent when, its CV, and what Kaggle made of it."""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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
        DataError: a column is missing, or it is no CSV in UTF-8 (a spreadsheet may have saved it).
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:  # a spreadsheet puts a byte-order mark before it
            rows = csv.DictReader(stream)
            missing = [name for name in COLUMNS if name not in (rows.fieldnames or [])]
            if missing:
                raise DataError(
                    f"{path}: column {missing[0]!r} is missing; expected {', '.join(COLUMNS)}, separated by commas"
                )
            return [Entry(**{name: row[name] or "" for name in COLUMNS}) for row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: expected a CSV in UTF-8, separated by commas ({error}); if a spreadsheet saved it, let it save "
            "it again as CSV UTF-8"
        ) from error


def write(path: Path, entries: Iterable[Entry]) -> None:
    """Write all entries atomically."""
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.DictWriter(stream, COLUMNS)
        rows.writeheader()
        rows.writerows(asdict(entry) for entry in entries)


def sent(path: Path, digest: str) -> Entry | None:
    """The last entry of what has this digest, unless Kaggle could not score it."""
    found = [entry for entry in read(path) if entry.sha256 == digest and entry.status != FAILED]
    return found[-1] if found else None


def once(path: Path, digest: str, submit: Callable[[], Entry]) -> tuple[Entry, bool]:
    """Submit what has this digest and log it, unless that was done before: the entry, and whether it is new.

    The log stays locked meanwhile, so that a second command, started at the same time, finds the entry.

    Raises:
        DataError: the log cannot be read; nothing is submitted.
    """
    with _locked(path):
        earlier = sent(path, digest)
        if earlier is not None:
            return earlier, False
        entry = submit()
        # Before the score: what was sent must be known even if the wait for it is broken off.
        write(path, [*read(path), entry])
        return entry, True


def renew(path: Path, entries: Iterable[Entry]) -> None:
    """Write these entries over those of the same number; all others stay as the file has them by now.

    Raises:
        DataError: the log cannot be read.
    """
    newest = {entry.ref: entry for entry in entries if entry.ref}
    with _locked(path):
        write(path, [newest.get(entry.ref, entry) for entry in read(path)])


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other commands from changing the log in this block; a lock ends with its process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A file of its own, which stays: the log itself is replaced, and with it a lock would be.
    number = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        told = False
        while not _lock(number):
            if not told:
                print(f"{path}: another command is writing it; waiting for that one", flush=True)
            told = True
            time.sleep(0.1)
        yield
    finally:
        os.close(number)


def _lock(number: int) -> bool:
    """Lock an open file; False where another process has it. Closing the file unlocks it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a disk that knows no locks: go on without
        return True
    return True
