"""How the original releases of public sets are unpacked: one function a layout, from a folder to a list of items.

| layout | what is expected in the folder |
|---|---|
| `custom` | images/ and labels/ (instances) or masks/ (binary), optional index.csv (id, type, group, split) |
| `kidney_he` | Irshad 2015 as Kidney-SegNet keeps it: train/, val/, test/, each with data/ and gts/ (binary), |
| | and an optional index.csv (id such as train_NAME, group, type) |
| `tnbc` | Naylor 2018: Slide_01/01_1.png and GT_01/01_1.png (binary); one slide is one patient |
| `monuseg` | Tissue Images/<id>.tif and Annotations/<id>.xml, or both in one folder; "Test" in a folder name is test |
| | or, without any XML, images/<id>.png and labels/<id>.png (or masks/), also below train/ and test/ |
| `glas` | train_1.bmp with train_1_anno.bmp, testA_*, testB_*, Grade.csv (patients) |
| `glomeruli` | glomeruli_biopsy/ (images, labels, index.csv) and, where it is there, kidney_primitives_ki/ (masks) |
| `nuclei_590` | VikramShenoy97's split of DSB: images/, labels/, nuclei_590.csv (name, part, id) |
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from histofold.competitions import images
from histofold.competitions.rows import require_columns
from histofold.errors import DataError


@dataclass(frozen=True)
class Item:
    """One image of a folder competition: where its pixels and truth are.

    Attributes:
        sample_id, split, group, stratum: as in `Sample`; group and stratum are None where the layout does not say.
        image: file of the pixels.
        labels: file of the truth, None where it is unknown.
        reader: how the truth is read, a key of `folders.READERS`.
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


def custom(root: Path, settings: Mapping[str, Any]) -> list[Item]:
    """images/ beside labels/ or masks/, with an optional index.csv."""
    pictures = _pictures(root, str(settings["images"]))
    folder, reader = truth_folder(root, settings)
    truths = images.listed(root / folder)
    _same_ids(root, folder, pictures, truths)
    items = [Item(key, "train", path, truths.get(key), reader) for key, path in pictures.items()]
    return _indexed(items, root / str(settings["index"]), settings)


def nuclei_590(root: Path, settings: Mapping[str, Any]) -> list[Item]:
    """images/ and labels/ of DSB 2018 by Kaggle's ids; nuclei_590.csv says which are train and which test."""
    path = root / "nuclei_590.csv"
    rows = {row["id"]: row for row in _table(path, ["name", "part", "id"])}
    items = custom(root, settings)
    unknown = [item.sample_id for item in items if item.sample_id not in rows]
    if unknown:
        raise DataError(f"{path}: no row for image {unknown[0]} ({len(unknown)} in all)")
    return [replace(item, split=_split(rows[item.sample_id]["part"])) for item in items]


def kidney_he(root: Path, settings: Mapping[str, Any]) -> list[Item]:
    """train/, val/ and test/ with data/ and gts/; val joins train, since folds do what it was for.

    The crops were cut from whole slides of TCGA, several from each. index.csv says which belong together; without it a
    file name with a TCGA barcode tells the patient. How the release names its files is not known to us, so where
    neither helps a crop is its own group, of which `prepare` tells.
    """
    items = []
    for part, split in (("train", "train"), ("val", "train"), ("test", "test")):
        if not (root / part).is_dir():
            continue
        pictures, truths = _pictures(root / part, "data"), images.listed(root / part / "gts")
        _same_ids(root / part, "gts", pictures, truths)
        items += [
            Item(f"{part}_{key}", split, path, truths[key], "components", group=_barcode(key))
            for key, path in pictures.items()
        ]
    return _indexed(_found(items, root, "train/data and train/gts"), root / str(settings["index"]), settings)


def tnbc(root: Path, settings: Mapping[str, Any]) -> list[Item]:
    """Slide_*/ beside GT_*/, the slide being the patient."""
    items = []
    for folder in sorted(root.glob("Slide_*")):
        number = folder.name.removeprefix("Slide_")
        pictures, truths = images.listed(folder), images.listed(root / f"GT_{number}")
        _same_ids(root, f"GT_{number}", pictures, truths)
        items += [
            Item(key, "train", path, truths[key], "components", group=f"slide_{number}")
            for key, path in pictures.items()
        ]
    return _found(items, root, "Slide_01/ and GT_01/")


def monuseg(root: Path, settings: Mapping[str, Any]) -> list[Item]:
    """TIFF (or PNG) images and Aperio XML outlines of the same name, anywhere below the folder; else label images."""
    outlines = {path.stem: path for path in _below(root, "*.xml")}
    if not outlines and _below(root, str(settings["images"])):
        return _monuseg_labels(root, settings)
    items = []
    for path in (path for path in _below(root, "*") if path.suffix.lower() in images.SUFFIXES):
        if path.stem not in outlines:
            raise DataError(f"{root}: {path.relative_to(root)} has no {path.stem}.xml, half a download")
        split, group = _named_test(path.parent, root), _patient(path.stem)
        items.append(Item(path.stem, split, path, outlines[path.stem], "aperio", group=group))
    _unique(items, root)
    return _indexed(_found(items, root, "<id>.tif and <id>.xml"), root / str(settings["index"]), settings)


def _monuseg_labels(root: Path, settings: Mapping[str, Any]) -> list[Item]:
    """Every folder with images/ beside labels/ or masks/; an index.csv there wins over what names say."""
    items = []
    for folder in sorted({path.parent for path in _below(root, str(settings["images"])) if path.is_dir()}):
        split = _named_test(folder, root)
        items += [
            replace(
                item, split=split if item.split == "train" else item.split, group=item.group or _patient(item.sample_id)
            )
            for item in custom(folder, settings)
        ]
    _unique(items, root)
    return items


def _below(root: Path, pattern: str) -> list[Path]:
    """Everything anywhere below `root` whose name matches, sorted, without what is hidden."""
    return sorted(path for path in root.rglob(pattern) if not images.hidden(path, root))


def _named_test(folder: Path, root: Path) -> str:
    return "test" if "test" in str(folder.relative_to(root)).lower() else "train"


def _barcode(name: str) -> str | None:
    """The patient of a TCGA barcode anywhere in a name: TCGA, 2 characters of the hospital, 4 of the patient."""
    found = re.search(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}(?![A-Z0-9])", name)
    return found[0] if found else None


def _patient(name: str) -> str:
    """TCGA-AR-A1AK-01Z-00-DX1: the first three parts name the patient."""
    found = re.match(r"TCGA-\w+-\w+", name)
    return found[0] if found else name


def glas(root: Path, settings: Mapping[str, Any]) -> list[Item]:
    """<split>_<n>.bmp with <split>_<n>_anno.bmp; patients and grades from Grade.csv."""
    files = images.listed(root)
    table = root / "Grade.csv"
    grades = {row["name"].strip(): row for row in _table(table, ["name", "patient ID"])}
    items = []
    for key, path in files.items():
        if key.endswith("_anno"):
            continue
        if f"{key}_anno" not in files:
            raise DataError(f"{root}: {path.name} has no {key}_anno{path.suffix}, half a download")
        if key not in grades:
            raise DataError(f"{table}: no row for {key}")
        row = grades[key]
        grade = next((value.strip() for name, value in row.items() if name.strip() == "grade (GlaS)"), None)
        items.append(
            Item(key, key.split("_")[0], path, files[f"{key}_anno"], "labels", row["patient ID"].strip(), grade)
        )
    return _found(items, root, "train_1.bmp and train_1_anno.bmp")


def glomeruli(root: Path, settings: Mapping[str, Any]) -> list[Item]:
    """Fields of biopsies with their case and stain, and patches that show one glomerulus each as strata of their own.

    Of the patches only those of a whole glomerulus or its tuft count: the others label another structure, and what is
    unlabelled there may be a glomerulus. Their glomeruli are some 80 pixels wide, those of the fields 370 at × 200 and
    800 at × 400: patches are enlarged to four times their size, about × 200.
    """
    biopsies = root / "glomeruli_biopsy"
    named = {"images": "images", "labels": "labels", "index": "index.csv"}
    columns = {"group": "group", "stratum": "stain", "split": None}
    items = custom(biopsies, {**named, **columns})
    patches = root / "kidney_primitives_ki"
    if not patches.is_dir():
        return items
    table = patches / "index.csv"
    for row in _table(table, ["id", "structure", "stain", "group"]):
        if row["structure"] in ("capsule", "tuft"):
            paths = (patches / "images" / f"{row['id']}.png", patches / "masks" / f"{row['id']}.png")
            absent = next((path for path in paths if not path.is_file()), None)
            if absent:
                raise DataError(f"{table}: {row['id']} has a row, but there is no {absent}; half a download")
            items.append(Item(row["id"], "train", *paths, "components", row["group"], f"patch_{row['stain']}", 4))
    return items


LAYOUTS: Mapping[str, Callable[[Path, Mapping[str, Any]], list[Item]]] = {
    "custom": custom,
    "glas": glas,
    "glomeruli": glomeruli,
    "kidney_he": kidney_he,
    "monuseg": monuseg,
    "nuclei_590": nuclei_590,
    "tnbc": tnbc,
}
"""Layout name → function; each raises DataError for what is missing or does not fit."""

MERGED = ("kidney_he", "tnbc")
"""Layouts whose truth is a binary mask: its components are the objects, so touching ones are one."""


def _pictures(root: Path, folder: str) -> dict[str, Path]:
    pictures = images.listed(root / folder)
    if not pictures:
        raise DataError(f"{root / folder}: no images; expected {', '.join(images.SUFFIXES)} files there")
    return pictures


def truth_folder(root: Path, settings: Mapping[str, Any]) -> tuple[str, str]:
    """Name of the folder with the truth in layout `custom`, and how to read it: masks/ holds binary masks."""
    folder = settings["labels"]
    if folder is None:
        folder = "masks" if (root / "masks").is_dir() and not (root / "labels").is_dir() else "labels"
    return str(folder), "components" if folder == "masks" else "labels"


def unlabelled(root: Path, settings: Mapping[str, Any]) -> list[Item]:
    """A folder of test images: images/ (or the images themselves) and, where the truth is known, labels/ or masks/."""
    inside = root / str(settings["images"])
    pictures = images.listed(inside if inside.is_dir() else root)
    folder, reader = truth_folder(root, settings)
    truths = images.listed(root / folder)
    if truths:
        _same_ids(root, folder, pictures, truths)
    items = [Item(key, "test", path, truths.get(key), reader) for key, path in pictures.items()]
    table = root / str(settings["index"])
    # Its table may lack the columns that were named for training; what it has of them is taken.
    with_rows = _indexed(items, table, {"group": None, "stratum": None, "split": None}) if table.is_file() else items
    return _found([replace(item, split="test") for item in with_rows], root, f"{settings['images']}/ with images")


def _same_ids(root: Path, folder: str, pictures: Mapping[str, Path], truths: Mapping[str, Path]) -> None:
    if not truths:
        raise DataError(f"{root / folder}: no label images; expected one for each of {len(pictures)} images")
    lacking = sorted(set(pictures) - set(truths))
    if lacking:
        raise DataError(f"{root / folder}: no labels for {lacking[0]} ({len(lacking)} of {len(pictures)} are missing)")
    odd = sorted(set(truths) - set(pictures))
    if odd:
        raise DataError(f"{root / folder}: {truths[odd[0]].name} belongs to no image ({len(odd)} such files)")


def _indexed(items: list[Item], path: Path, settings: Mapping[str, Any]) -> list[Item]:
    named = {key: settings[key] for key in ("group", "stratum", "split")}
    if not path.is_file():
        absent = next((key for key, column in named.items() if column), None)
        if absent:
            raise DataError(f"{path}: no such file, and competition.options.{absent}={named[absent]} asks for a column")
        return items
    rows = _table(path, ["id", *(column for column in named.values() if column)])
    by_id: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["id"] in by_id:
            raise DataError(f"{path}: id {row['id']!r} is there twice")
        by_id[row["id"]] = row
    known = {item.sample_id for item in items}
    if set(by_id) - known:
        odd = sorted(set(by_id) - known)
        raise DataError(f"{path}: id {odd[0]!r} has no image ({len(odd)} such rows), half a download")
    if known - set(by_id):
        odd = sorted(known - set(by_id))
        raise DataError(f"{path}: no row for image {odd[0]} ({len(odd)} in all); add it, or remove {path.name}")
    return [_with_row(item, by_id[item.sample_id], named) for item in items]


def _with_row(item: Item, row: Mapping[str, str], named: Mapping[str, str | None]) -> Item:
    group = row[named["group"]] if named["group"] else row.get("group", item.group)
    stratum = row[named["stratum"]] if named["stratum"] else row.get("type", item.stratum)
    split = row[named["split"]] if named["split"] else row.get("split", item.split)
    # A row may end early, which gives None.
    group, stratum, split = ((value or "").strip() for value in (group, stratum, split))
    return replace(item, group=group or None, stratum=stratum or None, split=_split(split) or item.split)


def _split(word: str) -> str:
    """A split as a table says it: `Train ` is train, `TEST` test; names of official splits (testA) stay as they are."""
    word = word.strip()
    return word.lower() if word.lower() in ("train", "test") else word


def _table(path: Path, columns: list[str]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            require_columns(path, reader.fieldnames or [], columns)
            return list(reader)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; it belongs to this layout") from error


def _found(items: list[Item], root: Path, expected: str) -> list[Item]:
    if not items:
        raise DataError(f"{root}: no images of this layout; expected {expected}")
    return items


def _unique(items: list[Item], root: Path) -> None:
    seen: dict[str, Path] = {}
    for item in items:
        if item.sample_id in seen:
            raise DataError(f"{root}: {seen[item.sample_id]} and {item.image} have the same id; keep one of them")
        seen[item.sample_id] = item.image
