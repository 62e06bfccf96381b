"""Everything that is kept as images beside label files: one's own data, and public sets as they were released."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from histofold.competitions import fields, images, instances
from histofold.competitions.base import UNREADABLE, Competition, Image, Labels, Place, Sample
from histofold.competitions.dsb2018 import COLUMNS, solution_digest, solution_labels
from histofold.competitions.items import Item
from histofold.competitions.layouts import LAYOUTS, MERGED, entered, unlabelled
from histofold.competitions.readers import READERS
from histofold.competitions.rows import RowIndex
from histofold.errors import ConfigError, DataError
from histofold.kaggle.csv import CsvFormat

FORMATS = {"dsb2018": CsvFormat("ImageId", "EncodedPixels", "columns", True)}
"""Submission formats that a folder competition can be asked to write."""


class Folders(Competition):
    """Images with label files.

    Options:
        layout: how the folder is arranged, see `histofold.competitions.layouts`.
        images, labels, index: names inside the folder for layout `custom`; labels null: labels/, else masks/;
            what lies in labels/ and looks like binary masks is refused then.
        group, stratum, split: columns of index.csv; null: `group`, `type` and `split` where they exist.
        truth: `instances`, or `mask` when only foreground counts.
        merged: true when labels are components of a binary mask (instance scores are then marked as such); what is
            read from masks/ is known to be.
        metric: that ranks, by default `dsb` for instances and `dice` for masks (which have `iou`, too) and for merged
            labels, which say nothing of how touching objects are told apart.
        derive: true fills missing types from the pixels, and joins groups whose images continue each other.
        test: another folder of test images (images/ and, where known, labels/ or `solution`).
        solution: CSV inside `test` in the format of DSB's stage1_solution.csv.
        csv: null, or `dsb2018` to write a submission in that format.
    """

    kind: ClassVar[str] = "images"
    defaults: ClassVar[dict[str, Any]] = {
        "layout": "custom",
        "images": "images",
        "labels": None,
        "index": "index.csv",
        "group": None,
        "stratum": None,
        "split": None,
        "truth": "instances",
        "merged": False,
        "metric": None,
        "derive": False,
        "test": None,
        "solution": "stage1_solution.csv",
        "csv": None,
    }

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        options = self.settings
        for key, known in (("layout", LAYOUTS), ("truth", ("instances", "mask")), ("csv", (None, *FORMATS))):
            if options[key] not in known:
                choices = ", ".join(str(choice) for choice in known if choice)
                raise ConfigError(f"competition.options.{key}={options[key]}: unknown; there are {choices}")
        self.truth = str(options["truth"])
        if options["metric"]:
            _check_metric(str(options["metric"]), self.truth)
        self.csv = FORMATS[options["csv"]] if options["csv"] else None

    @cached_property
    def root(self) -> Path:
        """Folder of the raw files: the place's, or the one in it where an archive had a folder of its own."""
        return entered(self.place.root, str(self.settings["layout"]), self.settings)

    # Nobody sets it, and what it asks of the files is not asked before they are needed.
    @cached_property
    def merged(self) -> bool:  # type: ignore[override]
        """Whether the labels of instances are said to be components of a binary mask, or some are read as such.

        Raises:
            DataError: as `samples`.
        """
        layout = self.settings["layout"]
        if self.truth != "instances":
            return False
        if self.settings["merged"] or layout in MERGED:
            return True
        # A patch of `glomeruli` shows one glomerulus, so that none can touch another.
        masks = (item for item in self._items.values() if item.labels is not None and item.reader == "components")
        return layout != "glomeruli" and any(masks)

    @cached_property
    def metric(self) -> str:  # type: ignore[override]
        """The metric that was asked for, else the one that the labels allow.

        Raises:
            DataError: as `samples`.
        """
        if self.settings["metric"]:
            return str(self.settings["metric"])
        return "dice" if self.truth == "mask" or self.merged else "dsb"

    def check(self) -> None:
        """Images and labels belong together one to one, and index.csv knows all of them."""
        if not self.root.is_dir() or not any(self.root.iterdir()):
            raise self.missing("no data")
        if self._test_root is not None and not self._test_root.is_dir():
            raise DataError(f"{self._test_root}: no such folder; competition.options.test={self.settings['test']}")
        _ = self._items

    @cached_property
    def _samples(self) -> list[Sample]:
        self.check()
        items = sorted(self._items.values(), key=lambda item: item.sample_id)
        if self.settings["derive"]:
            return _derived(items)
        return [
            Sample(
                item.sample_id,
                item.split,
                *_size(item),
                item.group or item.sample_id,
                item.stratum or "image",
            )
            for item in items
        ]

    def samples(self) -> list[Sample]:
        """Images of all splits; without a known group each image is its own.

        With `derive` the pixels tell groups and types: the stratum of an image that cannot be read is `UNREADABLE`.
        """
        return self._samples

    def notes(self) -> list[str]:
        """How many training images have no known group, and label files that look like binary masks.

        Parts of one slide may be in different folds without groups.

        Raises:
            DataError: files in labels/ look like binary masks and nobody said that they are none.
        """
        return [*self._binary_labels(), *self._without_group()]

    def _without_group(self) -> list[str]:
        train = [item for item in self._items.values() if item.split == "train"]
        alone = [item for item in train if not item.group]
        if not alone or self.settings["derive"]:
            return []
        return [
            f"{self.root}: {len(alone)} of {len(train)} training images have no known group, so each is its own: parts "
            "of one slide or patient may be in different folds, and scores are then too good; where there are such, "
            f"name the groups in {self.settings['index']} (columns id, group), delete folds.csv and prepare again"
        ]

    def _binary_labels(self) -> list[str]:
        """A line for each folder of labels of instances that look like binary masks: an image would be one object.

        Raises:
            DataError: as `notes`.
        """
        if self.truth == "mask":
            return []
        found = []
        for folder, items in self._label_folders():
            text = instances.looks_binary(folder, sorted(item.labels for item in items if item.labels))
            if text and self.settings["labels"] is None and folder.name == "labels":
                raise DataError(f"{text}, or competition.options.labels=labels where they are instances all the same")
            found += [text] if text else []
        return found

    def doubts(self, counts: Mapping[str, Mapping[str, int]]) -> list[str]:
        """Training images without an object, and folders of labels none of which touch: they may be those of a mask."""
        return [*self._without_objects(counts), *self._untouching(counts)]

    def _without_objects(self, counts: Mapping[str, Mapping[str, int]]) -> list[str]:
        train = sorted(item.sample_id for item in self._items.values() if item.split == "train")
        empty = [key for key in train if counts.get(key, {}).get("instances") == 0]
        if not empty:
            return []
        shown = ", ".join(empty[:3]) + (", …" if len(empty) > 3 else "")
        return [
            f"{self.root}: the truth of {len(empty)} of {len(train)} training images holds no object ({shown}); all is "
            "well if there is nothing to find in them"
        ]

    def _untouching(self, counts: Mapping[str, Mapping[str, int]]) -> list[str]:
        # Glomeruli hardly ever touch, and what is said to be merged is known.
        if self.truth == "mask" or self.settings["layout"] == "glomeruli" or self.merged:
            return []
        looked = [
            instances.looks_merged(folder, [counts.get(item.sample_id, {}) for item in items])
            for folder, items in self._label_folders()
        ]
        return [text for text in looked if text]

    def _label_folders(self) -> list[tuple[Path, list[Item]]]:
        """Folders of files that hold numbers of instances, sorted, and the images that they belong to."""
        folders: dict[Path, list[Item]] = {}
        for item in self._items.values():
            if item.labels is not None and item.reader == "labels":
                folders.setdefault(item.labels.parent, []).append(item)
        return sorted(folders.items())

    def source(self, sample_id: str) -> Path:
        """The image file."""
        return self._item(sample_id).image

    def files(self, sample_id: str) -> list[Path]:
        """The image and its label file."""
        item = self._item(sample_id)
        return [item.image, *([item.labels] if item.labels else [])]

    def truth_digest(self, sample_id: str) -> str:
        """Digest of a test image's rows in the solution, where it has no label file."""
        return "" if self._item(sample_id).labels is not None else solution_digest(self._solution, sample_id)

    def stratum(self, sample_id: str) -> str:
        """The image type, from the table or, with `derive`, from the pixels of this image."""
        item = self._item(sample_id)
        if item.stratum or self.kind_of is None:
            return item.stratum or "image"
        return self.kind_of(images.rgb(item.image))

    @property
    def kind_of(self) -> Callable[[Image], str] | None:
        """With `derive` the image type is in the pixels; a table knows its own images only."""
        return fields.kind_of if self.settings["derive"] else None

    def image(self, sample_id: str) -> Image:
        """Pixels (H, W, 3) uint8."""
        return images.enlarged(images.rgb(self.source(sample_id)), self._item(sample_id).zoom)

    def labels(self, sample_id: str) -> Labels | None:
        """Instances 1..n (H, W), or 0/1 for `truth=mask`; None for a test image without truth."""
        item = self._item(sample_id)
        if item.labels is None:
            known = self._solution is not None and sample_id in self._solution
            labels = solution_labels(self._solution, sample_id, item.image) if known and self._solution else None
        else:
            shape = images.size(item.image)
            reader = "foreground" if item.reader == "labels" and self.truth == "mask" else item.reader
            labels = instances.checked(READERS[reader](item.labels, shape), shape, item.labels, item.image)
        labels = None if labels is None else labels.repeat(item.zoom, 0).repeat(item.zoom, 1)
        if labels is None or self.truth == "instances":
            return labels
        return (labels > 0).astype(np.uint8)

    def submission_ids(self) -> list[str]:
        """Ids of every sample outside training, sorted."""
        return sorted(item.sample_id for item in self._items.values() if item.split != "train")

    @cached_property
    def _items(self) -> dict[str, Item]:
        items = LAYOUTS[self.settings["layout"]](self.root, self.settings)
        if self._test_root is not None:
            items = [*items, *unlabelled(self._test_root, self.settings)]
        found: dict[str, Item] = {}
        for item in items:
            if item.sample_id in found:
                other = found[item.sample_id].image
                raise DataError(f"{item.image}: id {item.sample_id!r} is also that of {other}; rename one")
            found[item.sample_id] = item
        return found

    def _item(self, sample_id: str) -> Item:
        if sample_id not in self._items:
            raise DataError(f"{self.root}: no image {sample_id!r}")
        return self._items[sample_id]

    @property
    def _test_root(self) -> Path | None:
        test = self.settings["test"]
        return Path(self.place.input, Path(test).expanduser()) if test else None

    @cached_property
    def _solution(self) -> RowIndex | None:
        path = (self._test_root or self.root) / str(self.settings["solution"])
        return RowIndex.of(path, COLUMNS) if path.is_file() else None


def _check_metric(metric: str, truth: str) -> None:
    """Refuse a metric that cannot be computed now, and not when a fold was trained that is to be scored by it.

    Raises:
        ConfigError: masks or instances have no such score.
    """
    try:
        # Imported here: a notebook has no metrics, and what it was exported from was checked.
        from histofold.metrics import CURVES, SCORES
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("histofold.metrics"):
            raise
        return
    known = CURVES if truth == "mask" else SCORES
    if metric not in known:
        raise ConfigError(
            f"competition.options.metric={metric}: unknown for competition.options.truth={truth}; there are "
            + ", ".join(known)
        )


def _size(item: Item) -> tuple[int, int]:
    """(height, width) of an item as it is used, enlarged; 0 where the file cannot be read."""
    height, width = images.size_or_zero(item.image)
    return height * item.zoom, width * item.zoom


def _derived(items: list[Item]) -> list[Sample]:
    """Samples with types from the pixels where none is given, and groups from both the table and the pixels.

    Tables of groups miss neighbours; what either of the two joins shares a fold. An image that cannot be read is left
    alone whatever the table says, as it may join two groups.
    """
    views = fields.look({item.sample_id: item.image for item in items})
    broken = {key for key, view in views.items() if view.kind == UNREADABLE}
    first: dict[str, str] = {}
    links = [(item.sample_id, views[item.sample_id].group) for item in items]
    links += [
        (item.sample_id, first.setdefault(item.group, item.sample_id))
        for item in items
        if item.group and item.sample_id not in broken
    ]
    joined = fields.united([item.sample_id for item in items], links)
    names = {item.sample_id: item.group or item.sample_id for item in items if item.sample_id not in broken}
    found = []
    for item in items:
        view = views[item.sample_id]
        size = (view.height * item.zoom, view.width * item.zoom)
        if item.sample_id in broken:
            found.append(Sample(item.sample_id, item.split, *size, item.sample_id, UNREADABLE))
        else:
            group = names[joined[item.sample_id]]
            found.append(Sample(item.sample_id, item.split, *size, group, item.stratum or view.kind))
    return found
