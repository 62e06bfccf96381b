"""What a slide costs beside the forward passes, from TIFF to a validated CSV, and which stages take how much of it.

The network costs nothing. Stages are timed where they run, in three threads at once (reading, computing, writing), so
that their sum may be more than the whole; each holds what it waited for a core, too.
"""

from __future__ import annotations

import csv as plain_csv
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import cv2
import numpy as np
from bench_prepare import decode_gdal, decode_handles
from bench_rle import one_liner
from slide_case import Case, draw_slide, free_member, settings_for
from verdicts import Row

from histofold.inference import stream
from histofold.inference.bandfile import BandFile, BandFileWriter
from histofold.inference.blender import Blender, Finished
from histofold.inference.sources import SlideSource
from histofold.kaggle import csv, validate
from histofold.kaggle.csv import CsvFormat
from histofold.submission.encode import mask_text

T = TypeVar("T")

FORMAT = CsvFormat("id", "predicted")
SMALLEST = 1000
"""Pixels of the objects that are dropped and of the holes that are filled."""
PEER_SIDE = 6000
"""The largest slide for the peer, which holds it whole several times over."""
_END = object()


class Stopwatch:
    """Seconds of named stages in whatever thread they run; a stage within another one stops that one's clock."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._local = threading.local()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block."""
        running: list[tuple[str, float]] = self._local.__dict__.setdefault("running", [])
        if running:
            self._count(running)
        running.append((name, time.perf_counter()))
        try:
            yield
        finally:
            self._count(running)
            running.pop()
            if running:
                running[-1] = (running[-1][0], time.perf_counter())

    def _count(self, running: list[tuple[str, float]]) -> None:
        name, start = running[-1]
        with self._lock:
            self.seconds[name] += time.perf_counter() - start

    def calls(self, name: str, function: Callable[..., T]) -> Callable[..., T]:
        """The function, timed."""

        def wrapped(*args: Any, **kwargs: Any) -> T:
            with self.stage(name):
                return function(*args, **kwargs)

        return wrapped

    def items(self, name: str, function: Callable[..., Iterable[T]]) -> Callable[..., Iterator[T]]:
        """What gives an iterator, with the making of each item timed, and not what is done with it."""

        def wrapped(*args: Any, **kwargs: Any) -> Iterator[T]:
            iterator = iter(function(*args, **kwargs))
            while True:
                with self.stage(name):
                    item: Any = next(iterator, _END)
                if item is _END:
                    return
                yield item

        return wrapped

    @contextmanager
    def prediction(self) -> Iterator[None]:
        """Time the stages of whatever is predicted within the block."""
        with ExitStack() as stack:
            for owner, name, stage in (
                (SlideSource, "bands", "read"),
                (stream, "tile_batches", "tile"),
            ):
                stack.enter_context(patch.object(owner, name, self.items(stage, getattr(owner, name))))
            for owner, name, stage in (
                (stream.Predictor, "predict", "normalise and sigmoid"),
                (Blender, "add", "blend"),
                (Blender, "advance", "blend"),
                (Finished, "fetch", "blend"),
                (BandFileWriter, "write_rows", "write"),
                (BandFileWriter, "__exit__", "write"),
            ):
                stack.enter_context(patch.object(owner, name, self.calls(stage, getattr(owner, name))))
            yield

    def shares(self) -> str:
        """All stages, the largest first, in percent of their sum."""
        total = sum(self.seconds.values())
        ordered = sorted(self.seconds.items(), key=lambda item: -item[1])
        return ", ".join(f"{name} {value / total:.0%}" for name, value in ordered)


def ours(case: Case, size: tuple[int, int], out: Path, watch: Stopwatch) -> str:
    """From TIFF to a validated CSV at `out`, small objects dropped and small holes filled; gives the text."""
    with watch.prediction():
        case.ours()
    with watch.stage("clean and encode"), BandFile(case.bands) as file:
        text = mask_text(file, 0.5, size, FORMAT.dialect, SMALLEST, SMALLEST)
    with watch.stage("CSV and validation"):
        csv.write(out, FORMAT, [("slide", text)])
        validate.require(out, FORMAT, ["slide"], {"slide": size})
    return text


def notebook(case: Case, size: tuple[int, int], out: Path) -> None:
    """The notebooks' way to a CSV: MONAI over the whole slide, cv2.resize, the numpy one-liner."""
    height, width = size
    codes = cv2.resize(case.monai(), (width, height), interpolation=cv2.INTER_LINEAR)
    text = one_liner((codes >= 128).astype(np.uint8))
    with out.open("w", newline="") as file:
        plain_csv.writer(file).writerows([["id", "predicted"], ["slide", text]])


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def rows(folder: Path, device: str, layouts: Iterable[str], side: int) -> Iterator[Row]:
    """Rows of the table: for each layout, seconds a gigapixel at the scales 1 and 4."""
    settings, member = settings_for(device), free_member()
    small_side = min(side, PEER_SIDE)
    for layout in layouts:
        path = draw_slide(folder / "overhead.tif", side, side, layout)
        small = path if small_side == side else draw_slide(folder / "peer.tif", small_side, small_side, layout)
        least = min(seconds(lambda p=path, f=way: f(p, side, side)) for way in (decode_handles, decode_gdal))  # type: ignore[misc]
        warm = draw_slide(folder / "warm.tif", 512, 512, layout)
        for scale in (1.0, 4.0):
            # What compiles at its first call does so here.
            ours(Case(warm, [member], settings, scale), (512, 512), folder / "warm.csv", Stopwatch())
            notebook(Case(warm, [member], settings, scale), (512, 512), folder / "warm.csv")
            watch, case = Stopwatch(), Case(path, [member], settings, scale)
            taken = seconds(lambda c=case, w=watch: ours(c, (side, side), folder / "ours.csv", w))  # type: ignore[misc]
            peer = Case(small, [member], settings, scale)
            theirs = seconds(lambda c=peer: notebook(c, (small_side, small_side), folder / "peer.csv"))  # type: ignore[misc]
            yield Row(
                f"all but the forward passes, TIFF to validated CSV, {layout}, {side:,} × {side:,} px, scale {scale:g}",
                "s/Gpx",
                taken / side**2 * 1e9,
                f"MONAI, cv2, numpy one-liner at {small_side:,} × {small_side:,} px",
                theirs / small_side**2 * 1e9,
                "decoding alone",
                least / side**2 * 1e9,
                note=f"of all threads' time {watch.shares()}; {runs_in(folder / 'ours.csv'):,} runs",
            )


def runs_in(path: Path) -> int:
    """Runs of the one mask of a CSV."""
    return sum((text.count(" ") + 1) // 2 for _, text in csv.read(path, FORMAT))
