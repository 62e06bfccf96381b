"""The embedded sample of Data Science Bowl 2018: small images in Kaggle's layout, drawn by `microscopy`."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from histofold import files, rle
from histofold.progress import bar
from histofold.sample import microscopy

SEED = 20180416


@dataclass(frozen=True)
class Plan:
    """One field of view: its manner, size, number of nuclei, split, and whether it is cut into four tiles."""

    manner: str
    height: int
    width: int
    count: int
    split: str = "train"
    cut: bool = False


PLANS = (
    Plan("fluorescence", 512, 512, 120, cut=True),
    Plan("fluorescence", 512, 512, 70, cut=True),
    *(Plan("fluorescence", 256, 256, count) for count in (9, 18, 28, 40, 55, 0)),
    *(Plan("fluorescence", 360, 360, count) for count in (14, 30, 60)),
    *(Plan("fluorescence", 520, 696, count) for count in (60, 140)),
    Plan("purple", 512, 640, 150, cut=True),
    *(Plan("purple", 256, 320, count) for count in (18, 45)),
    *(Plan("white", 256, 320, count) for count in (25, 55)),
    *(Plan("pink", 256, 320, count) for count in (15, 30)),
    *(Plan("grey", 480, 480, count) for count in (22, 35, 45, 30)),
    *(Plan("fluorescence", 256, 256, count, "test") for count in (12, 45)),
    Plan("fluorescence", 519, 253, 50, "test"),
    Plan("fluorescence", 360, 360, 25, "test"),
    Plan("purple", 256, 320, 35, "test"),
    Plan("white", 390, 239, 40, "test"),
    Plan("pink", 256, 320, 24, "test"),
    Plan("grey", 480, 480, 34, "test"),
)
"""Fields of view; the test set has sizes that training lacks, as in the competition."""


@dataclass(frozen=True)
class Image:
    """One image: id, split, pixels (H, W, 3), labels (H, W)."""

    image_id: str
    split: str
    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint16]


def draw(folder: Path) -> None:
    """Draw the sample into `folder`; stage1_train_labels.csv is written last, so where it is the sample is whole.

    Raises:
        ResourceError: the disk is full.
    """
    rows: dict[str, list[list[object]]] = {"train": [], "test": []}
    shapes: dict[str, tuple[int, int]] = {}
    for image in bar(pictures(), total=len(PLANS) + 9, text="drawing nuclei", unit="image"):
        _save(folder / f"stage1_{image.split}" / image.image_id, image)
        texts = list(rle.encode_labels(image.labels).values()) or [""]
        rows[image.split] += [[image.image_id, text] for text in texts]
        shapes[image.image_id] = (image.labels.shape[0], image.labels.shape[1])
    for part in rows.values():
        part.sort(key=lambda row: str(row[0]))  # stable: nuclei of one image stay in their order
    columns: list[object] = ["ImageId", "EncodedPixels"]
    test = sorted({str(row[0]) for row in rows["test"]})
    solution: Iterable[list[object]] = ([*row, *shapes[str(row[0])], "Public"] for row in rows["test"])
    _table(folder / "stage1_solution.csv", [*columns, "Height", "Width", "Usage"], solution)
    _table(folder / "stage1_sample_submission.csv", columns, ([key, ""] for key in test))
    _table(folder / "stage1_train_labels.csv", columns, rows["train"])


def pictures() -> Iterator[Image]:
    """All images of the sample, in the order of the plans; a cut field gives four."""
    for number, plan in enumerate(PLANS):
        rng = np.random.default_rng([SEED, number])
        if plan.manner == "fluorescence":
            pixels, labels = microscopy.fluorescence(rng, plan.height, plan.width, plan.count)
        elif plan.manner == "grey":
            pixels, labels = microscopy.bright_grey(rng, plan.height, plan.width, plan.count)
        else:
            pixels, labels = microscopy.histology(rng, plan.height, plan.width, plan.count, plan.manner)
        for part, window in enumerate(_windows(plan)):
            # Names without meaning, like Kaggle's, so that nobody learns a tile's place from them.
            image_id = hashlib.sha256(f"histofold {SEED} {number} {part}".encode()).hexdigest()
            yield Image(image_id, plan.split, pixels[window], labels[window])


def _windows(plan: Plan) -> list[tuple[slice, slice]]:
    if not plan.cut:
        return [(slice(None), slice(None))]
    y, x = plan.height // 2, plan.width // 2
    return [(rows, columns) for rows in (slice(0, y), slice(y, None)) for columns in (slice(0, x), slice(x, None))]


def _save(folder: Path, image: Image) -> None:
    opaque = np.full((*image.pixels.shape[:2], 1), 255, np.uint8)
    _png(folder / "images" / f"{image.image_id}.png", np.concatenate([image.pixels, opaque], axis=2))
    if image.split == "test":
        return
    (folder / "masks").mkdir(exist_ok=True)
    for label in np.unique(image.labels[image.labels > 0]):
        name = hashlib.sha256(f"{image.image_id} {label}".encode()).hexdigest()
        _png(folder / "masks" / f"{name}.png", np.where(image.labels == label, 255, 0).astype(np.uint8))


def _png(path: Path, pixels: NDArray[np.uint8]) -> None:
    with files.atomic(path) as temporary:
        PIL.Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="png", compress_level=3)


def _table(path: Path, header: list[object], rows: Iterable[list[object]]) -> None:
    with files.atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
