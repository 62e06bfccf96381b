"""A folder of images of one's own: which files count, where their results go, and what is deleted there."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from histofold.errors import DataError
from histofold.files import atomic, digest
from histofold.slides import foreign

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
"""Endings of what is always read whole."""
ENDINGS = (*PICTURES, ".tif", ".tiff", *foreign.ENDINGS)
SOURCE = "source.txt"
"""Name of the file that says which folder of images the results beside it are of: its path, and a digest of it."""
KINDS = {"labels": ".tif", "geojson": ".geojson", "overlays": ".png"}
"""Folders of what is made of a band file, with the endings of the files in it."""


def find_images(folder: Path) -> list[Path]:
    """Images of a folder, sorted.

    Raises:
        DataError: no such folder, none in it (hidden files are ignored), or two that differ in their ending only.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; images= takes a folder of images")
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))
    paths = sorted(path for path in visible if path.suffix.lower() in ENDINGS)
    if not paths:
        raise DataError(f"{folder}: no image there; known endings are {' '.join(ENDINGS)}")
    stems = [path.stem for path in paths]
    double = [stem for stem in stems if stems.count(stem) > 1]
    if double:
        raise DataError(f"{folder}: several images are called {double[0]}; rename all but one")
    return paths


class Owner(NamedTuple):
    """Whose results a folder holds.

    Attributes:
        path: of the folder of images on the machine that came first; empty where nobody's results are there, or they
            are from before that was written down.
        content: `content_of` that folder; empty where it is from before that was written down.
    """

    path: str
    content: str

    def is_of(self, folder: Path, content: str | None) -> bool:
        """Whether results of `folder` belong there; by `content` where that is given, as paths say nothing then."""
        if not self.path:
            return True
        by_content = content is not None and self.content != ""
        return self.content == content if by_content else self.path == str(folder.resolve())


def content_of(folder: Path) -> str:
    """Digest of the names and sizes of a folder's images, the same on every machine; 16 hexadecimal digits.

    Raises:
        DataError: as `find_images`.
    """
    return digest([[path.name, path.stat().st_size] for path in find_images(folder)])


def place_of(results: Path, folder: Path, shared: bool = False) -> Path:
    """Where the results of a folder of images go: `<its name>`, or `<its name>-<digest>` where another one has that.

    Args:
        results: the folder of all such results.
        folder: of the images.
        shared: with other machines (`shard=`), which may have the same folder elsewhere, or another one in the same
            place: then folders are told apart by the names and sizes of their images, and not by their paths.

    Raises:
        DataError: as `find_images`, where it is shared.
    """
    source, content = folder.resolve(), content_of(folder) if shared else None
    full = content or digest(str(source))
    names = (source.name, *(f"{source.name}-{full[:digits]}" for digits in (4, 8)))
    free = (results / name for name in names if _owner(results / name).is_of(folder, content))
    place = next(free, results / f"{source.name}-{full}")
    if place.name != source.name:
        other = f"{'other images, once in ' if shared else ''}{_owner(results / source.name).path}"
        print(f"{results / source.name}: holds the results of {other}; those of {source} go to {place.name}")
    return place


def _owner(place: Path) -> Owner:
    """Whose results are there."""
    path = place / SOURCE
    text = os.fsdecode(path.read_bytes()) if path.is_file() else ""
    found = re.fullmatch(r"(.*)\n([0-9a-f]{16})\n", text, re.DOTALL)
    return Owner(found[1], found[2]) if found else Owner(text.removesuffix("\n"), "")


def claim(place: Path, folder: Path, shared: bool = False) -> None:
    """Write down whose results are there. As bytes: what a disk calls a folder need not be UTF-8.

    Args:
        place: of the results.
        folder: of the images.
        shared: see `place_of`.

    Raises:
        DataError: another command with a folder of this name was faster.
    """
    place.mkdir(parents=True, exist_ok=True)
    path, content = str(folder.resolve()), content_of(folder)
    mine = os.fsencode(f"{path}\n{content}\n")
    with suppress(FileExistsError), (place / SOURCE).open("xb") as stream:
        stream.write(mine)
    owner = _owner(place)
    if not owner.is_of(folder, content if shared else None):
        other = owner.path
        raise DataError(f"{place}: another command began to write the results of {other} there; give this one again")
    if owner.path == path and owner.content != content:  # images came or went, or it is from before that was kept
        with atomic(place / SOURCE) as temporary:
            temporary.write_bytes(mine)


def forget(place: Path, name: str) -> None:
    """Delete label image, GeoJSON and overlay of an image."""
    for kind, ending in KINDS.items():
        (place / kind / f"{name}{ending}").unlink(missing_ok=True)
