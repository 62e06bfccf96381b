"""One training a fold at a time: a lock on its folder, which the system gives back when the process dies."""

from __future__ import annotations

import errno
import inspect
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import Timeout, UnixFileLock
from lightning.fabric import Fabric

from histofold.errors import HistofoldError
from histofold.training.ranks import on_first

LOCK = "train.lock"
"""In a fold's folder while it is trained; of a process that was killed it stays, and holds nobody up."""

NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""What file systems say that have no locks, or nobody who keeps them."""


@contextmanager
def alone(fabric: Fabric, folder: Path) -> Iterator[None]:
    """Have a fold's folder to the processes of this training; the first rank holds the lock for all.

    Raises:
        HistofoldError: another training has it.
    """
    with ExitStack() as held:
        on_first(fabric, lambda: held.enter_context(locked(folder)))
        yield


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made where it is missing; where there are no locks, say so and go on.

    Raises:
        HistofoldError: another process holds it.
        OSError: the folder cannot be written.
    """
    path = folder / LOCK
    made = [place for place in (folder, folder.parent) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = _lock(path)
    try:
        if _acquired(lock, folder):
            with suppress(OSError):
                path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        # Before it is released: whoever has opened it by then finds that it has no name any more.
        if lock.is_locked:
            path.unlink(missing_ok=True)
        lock.release()
        # What was left empty is no run.
        for place in made:
            with suppress(OSError):
                place.rmdir()


def _lock(path: Path) -> UnixFileLock:
    """A lock of the system's; filelock's own, which is a file that is there, would outlive a killed process."""
    # Before 3.30, which notebooks may have, there is no other to fall back to.
    if "fallback_to_soft" in inspect.signature(UnixFileLock.__init__).parameters:
        return UnixFileLock(path, timeout=0, fallback_to_soft=False)
    return UnixFileLock(path, timeout=0)


def _acquired(lock: UnixFileLock, folder: Path) -> bool:
    """Take a lock; False where the file system has none.

    Raises:
        HistofoldError: another process holds it.
        OSError: the file cannot be written.
    """
    try:
        lock.acquire()
    except Timeout:
        raise HistofoldError(
            f"{folder}: another process trains this fold{_holder(Path(lock.lock_file))}; wait for it or stop it, or "
            "give run=NAME for a new run"
        ) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        Path(lock.lock_file).unlink(missing_ok=True)
        print(f"{folder}: no locks on this file system; start no other training of this fold meanwhile", flush=True)
        return False
    return True


def _holder(path: Path) -> str:
    """Who wrote the lock file, as far as it says."""
    with suppress(OSError, UnicodeDecodeError):
        text = path.read_text().strip()
        return f" ({text})" if text else ""
    return ""
