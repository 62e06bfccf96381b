"""Small competitions on disk: a few pixels in each layout."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from histofold import rle
from histofold.sample.kidney import INFORMATION, write_tiff

Write = Callable[..., Path]


def save_png(path: Path, pixels: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)
    return path


def save_csv(path: Path, rows: Sequence[Sequence[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return path


@pytest.fixture
def png() -> Write:
    return save_png


@pytest.fixture
def table() -> Write:
    return save_csv


def square(height: int, width: int, y: int, x: int, side: int) -> NDArray[np.uint8]:
    mask = np.zeros((height, width), np.uint8)
    mask[y : y + side, x : x + side] = 255
    return mask


@pytest.fixture
def dsb(tmp_path: Path) -> Path:
    """Two training images (20 × 30, and 17 × 23 without nuclei), one test image with a solution."""
    root = tmp_path / "input" / "data-science-bowl-2018"
    rng = np.random.default_rng(0)
    rows: list[list[Any]] = [["ImageId", "EncodedPixels"]]
    for key, height, width in (("aaa", 20, 30), ("bbb", 17, 23)):
        pixels = rng.integers(0, 40, (height, width, 4)).astype(np.uint8)
        pixels[..., 3] = 7  # an alpha that would show if it were not dropped
        save_png(root / "stage1_train" / key / "images" / f"{key}.png", pixels)
    (root / "stage1_train" / "bbb" / "masks").mkdir()
    big, small = square(20, 30, 2, 3, 8), square(20, 30, 8, 9, 4)
    save_png(root / "stage1_train" / "aaa" / "masks" / "m1.png", big)
    save_png(root / "stage1_train" / "aaa" / "masks" / "m2.png", small)
    rows += [["aaa", rle.encode(big)], ["aaa", rle.encode(small)], ["bbb", ""]]
    save_csv(root / "stage1_train_labels.csv", rows)
    save_png(root / "stage1_test" / "ccc" / "images" / "ccc.png", np.full((11, 13, 3), 200, np.uint8))
    save_csv(root / "stage1_sample_submission.csv", [["ImageId", "EncodedPixels"], ["ccc", "1 1"]])
    truth = rle.encode(square(11, 13, 1, 1, 3))
    header = ["ImageId", "EncodedPixels", "Height", "Width", "Usage"]
    save_csv(root / "stage1_solution.csv", [header, ["ccc", truth, 11, 13, "Public"]])
    return root


@pytest.fixture
def hubmap(tmp_path: Path) -> Path:
    """Slides one (64 × 48, one patient) and two (40 × 80, another), test slide three; a polygon in slide one."""
    root = tmp_path / "input" / "hubmap-kidney-segmentation"
    sizes = {"one": (64, 48), "two": (40, 80), "three": (32, 32)}
    for number, (key, (height, width)) in enumerate(sizes.items()):
        folder = root / ("test" if key == "three" else "train")
        folder.mkdir(parents=True, exist_ok=True)
        layout = ("interleaved", "planar", "bands")[number]
        write_tiff(folder / f"{key}.tiff", np.full((height, width, 3), 40 * number + 30, np.uint8), layout)
    mask = square(64, 48, 10, 20, 9)
    ring = [[20, 10], [28, 10], [28, 18], [20, 18], [20, 10]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}}
    (root / "train" / "one.json").write_text(json.dumps([feature]))
    (root / "train" / "one-anatomical-structure.json").write_text("[]")
    save_csv(root / "train.csv", [["id", "encoding"], ["one", rle.encode(mask)], ["two", ""]])
    # Slide one's width is wrong here, as c68fe75ea's is in the competition.
    header = ["image_file", "width_pixels", "height_pixels", "patient_number"]
    save_csv(root / INFORMATION, [header, ["one.tiff", 8, 64, 101], ["two.tiff", 80, 40, 102]])
    save_csv(root / "sample_submission.csv", [["id", "predicted"], ["three", ""]])
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """images/ and labels/ of three images, one with two instances."""
    root = tmp_path / "input" / "custom"
    for number, key in enumerate(("a", "b", "c")):
        save_png(root / "images" / f"{key}.png", np.full((12, 15, 3), 50 + number, np.uint8))
        labels = np.zeros((12, 15), np.uint16)
        labels[2:5, 2:5] = 1
        if key == "a":
            labels[6:9, 6:9] = 700
        save_png(root / "labels" / f"{key}.png", labels)
    return root


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data sets, named by HISTOFOLD_DATA."""
    place = os.environ.get("HISTOFOLD_DATA")
    if not place or not Path(place).is_dir():
        pytest.skip("HISTOFOLD_DATA is not set")
    return Path(place)
