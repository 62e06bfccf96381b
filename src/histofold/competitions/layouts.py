"""How the original releases of public sets are unpacked: one function a layout, from a folder to a list of items.

| layout | what is expected in the folder |
|---|---|
| `custom` | images/ and labels/ (instances) or masks/ (binary), optional index.csv (id, type, group, split) |
| `kidney_he` | Irshad 2015 as Kidney-SegNet keeps it: train/, val/, test/, each with data/ and gts/ (binary), |
| | and an optional index.csv (id such as train_NAME, group, type) |
| `tnbc` | Naylor 2018: Slide_01/01_1.png and GT_01/01_1.png (binary); one slide is one patient |
| `monuseg` | Tissue Images/<id>.tif and Annotations/<id>.xml, or both in one folder; a folder with the word "test" in |
| | its name (Test, MoNuSegTestData, test_images) is test |
| | or, without any XML, images/<id>.png and labels/<id>.png (or masks/), also below train/ and test/ |
| `glas` | train_1.bmp with train_1_anno.bmp, testA_*, testB_*, Grade.csv (patients) |
| `glomeruli` | glomeruli_biopsy/ (images, labels, index.csv) and, where it is there, kidney_primitives_ki/ (masks) |
| `nuclei_590` | VikramShenoy97's split of DSB: images/, labels/, nuclei_590.csv (name, part, id) |

An archive that holds one folder with all of this may be unpacked as it is: see `entered`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from histofold.competitions import images, tables
from histofold.competitions.items import Item, found, indexed, pictures_in, same_ids, split_of, unique
from histofold.competitions.rows import nfc
from histofold.errors import DataError

WORD = r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+"
"""A word in a name such as MoNuSegTestData or test_images."""
TEST = ("test", "tests", "testing", "testdata", "testset", "testimages", "monusegtestdata")
"""Words, in lower case, that make a folder of MoNuSeg one of test images."""


def custom(root: Path, settings: Mapping[str, Any]) -> list[Item]:
    """images/ beside labels/ or masks/, with an optional index.csv."""
    pictures = pictures_in(root, str(settings["images"]))
    folder, reader = truth_folder(root, settings)
    truths = images.listed(root / folder)
    same_ids(root, folder, pictures, truths)
    items = [Item(key, "train", path, truths.get(key), reader) for key, path in pictures.items()]
    return indexed(items, root / str(settings["index"]), settings)


def nuclei_590(root: Path, settings: Mapping[str, Any]) -> list[Item]:
    """images/ and labels/ of DSB 2018 by Kaggle's ids; nuclei_590.csv says which are train and which test."""
    path = root / "nuclei_590.csv"
    rows = tables.by_id(path, ["id", "name", "part"])
    items = custom(root, settings)
    unknown = [item.sample_id for item in items if item.sample_id not in rows]
    if unknown:
        raise DataError(f"{path}: no row for image {unknown[0]} ({len(unknown)} in all)")
    parts = {item.sample_id: tables.value(path, item.sample_id, rows[item.sample_id], "part") for item in items}
    return [replace(item, split=split_of(parts[item.sample_id])) for item in items]


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
        pictures, truths = pictures_in(root / part, "data"), images.listed(root / part / "gts")
        same_ids(root / part, "gts", pictures, truths)
        items += [
            Item(f"{part}_{key}", split, path, truths[key], "components", group=_barcode(key))
            for key, path in pictures.items()
        ]
    return indexed(found(items, root, "train/data and train/gts"), root / str(settings["index"]), settings)


def tnbc(root: Path, settings: Mapping[str, Any]) -> list[Item]:
    """Slide_*/ beside GT_*/, the slide being the patient."""
    items = []
    for folder in sorted(root.glob("Slide_*")):
        number = folder.name.removeprefix("Slide_")
        pictures, truths = images.listed(folder), images.listed(root / f"GT_{number}")
        same_ids(root, f"GT_{number}", pictures, truths)
        items += [
            Item(key, "train", path, truths[key], "components", group=f"slide_{number}")
            for key, path in pictures.items()
        ]
    return found(items, root, "Slide_01/ and GT_01/")


def monuseg(root: Path, settings: Mapping[str, Any]) -> list[Item]:
    """TIFF (or PNG) images and Aperio XML outlines of the same name, anywhere below the folder; else label images."""
    outlines = _outlines(root)
    if not outlines and _below(root, str(settings["images"])):
        return _monuseg_labels(root, settings)
    items = []
    for path in (path for path in _below(root, "*") if path.suffix.lower() in images.SUFFIXES):
        if nfc(path.stem) not in outlines:
            raise DataError(f"{root}: {path.relative_to(root)} has no {path.stem}.xml, half a download")
        split, group = _named_test(path.parent, root), _patient(path.stem)
        items.append(Item(path.stem, split, path, outlines[nfc(path.stem)], "aperio", group=group))
    unique(items, root)
    return indexed(found(items, root, "<id>.tif and <id>.xml"), root / str(settings["index"]), settings)


def _outlines(root: Path) -> dict[str, Path]:
    """XML files anywhere below the folder by the id that they are named after.

    Raises:
        DataError: two of one name.
    """
    outlines: dict[str, Path] = {}
    for path in _below(root, "*"):
        # What GDAL leaves beside an image that it read, A.png.aux.xml, outlines nothing.
        if path.suffix.lower() != ".xml" or path.name.lower().endswith(".aux.xml"):
            continue
        if nfc(path.stem) in outlines:
            raise DataError(f"{root}: {outlines[nfc(path.stem)]} and {path} both outline {path.stem}; keep one of them")
        outlines[nfc(path.stem)] = path
    return outlines


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
    unique(items, root)
    return items


def _below(root: Path, pattern: str) -> list[Path]:
    """Everything anywhere below `root` whose name matches, sorted, without what is hidden."""
    return sorted(path for path in root.rglob(pattern) if not images.hidden(path, root))


def _named_test(folder: Path, root: Path) -> str:
    """`test` where a folder between `root` and `folder` has the word in its name, else `train`; `latest` has it not."""
    words = (word.lower() for part in folder.relative_to(root).parts for word in re.findall(WORD, part))
    return "test" if any(word in TEST for word in words) else "train"


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
    grades = tables.by_id(table, ["name", "patient ID"])
    items = []
    for key, path in files.items():
        if key.endswith("_anno"):
            continue
        if f"{key}_anno" not in files:
            raise DataError(f"{root}: {path.name} has no {key}_anno{path.suffix}, half a download")
        if key not in grades:
            raise DataError(f"{table}: no row for {key}")
        row = grades[key]
        split, patient = split_of(key.split("_")[0]), tables.value(table, key, row, "patient ID")
        grade = next((text.strip() for name, text in row.items() if name.strip() == "grade (GlaS)"), None)
        items.append(Item(key, split, path, files[f"{key}_anno"], "labels", patient, grade))
    return found(items, root, "train_1.bmp and train_1_anno.bmp")


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
    for row in tables.rows_of(table, ["id", "structure", "stain", "group"]):
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

MARKS: Mapping[str, tuple[str, ...]] = {
    "custom": ("labels", "masks"),
    "glas": ("Grade.csv", "*_anno.*"),
    "glomeruli": ("glomeruli_biopsy", "kidney_primitives_ki"),
    "kidney_he": ("train", "val", "test"),
    # It looks anywhere below the folder, so only its table has to be found, and names of folders tell test images.
    "monuseg": (),
    "nuclei_590": ("labels", "masks", "nuclei_590.csv"),
    "tnbc": ("Slide_*", "GT_*"),
}
"""Layout → what is in its folder, of which anything tells that this is the folder; with the names in the settings."""

MERGED = ("kidney_he", "tnbc")
"""Layouts whose truth is a binary mask: its components are the objects, so touching ones are one."""


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
        same_ids(root, folder, pictures, truths)
    items = [Item(key, "test", path, truths.get(key), reader) for key, path in pictures.items()]
    table = root / str(settings["index"])
    # Its table may lack the columns that were named for training; what it has of them is taken.
    with_rows = indexed(items, table, {"group": None, "stratum": None, "split": None}) if table.is_file() else items
    test = [replace(item, split="test") for item in with_rows]
    return found(test, root, f"{settings['images']}/ with images", "test")


def entered(root: Path, layout: str, settings: Mapping[str, Any]) -> Path:
    """The folder of the layout: `root`, or the only folder in it, and so on, where `root` holds nothing of the layout.

    Archives often hold one folder with everything in it. Files beside it do not count, nor what macOS leaves there.
    """
    folder = root
    while not _marked(folder, layout, settings):
        inside = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
        visible = [path for path in inside if not images.hidden(path, folder)]
        if len(visible) != 1:
            return root  # What is missing is missed where the user put it.
        folder = visible[0]
    # There the name of the folder tells that its images are for testing.
    return root if layout == "monuseg" and _named_test(folder, root) == "test" else folder


def _marked(folder: Path, layout: str, settings: Mapping[str, Any]) -> bool:
    keys = {"custom": ("images", "labels", "index"), "nuclei_590": ("images", "labels", "index"), "monuseg": ("index",)}
    names = [str(settings[key]) for key in keys.get(layout, ()) if settings[key]]
    return any((folder / name).exists() for name in names) or any(any(folder.glob(mark)) for mark in MARKS[layout])
