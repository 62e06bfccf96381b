"""Data Science Bowl 2018: nuclei as one mask PNG each, images of many kinds, folds by field of view.

Layout: stage1_train/<id>/images/<id>.png with masks/*.png, stage1_train_labels.csv (ImageId, EncodedPixels, one row a
nucleus), stage1_test/, stage2_test_final/, sample submissions and, since the competition is over, solutions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from histofold.competitions import fields, images, instances
from histofold.competitions.base import Competition, Image, Labels, Place, Sample
from histofold.competitions.rows import RowIndex, nfc
from histofold.errors import ConfigError, DataError
from histofold.files import digest
from histofold.kaggle.csv import CsvFormat

COLUMNS = ["ImageId", "EncodedPixels"]
TRAIN = "stage1_train"
STAGES: Mapping[str, tuple[str, str, str]] = {
    "stage1": ("stage1_test", "stage1_sample_submission.csv", "stage1_solution.csv"),
    "stage2": ("stage2_test_final", "stage2_sample_submission_final.csv", "stage2_solution_final.csv"),
}
"""Test stage → folder, sample submission, solution."""


class Dsb2018(Competition):
    """Nuclei of DSB 2018, or the embedded sample in the same layout.

    Options:
        test: `stage1` or `stage2`, the images that a submission is about.
        labels: `auto` (mask folders, where one is missing the CSV), `masks`, or `csv`.
        groups: `fields` derives from the pixels which images show one field of view, `none` keeps each on its own.
        sample: `nuclei` draws the embedded sample when the folder is empty.
    """

    kind: ClassVar[str] = "images"
    last: ClassVar[str] = "stage1_train_labels.csv"
    defaults: ClassVar[dict[str, Any]] = {"test": "stage1", "labels": "auto", "groups": "fields", "sample": None}

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.truth = "instances"
        self.metric = "dsb"
        self.csv = CsvFormat("ImageId", "EncodedPixels", "columns", True)
        choices = {"test": tuple(STAGES), "labels": ("auto", "masks", "csv"), "groups": ("fields", "none")}
        for key, known in choices.items():
            if self.settings[key] not in known:
                raise ConfigError(f"competition.options.{key}={self.settings[key]}: expected {', '.join(known)}")

    def check(self) -> None:
        """Every training image has its file and its truth, and every id of the sample submission its image."""
        if not self.root.is_dir() or not any(self.root.iterdir()):
            raise self.missing("no data")
        if not (self.root / TRAIN).is_dir():
            raise self.missing(f"{TRAIN}/ is missing")
        if not self._ids(TRAIN):
            raise self.missing(f"{TRAIN}/ is empty")
        for sample_id in self._ids(TRAIN):
            self.source(sample_id)
            if not self._mask_files(sample_id) and self._csv_rows(sample_id) is None:
                raise self.missing(
                    f"{TRAIN}/{sample_id} has no masks/*.png and no row in stage1_train_labels.csv, half a download"
                )
        if self._labels_csv is not None:
            absent = [key for key in self._labels_csv.ids() if not (self.root / TRAIN / key).is_dir()]
            if absent:
                raise self.missing(
                    f"{TRAIN}/ lacks {len(absent)} images of stage1_train_labels.csv ({absent[0]} …), half a download"
                )
        folder = self._stage[0]
        listed = self.submission_ids()
        absent = [key for key in listed if not (self.root / folder / key).is_dir()]
        if absent:
            raise self.missing(f"{folder}/ lacks {len(absent)} of {len(listed)} images ({absent[0]} …)")
        for key in listed:
            self.source(key)

    @cached_property
    def _samples(self) -> list[Sample]:
        self.check()
        paths = {key: self.source(key) for key in (*self._ids(TRAIN), *self._ids(self._stage[0]))}
        views = fields.look(paths, join=self.settings["groups"] == "fields")
        train = set(self._ids(TRAIN))
        return [
            Sample(key, "train" if key in train else "test", view.height, view.width, view.group, view.kind)
            for key, view in sorted(views.items())
        ]

    def samples(self) -> list[Sample]:
        """Images of training and test; stratum is the image type, group the field of view, both from the pixels.

        An image that cannot be read is in no field that is known: its stratum is `UNREADABLE`, its size 0.
        """
        return self._samples

    def source(self, sample_id: str) -> Path:
        """The image file."""
        for folder in (TRAIN, self._stage[0]):
            if (self.root / folder / sample_id).is_dir():
                found = images.listed(self.root / folder / sample_id / "images")
                if nfc(sample_id) not in found:
                    raise self.missing(f"{folder}/{sample_id}/images/{sample_id}.png is missing, half a download")
                return found[nfc(sample_id)]
        raise DataError(f"{self.root}: no image {sample_id!r} in {TRAIN}/ or {self._stage[0]}/")

    def files(self, sample_id: str) -> list[Path]:
        """The image and its mask files."""
        return [self.source(sample_id), *self._mask_files(sample_id)]

    def truth_digest(self, sample_id: str) -> str:
        """Digest of an image's rows in the labels or the solution, whichever its truth comes from."""
        if self._mask_files(sample_id):
            return ""
        rows = self._csv_rows(sample_id)
        return digest(["labels", rows]) if rows is not None else solution_digest(self._solution, sample_id)

    def stratum(self, sample_id: str) -> str:
        """The image type, from the pixels of this image."""
        return self.kind_of(self.image(sample_id))

    @property
    def kind_of(self) -> Callable[[Image], str]:
        """The image type is in the pixels of every image."""
        return fields.kind_of

    def image(self, sample_id: str) -> Image:
        """Pixels (H, W, 3) uint8, alpha dropped."""
        return images.rgb(self.source(sample_id))

    def labels(self, sample_id: str) -> Labels | None:
        """Nuclei 1..n (H, W), overlaps resolved as `instances.merge` says; None for a test image without solution."""
        path = self.source(sample_id)
        masks, rows = self._mask_files(sample_id), self._csv_rows(sample_id)
        if masks:
            return instances.from_files(masks, images.size(path))
        if rows is not None:
            return instances.from_runs(rows, images.size(path), f"stage1_train_labels.csv: {sample_id}")
        return self._solution_labels(sample_id)

    def submission_ids(self) -> list[str]:
        """Ids of the stage's sample submission in its order, else the folders of the test set."""
        folder, submission, _ = self._stage
        path = self.root / submission
        return RowIndex.of(path, COLUMNS).ids() if path.is_file() else self._ids(folder)

    @property
    def _stage(self) -> tuple[str, str, str]:
        return STAGES[self.settings["test"]]

    def _ids(self, folder: str) -> list[str]:
        cache: dict[str, list[str]] = self.__dict__.setdefault("_folders", {})
        if folder not in cache:
            path = self.root / folder
            inside = sorted(path.iterdir()) if path.is_dir() else []
            cache[folder] = [entry.name for entry in inside if entry.is_dir() and not images.hidden(entry, path)]
        return cache[folder]

    def _mask_files(self, sample_id: str) -> list[Path]:
        if self.settings["labels"] == "csv":
            return []
        return list(images.listed(self.root / TRAIN / sample_id / "masks").values())

    @cached_property
    def _labels_csv(self) -> RowIndex | None:
        path = self.root / "stage1_train_labels.csv"
        return RowIndex.of(path, COLUMNS) if path.is_file() and self.settings["labels"] != "masks" else None

    def _csv_rows(self, sample_id: str) -> list[str] | None:
        index = self._labels_csv
        if index is None or sample_id not in index:
            return None
        return [row["EncodedPixels"] for row in index.rows(sample_id)]

    @cached_property
    def _solution(self) -> RowIndex | None:
        path = self.root / self._stage[2]
        return RowIndex.of(path, COLUMNS) if path.is_file() else None

    def _solution_labels(self, sample_id: str) -> Labels | None:
        if self._solution is None or sample_id not in self._solution:
            return None
        return solution_labels(self._solution, sample_id, self.source(sample_id))


def solution_digest(index: RowIndex | None, sample_id: str) -> str:
    """Digest of a test image's rows in a solution CSV; empty where it has none.

    Raises:
        DataError: a row has more or fewer fields than the header.
    """
    return digest(["solution", index.rows(sample_id)]) if index is not None and sample_id in index else ""


def solution_labels(index: RowIndex, sample_id: str, image: Path) -> Labels | None:
    """Truth of a test image from a solution CSV; None where Kaggle ignored the image when scoring.

    Raises:
        DataError: the height and width in the CSV are not the image's.
    """
    rows, shape = index.rows(sample_id), images.size(image)
    if any(row.get("Usage", "").strip().lower() == "ignored" for row in rows):
        return None
    for row in rows:
        if "Height" in row and "Width" in row and (int(row["Height"]), int(row["Width"])) != shape:
            raise DataError(
                f"{index.path}: {sample_id} is {row['Height']} × {row['Width']} there, "
                f"its image {shape[0]} × {shape[1]}"
            )
    return instances.from_runs([row["EncodedPixels"] for row in rows], shape, f"{index.path}: {sample_id}")
