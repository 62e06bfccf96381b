"""What the pixels say about a collection of microscope images: the kind of each, and which show one field of view.

Kaggle cut many fields of DSB 2018 into tiles and shuffled them under random names. A tile whose neighbour is in
training is no fair test, so images of one field must share a fold. Two images belong together when

- the last row or column of one goes on as the first of the other: the two lines correlate, and the step across the cut
  is no larger than the steps between neighbouring lines on either side of it, and of all images of that size each is
  the other's best continuation; or
- they are the same picture, up to brightness and contrast, flips and quarter turns, at any size: their 32 × 32
  thumbnails, centred and scaled to unit length, correlate by more than .98 in one of the eight views.

Measured on 465 images of stage1_train against a hand-made index: adjusted Rand index .958. Of the links that differ,
most are neighbours that continue each other to the eye and which the index lacks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from histofold import parallel
from histofold.competitions import images
from histofold.competitions.base import UNREADABLE
from histofold.errors import DataError
from histofold.files import reading
from histofold.progress import bar

FLUORESCENCE, HISTOLOGY, BRIGHT_GREY = "fluorescence", "histology", "brightfield"

DARK = 90.0
"""Median grey value (0..255) below which the background is dark, so the image is fluorescence; measured on stage 1 the
medians are 0..52 for fluorescence and 131..231 for the others."""

COLOURED = 6.0
"""Mean distance of the largest from the smallest channel above which a bright image is stained; measured 0 and ≥ 12."""

CORRELATION = 0.85
STEP = 1.1
DUPLICATE = 0.98
THUMBNAIL = 32

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """One image reduced to what comparison needs.

    Attributes:
        height, width: in pixels.
        kind: fluorescence, histology or brightfield.
        edges: side → (2, n, 3) the outermost line and the one beside it.
        thumbnail: (32, 32), zero mean and unit length; all zero for a flat image.
    """

    height: int
    width: int
    kind: str
    edges: dict[str, Floats]
    thumbnail: Floats


@dataclass(frozen=True)
class View:
    """What is known of one image: its size, kind, and the group that it shares with its neighbours."""

    height: int
    width: int
    kind: str
    group: str


def look(paths: Mapping[str, Path], join: bool = True, workers: int = 0) -> dict[str, View]:
    """Kind and group of every image; `join=False` leaves each in a group of its own.

    A group is named after the first of its ids. All images are decoded once. One that cannot be read stops no other: it
    has a size of 0, the kind `UNREADABLE` and a group of its own, as nobody knows what it shows.
    """
    ids = sorted(paths)
    # Threads and not processes: decoding releases the interpreter, and starting a process takes as long as 100 images.
    with ThreadPoolExecutor(workers or parallel.cores()) as pool:
        found = pool.map(_examined, [paths[key] for key in ids])
        every = zip(ids, bar(found, total=len(ids), text="looking at images", unit="image"), strict=True)
        looks = {key: one for key, one in every if one is not None}
    groups = united(ids, links(looks)) if join else {key: key for key in ids}
    unknown = {key: View(0, 0, UNREADABLE, key) for key in ids if key not in looks}
    known = {key: View(one.height, one.width, one.kind, groups[key]) for key, one in looks.items()}
    return {key: known.get(key) or unknown[key] for key in ids}


def _examined(path: Path) -> Look | None:
    """As `examine`, None for an image that cannot be read: whoever then reads it gets the error."""
    try:
        with reading(path):
            return examine(path)
    except (DataError, OSError):
        return None


def examine(path: Path) -> Look:
    """Read one image and keep what comparison needs.

    Raises:
        DataError: a broken image.
    """
    pixels = images.rgb(path)
    height, width = pixels.shape[:2]
    edges = {
        "right": pixels[:, : -min(3, width + 1) : -1].transpose(1, 0, 2),
        "left": pixels[:, :2].transpose(1, 0, 2),
        "bottom": pixels[: -min(3, height + 1) : -1],
        "top": pixels[:2],
    }
    floats = {side: np.ascontiguousarray(lines, dtype=np.float32) for side, lines in edges.items()}
    return Look(height, width, kind_of(pixels), floats, _thumbnail(pixels))


def kind_of(pixels: NDArray[np.uint8]) -> str:
    """Kind of an RGB image (H, W, 3): dark background is fluorescence, colour is histology, else bright grey."""
    if float(np.median(pixels)) < DARK:
        return FLUORESCENCE
    spread = float(np.mean(pixels.max(axis=2).astype(np.int16) - pixels.min(axis=2)))
    return HISTOLOGY if spread > COLOURED else BRIGHT_GREY


def links(looks: Mapping[str, Look]) -> list[tuple[str, str]]:
    """Pairs of ids that show one field of view."""
    by_size: dict[tuple[int, int], list[str]] = defaultdict(list)
    for key, one in looks.items():
        by_size[one.height, one.width].append(key)
    found: list[tuple[str, str]] = []
    for ids in by_size.values():
        for first, second in (("right", "left"), ("bottom", "top")):
            ends = [looks[key].edges[first] for key in ids]
            starts = [looks[key].edges[second] for key in ids]
            found += [(ids[i], ids[j]) for i, j in continued(ends, starts)]
    ids = list(looks)
    return found + [(ids[i], ids[j]) for i, j in duplicates([looks[key].thumbnail for key in ids])]


def continued(ends: Sequence[Floats], starts: Sequence[Floats]) -> Iterator[tuple[int, int]]:
    """Pairs (i, j), i ≠ j, where line `ends[i]` of one image goes on as `starts[j]` of another.

    Each is (2, n, 3): the outermost line, then the one beside it.
    """
    if len(ends) < 2 or min(lines.shape[0] for lines in (*ends, *starts)) < 2:
        return
    end, start = np.stack(ends), np.stack(starts)
    step = np.stack([np.abs(line - start[:, 0]).mean(axis=(1, 2)) for line in end[:, 0]])
    np.fill_diagonal(step, np.inf)
    inside = (_inside(end)[:, None] + _inside(start)[None]) / 2
    left, right = _centred(end[:, 0]), _centred(start[:, 0])
    correlation = left @ right.T
    mutual = (step == step.min(axis=0, keepdims=True)) & (step == step.min(axis=1, keepdims=True))
    # A third of a grey level keeps two flat dark edges, which say nothing, from dividing by nothing.
    good = mutual & (correlation >= CORRELATION) & (step < STEP * (inside + 0.3))
    for i, j in zip(*np.nonzero(good), strict=True):
        yield int(i), int(j)


def duplicates(thumbnails: Sequence[Floats]) -> Iterator[tuple[int, int]]:
    """Pairs (i, j), i < j, whose thumbnails agree in one of the eight dihedral views."""
    if len(thumbnails) < 2:
        return
    stack = np.stack(thumbnails)
    flat = stack.reshape(len(stack), -1)
    for turns in range(4):
        for flipped in (False, True):
            view = np.rot90(stack, turns, axes=(1, 2))
            view = view[:, :, ::-1] if flipped else view
            agree = flat @ view.reshape(len(stack), -1).T > DUPLICATE
            for i, j in zip(*np.nonzero(np.triu(agree, 1)), strict=True):
                yield int(i), int(j)


def _inside(lines: Floats) -> Floats:
    return np.asarray(np.abs(lines[:, 0] - lines[:, 1]).mean(axis=(1, 2)), dtype=np.float32)


def _centred(lines: Floats) -> Floats:
    """(N, n, 3) → (N, 3 n), each channel of zero mean, each line of unit length."""
    flat = (lines - lines.mean(axis=1, keepdims=True)).reshape(len(lines), -1)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6), dtype=np.float32)


def _thumbnail(pixels: NDArray[np.uint8]) -> Floats:
    # Grey in whole numbers, reduced by area: the same on every machine.
    grey = pixels.mean(axis=2, dtype=np.float32)
    small = cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    small = small - small.mean()
    length = float(np.linalg.norm(small))
    return np.asarray(small / length if length > 1.0 else np.zeros_like(small), dtype=np.float32)


def united(ids: Sequence[str], pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The first id of each connected set, for every id; `ids` is sorted."""
    parent = {key: key for key in ids}

    def root(key: str) -> str:
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for first, second in pairs:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    return {key: root(key) for key in ids}
