"""HuBMAP + HPA 2020, "Hacking the Kidney": TIFF slides, glomeruli as runs or polygons, folds by patient.

Layout: train.csv (id, encoding), HuBMAP-20-dataset_information.csv, sample_submission.csv, train/ and test/ with
<id>.tiff, <id>.json (glomeruli) and <id>-anatomical-structure.json. Sizes are read from the TIFF headers: the
information table of the competition is wrong for one slide (c68fe75ea, 19,780 for a width of 49,780).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from histofold.competitions import images, polygons
from histofold.competitions.base import Competition, Place, Sample
from histofold.competitions.rows import RowIndex, require_columns
from histofold.errors import ConfigError, DataError
from histofold.kaggle.csv import CsvFormat
from histofold.rle import RunMask

INFORMATION = "HuBMAP-20-dataset_information.csv"
AGREEMENT = 0.9
"""Least Dice between a slide's polygons and its runs; below, one of the two belongs to another slide."""
ALIKE = 0.99
"""Dice from which on polygons and runs count as the same. Programs that fill outlines differ by up to a pixel at the
edge: on two real slides with glomeruli of some 260 pixels, outlines moved by one pixel give .993. Less means other
outlines, or more than one glomerulus in fifty that only one of the two has."""


class HubmapKidney(Competition):
    """Slides of HuBMAP kidney 2020, or the embedded sample in the same layout.

    Options:
        masks: `rle` (train.csv) or `polygons` (the JSON files, checked against train.csv where it has the slide).
        truth: file with the runs of test slides, if they are known (`id,encoding`).
        groups: `patient`, or `slide` where no patient is known (then a patient's slides may be in several folds).
        sample: `kidney` draws the embedded sample when the folder is empty.
    """

    kind: ClassVar[str] = "slides"
    last: ClassVar[str] = "train.csv"
    defaults: ClassVar[dict[str, Any]] = {
        "masks": "rle",
        "truth": "hidden_truth.csv",
        "groups": "patient",
        "sample": None,
    }

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.truth = "mask"
        self.metric = "dice"
        self.csv = CsvFormat("id", "predicted", "columns", False)
        for key, known in (("masks", ("rle", "polygons")), ("groups", ("patient", "slide"))):
            if self.settings[key] not in known:
                raise ConfigError(f"competition.options.{key}={self.settings[key]}: expected {' or '.join(known)}")

    def check(self) -> None:
        """Every slide of train.csv and of the sample submission is there, and every training slide has a row."""
        if not self.root.is_dir() or not any(self.root.iterdir()):
            raise self.missing("no data")
        for name in ("train.csv", "train"):
            if not (self.root / name).exists():
                raise self.missing(f"{name} is missing")
        have, want = set(self._slides("train")), set(self._runs.ids())
        if want - have:
            raise self.missing(_lacking("train", want, have))
        if have - want:
            raise DataError(f"{self.root / 'train.csv'}: no row for {_some(have - want)}; add one, or move the slide")
        listed = set(self.submission_ids())
        if listed - set(self._slides("test")):
            raise self.missing(_lacking("test", listed, set(self._slides("test"))))

    @cached_property
    def _samples(self) -> list[Sample]:
        self.check()
        found = []
        for split in ("train", "test"):
            for sample_id, path in self._slides(split).items():
                height, width = images.size_or_zero(path)
                group = self._group(sample_id, split)
                found.append(Sample(sample_id, split, height, width, group, "slide"))
        return sorted(found, key=lambda sample: sample.sample_id)

    def samples(self) -> list[Sample]:
        """Slides with the sizes of their TIFF headers, 0 where one cannot be read; group is the patient."""
        return self._samples

    def source(self, sample_id: str) -> Path:
        """The slide's TIFF."""
        for split in ("train", "test"):
            if sample_id in self._slides(split):
                return self._slides(split)[sample_id]
        raise DataError(f"{self.root}: no slide {sample_id!r} in train/ or test/")

    def files(self, sample_id: str) -> list[Path]:
        """The TIFF, and the JSON where masks come from polygons."""
        path = self.source(sample_id)
        return [path, path.with_suffix(".json")] if self.settings["masks"] == "polygons" else [path]

    def mask(self, sample_id: str) -> RunMask | None:
        """Glomeruli of one slide as runs; None for a test slide without known truth."""
        height, width = images.size(self.source(sample_id))
        runs = self._rle(sample_id, (height, width))
        if self.settings["masks"] == "rle":
            return runs
        path = self.source(sample_id).with_suffix(".json")
        if not path.is_file():
            if runs is None:
                return None
            raise self.missing(f"{path.relative_to(self.root)} is missing and competition.options.masks=polygons")
        drawn = RunMask(polygons.runs(polygons.read(path), height, width), (height, width), "columns")
        if runs is not None and _dice(drawn, runs) < AGREEMENT:
            raise DataError(
                f"{path}: these polygons and the runs of {sample_id} in train.csv have a Dice of "
                f"{_dice(drawn, runs):.3f}, expected at least {AGREEMENT}; use competition.options.masks=rle"
            )
        return drawn

    def agreement(self, sample_id: str) -> float:
        """Dice between a slide's polygons and its runs, 1 where both are empty.

        Raises:
            DataError: one of the two is missing.
        """
        size = images.size(self.source(sample_id))
        runs = self._rle(sample_id, size)
        if runs is None:
            raise DataError(f"{self.root / 'train.csv'}: no row for {sample_id!r}, so there is nothing to compare with")
        text = polygons.runs(polygons.read(self.source(sample_id).with_suffix(".json")), *size)
        return _dice(RunMask(text, size, "columns"), runs)

    def remark(self, sample_id: str) -> str:
        """That a training slide's polygons and its runs differ, whichever of them `masks` takes; empty if they agree.

        Raises:
            DataError: the slide cannot be read.
        """
        path = self.source(sample_id).with_suffix(".json")
        if sample_id not in self._runs or not path.is_file():
            return ""
        try:
            dice = self.agreement(sample_id)
        except DataError as error:
            return f"{sample_id}: its polygons were not compared with its runs in train.csv: {error}"
        if dice >= ALIKE:
            return ""
        return (
            f"{sample_id}: the polygons of {path} and its runs in train.csv have a Dice of {dice:.4f}, expected at "
            f"least {ALIKE}; competition.options.masks={self.settings['masks']} was used, look whether it is the better"
        )

    def anatomy(self, sample_id: str) -> Path | None:
        """Polygons of cortex and medulla (`<id>-anatomical-structure.json`), None where there are none."""
        path = self.source(sample_id).with_name(f"{sample_id}-anatomical-structure.json")
        return path if path.is_file() else None

    def submission_ids(self) -> list[str]:
        """Ids of sample_submission.csv in its order, else the slides of test/."""
        path = self.root / "sample_submission.csv"
        if path.is_file():
            return RowIndex.of(path, ["id"], unique=True).ids()
        return list(self._slides("test"))

    @cached_property
    def _runs(self) -> RowIndex:
        return RowIndex.of(self.root / "train.csv", ["id", "encoding"], unique=True)

    @cached_property
    def _truth(self) -> RowIndex | None:
        path = self.root / str(self.settings["truth"])
        return RowIndex.of(path, ["id", "encoding"], unique=True) if path.is_file() else None

    def _rle(self, sample_id: str, shape: tuple[int, int]) -> RunMask | None:
        for index in (self._runs, self._truth):
            if index is not None and sample_id in index:
                try:
                    return RunMask(index.rows(sample_id)[0]["encoding"], shape, "columns")
                except DataError as error:
                    raise DataError(f"{index.path}: {sample_id}: {error}") from error
        return None

    def _slides(self, split: str) -> dict[str, Path]:
        cache: dict[str, dict[str, Path]] = self.__dict__.setdefault("_found", {})
        if split not in cache:
            cache[split] = _by_stem(path for path in sorted((self.root / split).glob("*")) if _is_slide(path))
        return cache[split]

    @cached_property
    def _patients(self) -> dict[str, str]:
        path = self.root / INFORMATION
        if not path.is_file():
            raise self.missing(f"{INFORMATION} is missing (it names the patient of each slide)")
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            require_columns(path, reader.fieldnames or [], ["image_file", "patient_number"])
            # A row that is cut short gives None for what it lacks.
            pairs = [(row["image_file"] or "", row["patient_number"] or "") for row in reader]
        return {Path(name).stem: patient.strip() for name, patient in pairs if name.strip()}

    def _group(self, sample_id: str, split: str) -> str:
        if self.settings["groups"] == "slide":
            return sample_id
        patient = self._patients.get(sample_id)
        if patient:
            return patient
        if split != "train":
            return sample_id  # never in a fold, so its patient may stay unknown, as on Kaggle
        raise DataError(
            f"{self.root / INFORMATION}: no patient_number for training slide {sample_id}; "
            "add its row, or set competition.options.groups=slide"
        )


def _is_slide(path: Path) -> bool:
    """Whether a file is a slide and not what programs leave beside one: `X.tiff.ovr`, `X.tiff.aux.xml`, `._X.tiff`."""
    return path.suffix.lower() in (".tif", ".tiff") and not path.name.startswith(".")


def _by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Slides by id.

    Raises:
        DataError: two share a stem, so that an id would mean two slides.
    """
    found: dict[str, Path] = {}
    for path in paths:
        first = found.setdefault(path.stem, path)
        if first != path:
            raise DataError(f"{path.parent}: {first.name} and {path.name} have the same id; keep one of them")
    return found


def _dice(first: RunMask, second: RunMask) -> float:
    total = first.area + second.area
    return 2 * first.intersection(second) / total if total else 1.0


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _lacking(folder: str, want: set[str], have: set[str]) -> str:
    return f"{folder}/ lacks {len(want - have)} of {len(want)} slides ({_some(want - have)}), half a download"
