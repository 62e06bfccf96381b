"""The codec beside its peers and the memory bus: ours, peer, ratio, floor, all measured in one run with all cores.

    python tests/bench/bench_rle.py            # everything, about a minute and 4 GB
    python tests/bench/bench_rle.py --small    # a sixteenth of the pixels, to see that it runs

The *floor* is what the machine allows: reading the mask once, or filling a fresh one once, by all cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray
from pycocotools import mask as coco

from histofold import rle
from histofold.rle import threads

BAND = 1024


@dataclass(frozen=True)
class Line:
    """One line of the table; `target` is the ratio to reach."""

    what: str
    ours: float
    peer: str
    theirs: float
    target: float

    @property
    def ratio(self) -> float:
        """How many times faster we are; against a floor, the share of its rate that we reach."""
        return self.theirs / self.ours

    def cells(self) -> list[str]:
        """The cells of a table row."""
        word = "reached" if self.ratio >= self.target else "NOT reached"
        times = [f"{1e3 * self.ours:.1f}", self.peer, f"{1e3 * self.theirs:.1f}", f"{self.ratio:.2f}"]
        return [self.what, *times, f"{self.target:g}", word]


def seconds(function: Callable[[], Any], repeats: int = 5) -> float:
    """The shortest of some runs, after one that is not counted (it compiles, and warms the caches).

    What takes milliseconds is run for a second at least: one disturbance by another process would be all of it.
    """
    function()
    best, spent, runs = float("inf"), 0.0, 0
    while runs < repeats or (spent < 1.0 and runs < 60):
        start = time.perf_counter()
        function()
        taken = time.perf_counter() - start
        best, spent, runs = min(best, taken), spent + taken, runs + 1
    return best


def ellipses(height: int, width: int, count: int = 120, share: float = 0.02) -> NDArray[np.uint8]:
    """A mask of ellipses; each axis is `share` of the width on average."""
    rng = np.random.default_rng(0)
    mask = np.zeros((height, width), np.uint8)
    for _ in range(count):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = tuple(int(width * share * rng.uniform(0.5, 1.5)) for _ in range(2))
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    return mask


def nuclei(side: int, count: int) -> NDArray[np.int32]:
    """An image of about `count` labels on a jittered grid, so that none hides another wholly."""
    rng = np.random.default_rng(1)
    labels = np.zeros((side, side), np.int32)
    columns = int(np.ceil(np.sqrt(count)))
    step = side / columns
    for label in range(1, count + 1):
        row, column = divmod(label - 1, columns)
        centre = tuple(int((k + rng.uniform(0.35, 0.65)) * step) for k in (column, row))
        axes = tuple(int(step * rng.uniform(0.25, 0.5)) for _ in range(2))
        cv2.ellipse(labels, centre, axes, float(rng.uniform(0, 180)), 0, 360, label, -1)
    return labels


def one_liner(mask: NDArray[Any]) -> str:
    """The form known from a thousand Kaggle notebooks."""
    pixels = np.concatenate([[0], mask.T.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(x) for x in runs)


@njit(nogil=True)
def _add_up(words: NDArray[np.uint64]) -> int:
    total = np.uint64(0)
    for word in words:
        total += word
    return total


def read_once(mask: NDArray[np.uint8]) -> None:
    """Read every byte by all cores."""
    words = mask.reshape(-1).view(np.uint64)
    threads.over_rows(lambda a, b: _add_up(words[a:b]), words.size, 1)


def fill_once(shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Fill a fresh mask by all cores."""
    mask = np.empty(shape, np.uint8)
    threads.over_rows(lambda a, b: mask[a:b].fill(1), *shape)
    return mask


def stream(mask: NDArray[np.uint8]) -> str:
    """Encode from bands of rows."""
    encoder = rle.RowStreamEncoder(*mask.shape)
    for y in range(0, mask.shape[0], BAND):
        encoder.push(mask[y : y + BAND])
    return encoder.finish()


def encoding(mask: NDArray[np.uint8]) -> list[Line]:
    """The rows about one mask's text."""
    fortran = np.asfortranarray(mask)
    if not rle.encode(mask) == rle.encode(fortran) == stream(mask) == one_liner(mask):
        raise SystemExit("the encoders disagree")
    ours = seconds(lambda: rle.encode(mask))
    ours_fortran = seconds(lambda: rle.encode(fortran))
    peer_fortran = seconds(lambda: coco.encode(fortran), 3)
    return [
        Line("encode", ours, "numpy one-liner", seconds(lambda: one_liner(mask), 2), 50),
        Line("encode", ours, "pycocotools, C order", seconds(lambda: coco.encode(np.asfortranarray(mask)), 3), 25),
        Line("encode", ours, "pycocotools, Fortran order", peer_fortran, 2),
        Line("encode, Fortran order", ours_fortran, "pycocotools, Fortran order", peer_fortran, 2),
        Line("encode", ours, "floor: read once", seconds(lambda: read_once(mask), 10), 0.3),
        Line("encode, streamed", seconds(lambda: stream(mask)), "encode, whole", ours, 1 / 1.3),
    ]


def decoding(mask: NDArray[np.uint8], name: str) -> list[Line]:
    """The rows about one text's mask."""
    text, shape = rle.encode(mask), (mask.shape[0], mask.shape[1])
    counts = coco.encode(np.asfortranarray(mask))
    if not np.array_equal(rle.decode(text, shape), mask):
        raise SystemExit("decode does not give the mask back")
    ours = seconds(lambda: rle.decode(text, shape))
    what = f"decode, {name}"
    return [
        Line(what, ours, "pycocotools + copy", seconds(lambda: np.ascontiguousarray(coco.decode(counts)), 3), 5),
        Line(what, ours, "floor: fill once", seconds(lambda: fill_once(shape)), 0.6),
    ]


def labelling(side: int, count: int) -> list[Line]:
    """The row about one text a nucleus."""
    labels = nuclei(side, count)
    texts = rle.encode_labels(labels)
    some = np.random.default_rng(2).choice(list(texts), 50, replace=False).tolist()

    def each() -> dict[int, str]:
        return {label: rle.encode(labels == label) for label in some}

    if each() != {label: texts[label] for label in some}:
        raise SystemExit("encode_labels and encode disagree")
    scaled = seconds(each, 1) / len(some) * len(texts)
    peer = f"encode a label × {len(texts)} (50 scaled)"
    return [Line("encode_labels", seconds(lambda: rle.encode_labels(labels), 3), peer, scaled, 50)]


def main(argv: list[str] | None = None) -> int:
    """Measure and print the table; exit code 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a sixteenth of the pixels; targets are not judged")
    small = parser.parse_args(argv).small
    height, width = (3750, 4000) if small else (15000, 16000)
    side, count = (2500, 1250) if small else (10000, 20000)
    mask = ellipses(height, width)
    print(
        f"{threads.count()} cores; mask {height} × {width} of 120 ellipses, {mask.mean():.1%} foreground; "
        f"{count} labels in {side} × {side}\n"
    )
    rows = [*encoding(mask), *decoding(mask, f"{mask.mean():.0%} foreground")]
    dense = 1 - mask
    rows += [*decoding(dense, f"{dense.mean():.0%} foreground"), *labelling(side, count)]
    print("| what | ours, ms | beside | its ms | ratio | to reach | |\n|---|---|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row.cells()) + " |")
    return 0 if small or all(row.ratio >= row.target for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
