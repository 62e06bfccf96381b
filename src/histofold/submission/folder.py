"""A folder of images of one's own: which files count, where their results go, and what is deleted there."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from histofold.errors import DataError
from histofold.files import digest

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
"""Endings of what is always read whole."""
ENDINGS = (*PICTURES, ".tif", ".tiff", ".svs", ".ndpi", ".mrxs", ".scn", ".vms")
SOURCE = "source.txt"
"""Name of the file that says which folder of images the results beside it are of."""
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


def place_of(results: Path, folder: Path, shared: bool = False) -> Path:
    """Where the results of a folder of images go: `<its name>`, or `<its name>-<digest>` where another one has that.

    Args:
        results: the folder of all such results.
        folder: of the images.
        shared: with other machines (`shard=`), which may have the same folder elsewhere: always `<its name>`.
    """
    source = folder.resolve()
    if shared:
        return results / source.name
    full = digest(str(source))
    names = (source.name, *(f"{source.name}-{full[:digits]}" for digits in (4, 8)))
    free = (results / name for name in names if _owner(results / name) in ("", str(source)))
    place = next(free, results / f"{source.name}-{full}")
    if place.name != source.name:
        other = _owner(results / source.name)
        print(f"{results / source.name}: holds the results of {other}; those of {source} go to {place.name}")
    return place


def _owner(place: Path) -> str:
    """The folder whose results are there; empty where there are none, or they are from before that was written down."""
    path = place / SOURCE
    return os.fsdecode(path.read_bytes()).removesuffix("\n") if path.is_file() else ""


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
    with suppress(FileExistsError), (place / SOURCE).open("xb") as stream:
        stream.write(os.fsencode(folder.resolve()) + b"\n")
    owner = _owner(place)
    if not shared and owner not in ("", str(folder.resolve())):
        raise DataError(f"{place}: another command began to write the results of {owner} there; give this one again")


def forget(place: Path, name: str) -> None:
    """Delete label image, GeoJSON and overlay of an image."""
    for kind, ending in KINDS.items():
        (place / kind / f"{name}{ending}").unlink(missing_ok=True)
