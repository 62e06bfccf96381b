"""Items of a folder competition: an image each, with its truth and what a table says of it, and whether they fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from histofold.competitions import images, tables
from histofold.competitions.rows import nfc
from histofold.errors import DataError


@dataclass(frozen=True)
class Item:
    """One image of a folder competition: where its pixels and truth are.

    Attributes:
        sample_id, split, group, stratum: as in `Sample`; group and stratum are None where the layout does not say. The
            id is as in `rows.nfc`, whatever the disk calls the file.
        image: file of the pixels.
        labels: file of the truth, None where it is unknown.
        reader: how the truth is read, a key of `readers.READERS`.
        zoom: whole number by which pixels and truth are enlarged, for what was taken at a lower magnification.
    """

    sample_id: str
    split: str
    image: Path
    labels: Path | None
    reader: str
    group: str | None = None
    stratum: str | None = None
    zoom: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "sample_id", nfc(self.sample_id))


def pictures_in(root: Path, folder: str) -> dict[str, Path]:
    """Images of a folder below `root`, by id.

    Raises:
        DataError: there is none, or two have one id.
    """
    pictures = images.listed(root / folder)
    if not pictures:
        raise DataError(
            f"{root / folder}: no images; expected {', '.join(images.SUFFIXES)} files there; put them there, or set "
            "competition.options.folder=PATH to where the set is"
        )
    return pictures


def same_ids(root: Path, folder: str, pictures: Mapping[str, Path], truths: Mapping[str, Path]) -> None:
    """Raise DataError unless every image has a label image in `folder`, and every label image its image."""
    if not truths:
        raise DataError(f"{root / folder}: no label images; expected one for each of {len(pictures)} images")
    lacking = sorted(set(pictures) - set(truths))
    if lacking:
        raise DataError(f"{root / folder}: no labels for {lacking[0]} ({len(lacking)} of {len(pictures)} are missing)")
    odd = sorted(set(truths) - set(pictures))
    if odd:
        raise DataError(f"{root / folder}: {truths[odd[0]].name} belongs to no image ({len(odd)} such files)")


def indexed(items: list[Item], path: Path, settings: Mapping[str, Any]) -> list[Item]:
    """The items with what the table `path` says of their group, stratum and split; the same items without a table.

    Raises:
        DataError: rows and images do not belong together one to one, or a named column is missing.
    """
    named = {key: nfc(settings[key]) if settings[key] else None for key in ("group", "stratum", "split")}
    if not path.is_file():
        absent = next((key for key, column in named.items() if column), None)
        if absent:
            raise DataError(f"{path}: no such file, and competition.options.{absent}={named[absent]} asks for a column")
        return items
    by_id = tables.by_id(path, ["id", *(column for column in named.values() if column)])
    known = {item.sample_id for item in items}
    if set(by_id) - known:
        odd = sorted(set(by_id) - known)
        name = Path(odd[0])
        if name.stem in known and name.suffix.lower() in images.SUFFIXES:
            raise DataError(
                f"{path}: id {odd[0]!r} is the name of a file ({len(odd)} rows without an image); ids are without the "
                f"ending: {name.stem}"
            )
        raise DataError(f"{path}: id {odd[0]!r} has no image ({len(odd)} such rows), half a download")
    if known - set(by_id):
        odd = sorted(known - set(by_id))
        raise DataError(f"{path}: no row for image {odd[0]} ({len(odd)} in all); add it, or remove {path.name}")
    return [_with_row(item, by_id[item.sample_id], named) for item in items]


def _with_row(item: Item, row: Mapping[str, str], named: Mapping[str, str | None]) -> Item:
    group = row[named["group"]] if named["group"] else row.get("group", item.group)
    stratum = row[named["stratum"]] if named["stratum"] else row.get("type", item.stratum)
    split = row[named["split"]] if named["split"] else row.get("split", item.split)
    group, stratum, split = ((word or "").strip() for word in (group, stratum, split))
    return replace(item, group=group or None, stratum=stratum or None, split=split_of(split) or item.split)


def split_of(word: str) -> str:
    """A split as a table says it: `Train ` is train, `TEST` test; names of official splits (testA) stay as they are."""
    word = word.strip()
    return word.lower() if word.lower() in ("train", "test") else word


def found(items: list[Item], root: Path, expected: str, option: str = "folder") -> list[Item]:
    """The same items.

    Raises:
        DataError: there are none; `option` is the one that names `root`.
    """
    if not items:
        raise DataError(
            f"{root}: no images of this layout; expected {expected}; put them there, or set "
            f"competition.options.{option}=PATH to the folder that holds them"
        )
    return items


def unique(items: list[Item], root: Path) -> None:
    """Raise DataError where two images have one id."""
    seen: dict[str, Path] = {}
    for item in items:
        if item.sample_id in seen:
            raise DataError(f"{root}: {seen[item.sample_id]} and {item.image} have the same id; keep one of them")
        seen[item.sample_id] = item.image
