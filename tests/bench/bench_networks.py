"""All networks in one table, and the losses that cost time: everything is measured in one run.

    python tests/bench/bench_networks.py                      # a quarter of an hour on two cores, up to 20 GB
    python tests/bench/bench_networks.py --small              # at 64 and 128 pixels: two minutes, to see that it runs
    python tests/bench/bench_networks.py --only kidney_segnet # some networks, beside the U-Net/ResNet-18

One image a batch. Each network is measured in a process of its own, which makes peak memory its own: what is held at
most above weights and optimiser state. Ratios are to segmentation-models-pytorch's U-Net with ResNet-18; above 1 is
slower, or more. With one thread seconds are the processor's, else the wall's: with several threads the machine must be
quiet. On a GPU (--device cuda, taken where there is one) precision is bfloat16.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import network_case
import numpy as np
import torch
from network_case import Job
from numpy.typing import NDArray

from histofold import losses, targets
from histofold.limits import available_memory
from histofold.losses.varce import inside_components
from histofold.losses.weight_map import WeightMap, naive

BOTH = ("forward", "step")
ALONE = (*BOTH, "units forward", "units step")
PEER = "smp Unet resnet18"
Result = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A row of the table; `sized` networks are built for the side of the images."""

    title: str
    name: str
    outputs: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    form: str = "auto"
    works: tuple[str, ...] = BOTH
    sized: bool = False

    def job(self, side: int, device: str, seconds: float) -> Job:
        """The measurement at one size."""
        options = {**self.options, "size": side} if self.sized else self.options
        return Job(self.name, side, self.outputs, options, self.form, self.works, device=device, seconds=seconds)


PLAIN, FAST = "kidney_segnet gated plain", "kidney_segnet gated fast"
CASES = [
    Case(PEER, "smp"),
    Case(PLAIN, "kidney_segnet", options={"decoder": "gated"}, form="plain", works=ALONE, sized=True),
    Case(FAST, "kidney_segnet", options={"decoder": "gated"}, works=ALONE, sized=True),
    Case("kidney_segnet unet fast", "kidney_segnet", sized=True),
    Case("fullnet", "fullnet", 3),
    Case("fullnet checkpoint", "fullnet", 3, {"checkpoint": True}, works=("step",)),
    Case("fullnet pooling", "fullnet", 3, {"pooling": True}),
    Case("unet", "unet"),
    Case("glomerulus_unet", "glomerulus_unet"),
    Case("unetpp accurate", "unetpp"),
    *(
        Case(f"unetpp fast L{depth}", "unetpp", 1, {"mode": "fast", "depth": depth}, works=("forward",))
        for depth in (1, 2, 3, 4)
    ),
]


def run(job: Job) -> Result:
    """Measure in a process of its own; a process that fails is an entry that says so."""
    command = [sys.executable, network_case.__file__, json.dumps(job.__dict__)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        return {"failed": lines[-1][:90]}
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def too_large(job: Job, smaller: Result | None, smaller_side: int) -> str | None:
    """What to say of a training step that would not fit the memory, judged by the smaller image."""
    if job.device != "cpu" or smaller is None or "step" not in smaller or "step" not in job.works:
        return None
    needs = 1.1 * smaller["step"]["bytes"] * (job.side / smaller_side) ** 2
    return None if needs < available_memory() else f"about {needs / 2**30:.0f} GiB"


def table(cases: list[Case], sides: tuple[int, int], device: str, seconds: float) -> dict[tuple[str, int], Result]:
    """Measure and print all networks at all sizes."""
    print(
        f"{'network':26}{'side':>5}{'parameters':>12}{'GMAC':>9}{'forward s':>11}{'ratio':>7}{'MiB':>7}{'ratio':>7}"
        f"{'step s':>9}{'ratio':>7}{'MiB':>8}{'ratio':>7}"
    )
    found: dict[tuple[str, int], Result] = {}
    for place, side in enumerate(sides):
        for case in cases:
            job = case.job(side, device, seconds)
            note = too_large(job, found.get((case.title, sides[0])), sides[0]) if place else None
            result = run(replace(job, works=("forward",)) if note else job)
            found[case.title, side] = result
            print(row(case.title, side, result, found.get((PEER, side), {}), note), flush=True)
    return found


def row(title: str, side: int, result: Result, peer: Result, note: str | None) -> str:
    """One line of the table."""
    if "failed" in result:
        return f"{title:26}{side:5}  {result['failed']}"
    line = f"{title:26}{side:5}{result['parameters']:12,}{result['gmac']:9.3f}"
    for name, widths in (("forward", (11, 7)), ("step", (9, 8))):
        if name not in result:
            line += f"{(note if name == 'step' and note else '-'):>{sum(widths) + 14}}"
            continue
        mine, theirs = result[name], peer.get(name)
        ratios = [f"{mine[key] / theirs[key]:7.2f}" if theirs else f"{'':7}" for key in ("seconds", "bytes")]
        line += f"{mine['seconds']:{widths[0]}.3f}{ratios[0]}{mine['bytes'] / 2**20:{widths[1]}.0f}{ratios[1]}"
    return line


def verdict(what: str, value: float, least: float, unit: str = "×") -> bool:
    """Print a line against its target, and say whether it is reached."""
    word = "reached" if value >= least else "NOT reached"
    print(f"{what:64}{value:8.2f} {unit}   wanted {least:g}: {word}")
    return value >= least


def dice_lines(found: dict[tuple[str, int], Result], side: int, device: str) -> list[bool]:
    """The fast DiCE unit against the plain one, the U-Net and the memory's bandwidth."""
    plain, fast, peer = (found.get((title, side), {}) for title in (PLAIN, FAST, PEER))
    if not all("step" in result for result in (plain, fast, peer)):
        return []
    gpu = device != "cpu"
    print(f"\nthe DiCE unit at {side} pixels, plain against fast")
    wanted = {"forward": 4.0 if gpu else 8.0, "step": 2.5 if gpu else 5.0}
    lines = [verdict(f"{work}, times as fast", plain[work]["seconds"] / fast[work]["seconds"], wanted[work])
             for work in BOTH]  # fmt: skip
    for work in BOTH:
        units = f"units {work}"
        times = plain[units]["seconds"] / fast[units]["seconds"]
        print(f"{f'{work} of the units alone, times as fast':64}{times:8.2f} ×")
    for work in BOTH:
        lines.append(verdict(f"{work}, times less memory", plain[work]["bytes"] / max(fast[work]["bytes"], 1), 2))
    lines.append(verdict(f"forward, speed of {PEER}", peer["forward"]["seconds"] / fast["forward"]["seconds"], 1))
    bandwidth = network_case.copy_bandwidth(device)
    for title, result in ((PLAIN, plain), (FAST, fast)):
        share = result["traffic"] / result["forward"]["seconds"] / bandwidth
        print(
            f"{title}: {share:.1%} of the {bandwidth / 1e9:.1f} GB/s of a copy, counted in what a fused form must move"
        )
    return lines


def best_of(work: Callable[[], Any], runs: int) -> float:
    """Least processor seconds of some runs, after one that is not counted."""
    work()
    best = float("inf")
    for _ in range(runs):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def nuclei(side: int, count: int) -> NDArray[np.int32]:
    """Discs of 8 to 14 pixels' radius, some touching."""
    random, labels = np.random.default_rng(0), np.zeros((side, side), np.int32)
    for label in range(1, count + 1):
        x, y, radius = (int(value) for value in random.integers((0, 0, 8), (side, side, 15)))
        cv2.circle(labels, (x, y), radius, label, -1)
    return labels


def weight_map_lines(small: bool) -> None:
    """The weight map of a 1000 × 1000 image against one distance transform for each instance."""
    side = 250 if small else 1000
    labels = nuclei(side, side * side // 1200)
    few = np.where(labels <= 20, labels, 0)
    whole = len(np.unique(labels)) - 1
    print(f"\nthe weight map of {side} × {side} pixels with {whole} nuclei")
    for sigma in (5.0, 20.0):
        weights = WeightMap(sigma)
        mine = best_of(lambda weights=weights: weights(labels), 3)  # type: ignore[misc]
        theirs = best_of(lambda sigma=sigma: naive(few, sigma, 10.0), 1)  # type: ignore[misc]
        theirs *= whole / (len(np.unique(few)) - 1)
        print(f"sigma {sigma:g}: {1e3 * mine:.0f} ms, naive {theirs:.1f} s (from 20 of them): {theirs / mine:.0f} ×")


def varce_lines(small: bool, seconds: float) -> list[bool]:
    """The share of the variance in a training step of FullNet at 208 × 208, batch 8."""
    side, batch = (64, 2) if small else (208, 8)
    target = targets.build("ternary", form="fullnet")
    labels = [nuclei(side, side * side // 900) for _ in range(batch)]
    truth = torch.from_numpy(np.stack([target.encode(label) for label in labels]))
    start = time.process_time()
    instances = torch.from_numpy(np.stack([inside_components(part.numpy()) for part in truth]))
    labelling = (time.process_time() - start) / batch
    given = {"truth": truth, "instances": instances, "weight": torch.ones(batch, 1, side, side)}
    raw = torch.randn(batch, 3, side, side, requires_grad=True)
    spent = {}
    for name in ("bce", "varce"):
        loss = losses.build({name: 1.0}, target)
        spent[name] = best_of(lambda loss=loss: loss(raw, given).backward(), 10)  # type: ignore[misc]
    more = spent["varce"] - spent["bce"]
    print(
        f"\nvarCE at {side} × {side}, batch {batch}: {1e3 * more:.1f} ms of processor time above cross entropy alone,"
    )
    print(f"and {1e3 * labelling:.2f} ms a crop in the loader")
    lines = []
    for title, options in (("fullnet", {}), ("fullnet pooling", {"pooling": True})):
        step = run(Job("fullnet", side, 3, options, works=("step",), seconds=seconds))["step"]["seconds"]
        step *= batch * torch.get_num_threads()  # one image was measured; all threads' time, as above
        lines.append(verdict(f"varCE: times that 3 % of a step of {title} would hold it", 0.03 * step / more, 1))
        print(f"{'':4}its share is {more / step:.2%}")
    return lines[:1]


def main() -> int:
    """Print everything; 1 when a line misses its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="64 and 128 pixels")
    parser.add_argument("--only", metavar="NAME", help="networks whose title holds NAME")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    given = parser.parse_args()
    sides = (64, 128) if given.small else (256, 512)
    seconds = 0.5 if given.small else 3.0
    cases = [case for case in CASES if not given.only or given.only in case.title or case.title == PEER]
    what = torch.cuda.get_device_name() if given.device == "cuda" else f"{torch.get_num_threads()} thread(s)"
    print(f"torch {torch.__version__}, {given.device}: {what}, batch 1")
    found = table(cases, sides, given.device, seconds)
    reached = dice_lines(found, sides[1], given.device)
    if not given.only:
        weight_map_lines(given.small)
        reached += varce_lines(given.small, seconds)
    if given.small:
        print("\nthe targets are meant for 512 pixels and a crop of 208; at this size they decide nothing")
        reached = []
    return int(not all(reached) or any("failed" in result for result in found.values()))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main())
