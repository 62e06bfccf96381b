"""Files are whole or absent, also after a process was killed; and what a file holds is known without reading it all."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from histofold import files
from histofold.errors import DataError
from histofold.files import HOST, TEMPORARY, atomic, file_digest, reading, scratch, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_process_of_this_number_left_is_not_written_upon(tmp_path: Path) -> None:
    """The first process of a container has the same number each time."""
    left = tmp_path / f".a.txt.{HOST}-{os.getpid()}{TEMPORARY}"
    left.write_text("a half")
    with atomic(tmp_path / "a.txt") as temporary:
        assert temporary == left
        assert not temporary.exists()
        temporary.write_text("whole")
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert names(tmp_path) == ["a.txt"]


def test_leftovers_of_killed_processes_of_this_machine_go(tmp_path: Path) -> None:
    gone, parent = dead(), os.getppid()
    kept = [
        f".a.txt.{HOST}-{parent}{TEMPORARY}",
        f".a.txt.else-where-{gone}{TEMPORARY}",
        f"a.txt.{HOST}-{gone}{TEMPORARY}",
        f".a.txt.{gone}{TEMPORARY}",
    ]
    for name in (*kept, *(f".{name}.{HOST}-{pid}{TEMPORARY}" for name in ("a.txt", "b.tif") for pid in (gone, 10**30))):
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (0, 0))
    young = f".c.txt.{HOST}-{gone}{TEMPORARY}"  # of a container with numbers of its own, perhaps
    (tmp_path / young).write_text("half")
    write_text(tmp_path / "a.txt", "whole")
    assert names(tmp_path) == sorted([*kept, young, "a.txt"])


def half_a_folder(path: Path, age: float) -> Path:
    """A folder with a file below it, both last written `age` seconds ago."""
    (path / "dataset").mkdir(parents=True)
    (path / "dataset" / "model.ckpt").write_bytes(b"half")
    for one in (path / "dataset" / "model.ckpt", path / "dataset", path):
        os.utime(one, (time.time() - age,) * 2)
    return path


def test_folders_of_killed_processes_go_as_their_files_do(tmp_path: Path) -> None:
    gone, day = dead(), files.LEFT_ALONE
    half_a_folder(tmp_path / f".kernel.{HOST}-{gone}{TEMPORARY}", 2 * day)
    kept = [
        half_a_folder(tmp_path / f".a.{HOST}-{os.getppid()}{TEMPORARY}", 2 * day),
        half_a_folder(tmp_path / f".b.{HOST}-{gone}{TEMPORARY}", day / 2),
        half_a_folder(tmp_path / f".c.{HOST}-{gone}{TEMPORARY}", 2 * day),
        half_a_folder(tmp_path / "d", 2 * day),
    ]
    # A file deep within was written today: another container's process of that number may be at work.
    os.utime(kept[2] / "dataset" / "model.ckpt")
    link = tmp_path / f".e.{HOST}-{gone}{TEMPORARY}"
    link.symlink_to(kept[3])
    os.utime(link, (0, 0), follow_symlinks=False)
    with scratch(tmp_path / "final") as folder:
        assert names(tmp_path) == sorted([*(path.name for path in kept), folder.name])
        assert folder.name == f".final.{HOST}-{os.getpid()}{TEMPORARY}", "as it would be found by another process"
    assert (kept[3] / "dataset" / "model.ckpt").exists(), "a link is deleted, and not what it leads to"
    assert names(tmp_path) == sorted(path.name for path in kept)


def test_a_temporary_folder_goes_unless_it_is_renamed(tmp_path: Path) -> None:
    left = tmp_path / "runs" / f".fast.{HOST}-{os.getpid()}{TEMPORARY}"
    half_a_folder(left, 0)

    def interrupted() -> None:
        with scratch(tmp_path / "runs" / "fast") as folder:
            assert folder == left
            assert names(folder) == []
            (folder / "a").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path / "runs") == []
    with scratch(tmp_path / "runs" / "fast") as folder:
        (folder / "a").write_text("whole")
        folder.rename(tmp_path / "runs" / "fast")
    assert names(tmp_path / "runs") == ["fast"]


def test_a_machine_that_is_short_of_memory_is_no_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for free, kind in ((1 << 20, MemoryError), (1 << 40, DataError)):
        monkeypatch.setattr("histofold.limits.available_memory", lambda free=free: free)
        with pytest.raises(kind), reading(tmp_path / "a.tif"):
            raise MemoryError


def test_a_folder_that_cannot_be_listed_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(folder: Path) -> Any:
        raise PermissionError(folder)

    monkeypatch.setattr(Path, "iterdir", denied)
    write_text(tmp_path / "a.txt", "whole")
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_bytes_are_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, bool]] = []
    monkeypatch.setattr(
        files.os, "fsync", lambda number: seen.append((os.fstat(number).st_size, (tmp_path / "a.txt").exists()))
    )
    write_text(tmp_path / "a.txt", "whole")
    assert seen == [(5, False)]


def test_a_file_that_asks_for_all_memory_is_a_fault_of_the_file() -> None:
    with pytest.raises(DataError, match=r"^a.tif: reading it asks for more.*\(8 EB\)"), reading(Path("a.tif")):
        raise MemoryError("8 EB")
    with pytest.raises(DataError, match="strip 7"), reading(Path("a.tif")):
        raise DataError("strip 7 is cut off")


@pytest.mark.parametrize("size", [0, 1, 70_000, 3 << 20])
def test_a_digest_changes_with_content_and_size_and_not_with_name_or_time(tmp_path: Path, size: int) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    one.write_bytes(content)
    other.write_bytes(content)
    os.utime(other, (1, 1))
    assert file_digest(one) == file_digest(other)
    other.write_bytes(content + b"x")
    assert file_digest(one) != file_digest(other)
    if size:
        other.write_bytes(content[:-1] + b"?")
        assert file_digest(one) != file_digest(other)
