"""What was made from what: one small file a sample, written last, by which a second run knows what is still true."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from histofold import files
from histofold.competitions.base import Competition
from histofold.errors import DataError
from histofold.tiles.store import VERSION, Recipe


@dataclass
class Record:
    """One finished sample.

    Attributes:
        sample_id: its name.
        inputs: digest of names, sizes and times of the files, and of the truth's rows: cheap, compared at every run.
        content: digest of the files' bytes, sampled for large ones: the same on every machine.
        settings: digest of the recipe.
        rows: of the tiles table, one list of values a row.
        counts: of a slide, tiles looked at, area and objects of the truth, and what of them lies in kept tiles; of an
            image, what `competitions.instances.contacts` says of its truth.
    """

    sample_id: str
    inputs: str
    content: str
    settings: str
    rows: list[list[Any]]
    counts: dict[str, int] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write to `<folder>/records/<sample_id>.json`."""
        # Not indented: a slide has thousands of rows, and writing them nicely takes longer than their pixels.
        files.write_text(record_path(folder, self.sample_id), json.dumps(vars(self)) + "\n")


def record_path(folder: Path, sample_id: str) -> Path:
    """Where the record of a sample is."""
    return folder / "records" / f"{sample_id}.json"


def read_record(folder: Path, sample_id: str) -> Record | None:
    """The record of a sample, None when there is none or it is of another make."""
    path = record_path(folder, sample_id)
    if not path.is_file():
        return None
    try:
        return Record(**files.read_json(path))
    except (DataError, TypeError):
        return None


def strangers(folder: Path, everyone: Collection[str], remove: bool) -> list[str]:
    """Ids, sorted, of samples that the store at `folder` has records or arrays of and should not hold.

    Args:
        folder: of the store.
        everyone: ids of all samples that belong there.
        remove: delete what there is of them.
    """
    found: set[str] = set()
    for pattern in ("records/*.json", "pixels/*.npy", "masks/*.npy"):
        for path in folder.glob(pattern):
            if path.stem not in everyone:
                found.add(path.stem)
                if remove:
                    path.unlink()
    return sorted(found)


READER = 3
"""Raised when the same file gives other pixels than before, so that stores are made anew.

2 knows 12 bits and tags, 3 cuts masks at half of their largest value and keeps all bits of labels in colour.
"""


def settings_digest(recipe: Recipe) -> str:
    """Digest of everything in the settings that changes pixels, and of how files are read."""
    return files.digest({"version": VERSION, "reader": READER, **recipe.to_dict()})


def input_files(competition: Competition, sample_id: str) -> list[Path]:
    """All files of a sample, the polygons of anatomical structures included."""
    found = list(competition.files(sample_id))
    anatomy = anatomy_path(competition, sample_id)
    return [*found, anatomy] if anatomy is not None else found


def anatomy_path(competition: Competition, sample_id: str) -> Path | None:
    """Polygons of cortex and medulla of one slide, None where the competition has none."""
    find = getattr(competition, "anatomy", None)
    path: Path | None = find(sample_id) if find is not None else None
    return path


def inputs_digest(competition: Competition, sample_id: str) -> str:
    """Digest of names, sizes and times of a sample's files and of its runs; reads no pixels.

    Raises:
        DataError: a file is missing.
    """
    stated: list[Any] = []
    for path in input_files(competition, sample_id):
        try:
            stat = path.stat()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        stated.append([path.name, stat.st_size, stat.st_mtime_ns])
    return files.digest([stated, runs_digest(competition, sample_id)])


def content_digest(competition: Competition, sample_id: str) -> str:
    """Digest of the bytes of a sample's files and of its runs."""
    parts = [[path.name, files.file_digest(path)] for path in input_files(competition, sample_id)]
    return files.digest([parts, runs_digest(competition, sample_id)])


def runs_digest(competition: Competition, sample_id: str) -> str:
    """Digest of a truth that is rows of a table and not a file: a slide's runs, an image's; empty where it is files."""
    if competition.kind != "slides":
        ask = getattr(competition, "truth_digest", None)
        return str(ask(sample_id)) if ask is not None else ""
    mask = competition.mask(sample_id)
    if mask is None:
        return ""
    starts, lengths = mask.runs
    return hashlib.sha256(starts.tobytes() + lengths.tobytes()).hexdigest()[:16]
