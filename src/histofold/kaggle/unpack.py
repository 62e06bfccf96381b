"""Unpack an archive that someone else made: nothing leaves the target folder, and a broken try can be run again."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from histofold.errors import DataError, ResourceError
from histofold.files import atomic
from histofold.progress import bar

CHUNK = 1 << 20
KEPT_FREE = 64 << 20
"""Bytes of the disk that are left free."""


class DamagedArchiveError(DataError):
    """An archive that is not whole; `archive` is the file."""

    def __init__(self, archive: Path, reason: str) -> None:
        super().__init__(f"{archive}: {reason}")
        self.archive = archive


def unpack(archive: Path, folder: Path) -> dict[str, int]:
    """Unpack a ZIP into `folder`, and every ZIP inside it beside or below itself, as Kaggle nests them.

    All names are checked before the first byte is written. Files that are there in full are kept, so an interrupted
    run goes on; an inner ZIP is deleted when its files are there. Gives the files that the archive holds, as paths
    relative to `folder`, with their sizes in bytes.

    Raises:
        DamagedArchiveError: it is not whole.
        DataError: a member would leave the folder, is a link, or is no plain file.
        ResourceError: the disk is too small.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _opened(archive) as source:
        members = [member for member in source.infolist() if not member.is_dir()]
        targets = {member.filename: safe_target(archive, member, folder) for member in members}
        _require_space(archive, members, targets, folder)
        with bar(total=len(members), text=f"unpacking {archive.name}", unit="file") as progress:
            for member in members:
                _write(archive, source, member, targets[member.filename])
                progress.update()
    arrived: dict[str, int] = {}
    for member in members:
        target = targets[member.filename]
        if target.suffix.lower() == ".zip":
            inside = _nested_folder(target)
            base = inside.relative_to(folder).as_posix()
            arrived.update({str(PurePosixPath(base, name)): size for name, size in unpack(target, inside).items()})
            target.unlink()
        else:
            arrived[str(target.relative_to(folder).as_posix())] = member.file_size
    return arrived


def safe_target(archive: Path, member: zipfile.ZipInfo, folder: Path) -> Path:
    """Where a member goes, inside `folder`.

    Raises:
        DataError: its name is absolute, climbs out with `..`, goes through a link, or it is itself a link or a device.
    """
    name = member.filename
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise DataError(f"{archive}: {name!r} is a link or no plain file; nothing of it was unpacked")
    parts = PurePosixPath(name.replace("\\", "/")).parts
    outside = not parts or parts[0].startswith("/") or ".." in parts or parts[0][1:2] == ":" or "\0" in name
    target = folder.joinpath(*parts) if not outside else folder
    if outside or not target.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{archive}: {name!r} leads out of {folder}; nothing of it was unpacked")
    return target


def _opened(archive: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except zipfile.BadZipFile as error:
        raise DamagedArchiveError(archive, f"not a whole ZIP ({error})") from error


def _require_space(archive: Path, members: list[zipfile.ZipInfo], targets: dict[str, Path], folder: Path) -> None:
    missing = sum(member.file_size for member in members if not _is_whole(targets[member.filename], member))
    free = shutil.disk_usage(folder).free - KEPT_FREE
    if missing > free:
        raise ResourceError(
            f"{archive}: unpacked it needs {missing / 1e9:.1f} GB more, {folder} has {max(free, 0) / 1e9:.1f} GB free; "
            "free some space or move paths.input elsewhere"
        )


def _is_whole(target: Path, member: zipfile.ZipInfo) -> bool:
    # Files are renamed into place when they are whole, so the size is enough to know one.
    return target.is_file() and target.stat().st_size == member.file_size


def _write(archive: Path, source: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    if _is_whole(target, member):
        return
    try:
        with atomic(target) as temporary, source.open(member) as packed, temporary.open("wb") as out:
            shutil.copyfileobj(packed, out, CHUNK)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DamagedArchiveError(archive, f"{member.filename!r} cannot be read ({error})") from error


def _nested_folder(archive: Path) -> Path:
    """Where a ZIP in the ZIP goes: `labels.csv.zip` beside itself; `train.zip` into `train/`, unless it holds that."""
    if Path(archive.stem).suffix:
        return archive.parent
    with _opened(archive) as source:
        tops = {PurePosixPath(member.filename.replace("\\", "/")).parts[:1] for member in source.infolist()}
    return archive.parent if tops == {(archive.stem,)} else archive.parent / archive.stem
