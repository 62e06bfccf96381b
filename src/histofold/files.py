"""Files that are either whole or absent: everything is written under a temporary name and then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from histofold.errors import DataError, ResourceError

HOST = platform.node()[:32]
TEMPORARY = ".partial"
"""Ending of what is still being written; such a file or folder is never read and may be deleted at any time."""
PIECES = 16
PIECE_BYTES = 64 << 10
"""A large file is known by its size and PIECES pieces of PIECE_BYTES, evenly spread; a small one by all its bytes."""

_swept: set[Path] = set()
"""Folders that this process has looked through for what killed processes left."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it onto `path` when the block ends well, delete it otherwise.

    What processes of this machine left half-written in that folder when they were killed goes, too.

    Raises:
        ResourceError: the disk is full; what stood at `path` before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent not in _swept:
        sweep(path.parent)
        _swept.add(path.parent)
    temporary = _beside(path)
    # A killed process may have had this very number, as the first one of a container has each time: GDAL, for one,
    # would read what stands there before it writes.
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        # Without it, a machine that stops may keep the new name and lose the bytes: zeros, of the right length.
        with temporary.open("r+b") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(
                f"{path}: the disk is full; nothing was changed there. Free some space or move paths.* elsewhere."
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Give an empty temporary folder beside `path`, to be filled and renamed; what is left of it goes with the block.

    What processes of this machine left in that place when they were killed goes, too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    temporary = _beside(path)
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process with this very number
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path) -> Path:
    """The temporary name of this process for what is to be `path`.

    Host and process keep two processes that write the same, perhaps on a shared disk, from mixing their bytes: the last
    rename wins.
    """
    return path.with_name(f".{path.name}.{HOST}-{os.getpid()}{TEMPORARY}")


LEFT_ALONE = 24 * 3600
"""Seconds for which another process's temporary files and folders are left alone."""

PLENTY = 1 << 30
"""Bytes of free memory beside which a file that asks for more has wrong numbers in it."""


def sweep(folder: Path) -> None:
    """Delete temporary files and folders in `folder` of processes of this machine that are there no more, a day after.

    On one machine, containers may have its name and numbers of their own: what another one still writes is younger.
    """
    mine = re.compile(rf"\..+\.{re.escape(HOST)}-([0-9]+){re.escape(TEMPORARY)}")
    try:
        paths = list(folder.iterdir())
    except OSError:  # a folder that may be written and not listed
        return
    for path in paths:
        found = mine.fullmatch(path.name)
        if found and not _alive(int(found[1])):
            with suppress(OSError):  # its mode may be what it likes, and another process may have been faster
                if time.time() - _touched(path) > LEFT_ALONE:
                    _delete(path)


def _touched(path: Path) -> float:
    """When a file, or the newest of what is in a folder, was written last, in seconds since 1970."""
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    return max(one.lstat().st_mtime for one in (path, *inside))


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _alive(pid: int) -> bool:
    """Whether a process of this number runs here; True where that cannot be asked without harm."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it runs and is somebody else's
        return True
    return True


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Read the file `path` in this block: to ask for more memory than there is is its fault, where much is left.

    The sizes in a damaged file ask for any amount. Where little is left, every file would meet the same.

    Raises:
        DataError: memory ran out though there is plenty.
    """
    try:
        yield
    except MemoryError as error:
        from histofold.limits import available_memory  # it reads files itself

        if available_memory() < PLENTY:
            raise
        raise DataError(
            f"{path}: reading it asks for more memory than there is ({error or 'nothing more is known'}); is the file "
            "whole? Copy or download it again, or use a machine with more memory"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically as indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: the file is missing or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as JSON ({error}); delete it and make it anew") from error


def sha256(path: Path) -> str:
    """Hash a file's bytes; gives 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_digest(path: Path) -> str:
    """Hash a file's size and bytes, of pieces of them if it is large: the same on every machine; 16 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    found = hashlib.sha256(str(size).encode())
    with path.open("rb") as stream:
        for offset in _pieces(size):
            stream.seek(offset)
            found.update(stream.read(PIECE_BYTES))
    return found.hexdigest()[:16]


def _pieces(size: int) -> Iterable[int]:
    if size <= PIECES * PIECE_BYTES:
        return range(0, size, PIECE_BYTES)
    return [(size - PIECE_BYTES) * index // (PIECES - 1) for index in range(PIECES)]


def digest(value: Any) -> str:
    """Hash a JSON-like value, independent of key order; gives 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
