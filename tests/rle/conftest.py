from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

PlainEncoder = Callable[[np.ndarray, str], str]


@pytest.fixture(scope="session")
def plain_encode() -> PlainEncoder:
    """A reader's definition of the format: walk the pixels one by one."""

    def encode(mask: np.ndarray, dialect: str) -> str:
        height, width = mask.shape
        if dialect == "columns":
            pixels = [bool(mask[y, x]) for x in range(width) for y in range(height)]
        else:
            pixels = [bool(mask[y, x]) for y in range(height) for x in range(width)]
        numbers: list[int] = []
        for number, pixel in enumerate(pixels, start=1):
            if pixel and (number == 1 or not pixels[number - 2]):
                numbers += [number, 0]
            if pixel:
                numbers[-1] += 1
        return " ".join(map(str, numbers)) or ("1 0" if dialect == "rows" else "")

    return encode


@pytest.fixture(scope="session")
def kidney() -> Path:
    """Real rows of the HuBMAP kidney competition."""
    folder = Path(os.environ.get("HISTOFOLD_DATA", "")) / "hubmap_kidney"
    if "HISTOFOLD_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("HISTOFOLD_DATA is not set to a folder with hubmap_kidney")
    return folder


@pytest.fixture(scope="session")
def kidney_shapes(kidney: Path) -> dict[str, tuple[int, int]]:
    with (kidney / "kaggle_files" / "slide_shapes.csv").open() as stream:
        return {row["id"]: (int(row["height"]), int(row["width"])) for row in csv.DictReader(stream)}
