"""Prediction of slides beside the bare forward passes and MONAI: time, memory, and what everything else costs.

    python tests/bench/bench_slides.py                           # all parts, a quarter of an hour on two idle cores
    python tests/bench/bench_slides.py --only predict            # or ensemble, memory, overhead: up to 5 minutes each
    python tests/bench/bench_slides.py --only overhead --large   # 20,000 × 20,000 px
    python tests/bench/bench_slides.py --only memory --large --layouts lzw   # the network itself on higher slides
    python tests/bench/bench_slides.py --small                   # tiny slides, no verdict, to see that it runs

*Bare forward* is the same batches of the same network from memory, nothing else: segmentation-models' U-Net with a
ResNet-18 encoder at 256 px. Slides are drawn here: PAS-like tissue as LZW strips, deflate tiles and JPEG tiles. Times
are the clock's with all cores (`--threads 1` for one), so the machine must be idle. Exit code 1 when a row is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import slide_memory
import torch
from slide_case import LAYOUTS, Case, draw_slide, make_members, settings_for
from verdicts import Row, head

from histofold import parallel

PARTS = ("predict", "ensemble", "memory", "overhead")
SHORT = {layout.split()[0].lower(): layout for layout in LAYOUTS}
ONE, MANY = 1.08, 1.05
"""What is allowed of the bare forward passes' time, for one member and for five with four views."""


@dataclass(frozen=True)
class Sizes:
    """Sides of the slides in pixels: of `predict`, of `ensemble`, width and heights by network, of `overhead`."""

    predict: int
    ensemble: int
    width: int
    heights: dict[str, tuple[int, ...]]
    overhead: int


SMALL = Sizes(320, 256, 1024, {"smp": (320, 1280), "free": (320, 1280)}, 512)
USUAL = Sizes(1664, 832, slide_memory.WIDTH, {"smp": (832,), "free": (1250, 5000)}, 6000)
LARGE = Sizes(4096, 1600, slide_memory.WIDTH, {"smp": (832, 3328), "free": (5000, 20_000)}, 20_000)


def timed(functions: Sequence[Callable[[], object]], repeats: int) -> list[tuple[float, float]]:
    """Median wall and processor seconds of each function.

    They take turns, so that a busy machine is busy for all of them; processor time hardly notices it at all.
    """
    found: list[list[tuple[float, float]]] = [[] for _ in functions]
    for _ in range(repeats):
        for times, function in zip(found, functions, strict=True):
            wall, cpu = time.perf_counter(), time.process_time()
            function()
            times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return [(float(np.median([w for w, _ in times])), float(np.median([c for _, c in times]))) for times in found]


def predict_row(what: str, case: Case, limit: float, repeats: int) -> Row:
    """Time of a prediction beside the bare forward passes and MONAI."""
    import monai.inferers  # so that its first run is not an import

    batches = case.batches()
    replace(case, members=case.members[:1]).bare(batches[:2])
    (bare, bare_cpu), (ours, ours_cpu), (monai, monai_cpu) = timed(
        [lambda: case.bare(batches), case.ours, case.monai], repeats
    )
    profile = "" if case.settings.torch_device().type == "cuda" else f"; one run: {case.anatomy().told(bare)}"
    return Row(
        what, "s", ours, "MONAI, same tiles and window", monai, "bare forward", bare, limit,
        note=f"{len(batches) * len(case.members)} passes; in processor time {ours_cpu / bare_cpu:.3f} × bare, "
        f"MONAI {monai_cpu / ours_cpu:.2f} × ours{profile}",
    )  # fmt: skip


def predict_rows(folder: Path, device: str, layouts: Sequence[str], side: int, repeats: int) -> Iterator[Row]:
    """One member, a row for each layout."""
    members, settings = make_members(1, settings_for(device).torch_device()), settings_for(device)
    for layout in layouts:
        path = draw_slide(folder / "predict.tif", side, side, layout)
        what = f"predict, 1 member, {layout}, {side:,} × {side:,} px"
        yield predict_row(what, Case(path, members, settings), ONE, repeats)


def ensemble_rows(folder: Path, device: str, layouts: Sequence[str], side: int, repeats: int) -> Iterator[Row]:
    """Five members and four views, on the last of the layouts."""
    settings = settings_for(device, "flips")
    path = draw_slide(folder / "ensemble.tif", side, side, layouts[-1])
    what = f"predict, 5 members × 4 views, {layouts[-1]}, {side:,} × {side:,} px"
    yield predict_row(what, Case(path, make_members(5, settings.torch_device()), settings), MANY, repeats)


def overhead_rows(folder: Path, device: str, layouts: Sequence[str], side: int) -> Iterator[Row]:
    """What everything but the forward passes costs."""
    import slide_overhead  # numba, pycocotools: not for those who do not ask for it

    yield from slide_overhead.rows(folder, device, layouts, side)


def rows_of(parts: Sequence[str], folder: Path, options: argparse.Namespace, sizes: Sizes) -> Iterator[Row]:
    """All rows of the chosen parts, each as soon as it is measured."""
    device, layouts = options.device, [SHORT[name] for name in options.layouts]
    made = {
        "predict": lambda: predict_rows(folder, device, layouts, sizes.predict, options.repeats),
        "ensemble": lambda: ensemble_rows(folder, device, layouts, sizes.ensemble, options.repeats),
        "memory": lambda: slide_memory.rows(folder, device, layouts, sizes.width, sizes.heights),
        "overhead": lambda: overhead_rows(folder, device, layouts, sizes.overhead),
    }
    for part in parts:
        yield from made[part]()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all or the chosen parts and print the table; 0 when every row is reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--layouts", nargs="+", choices=list(SHORT), default=list(SHORT))
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--small", action="store_true", help="tiny slides, no verdict")
    size.add_argument("--large", action="store_true", help="full sizes; needs 10 GB of disk and some patience")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: its own choice, all cores")
    parser.add_argument("--repeats", type=int, default=3, help="of predict and ensemble, whose median counts")
    parser.add_argument("--json", type=Path, help="keeps the numbers")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    machine = {"cores": parallel.cores(), "torch_threads": torch.get_num_threads()}
    machine["device"] = str(settings_for(options.device).torch_device())
    print(", ".join(f"{value} {name.replace('_', ' ')}" for name, value in machine.items()) + f"\n\n{head()}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sizes = SMALL if options.small else LARGE if options.large else USUAL
        for row in rows_of(options.only, Path(folder), options, sizes):
            rows.append(row)
            print(row.line(), flush=True)
    if options.json:
        judged = [{**asdict(row), "value": row.value, "reached": row.reached} for row in rows]
        options.json.write_text(json.dumps({**machine, "rows": judged}, indent=2) + "\n")
    if options.small:
        print("\nslides as small as these decide nothing")
    return 0 if options.small or all(row.reached for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
