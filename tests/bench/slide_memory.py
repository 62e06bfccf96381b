"""Memory of predictions above that after loading the model and one batch, a process each.

The networks' activations live beside rows, canvas and what is read ahead, so slides are streamed through the network
itself. A network that costs nothing is quick enough for long slides, and shows whether streaming alone grows with them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import memory_case
import torch
from slide_case import TILE, Case, draw_slide, free_member, make_members, settings_for
from verdicts import Row

from histofold.inference import planning
from histofold.inference.member import Member

NETWORKS = {"smp": "U-Net/ResNet-18", "free": "free network"}
LIMIT, WIDTH = 1200.0, 40_000
"""MB that are allowed for a real network, at this width in pixels."""
GROWTH = 1.05
"""What is allowed from a slide to one four times as high."""
MB = 1e6


@dataclass(frozen=True)
class Peak:
    """Bytes of resident memory: with the model loaded and one batch done, and the most while a slide is predicted."""

    before: int
    peak: int

    @property
    def more(self) -> int:
        """What the prediction needs beside model and batch."""
        return self.peak - self.before


def member(network: str, device: str) -> Member:
    """The member that a name of `NETWORKS` stands for."""
    place = settings_for(device).torch_device()
    return make_members(1, place)[0] if network == "smp" else free_member().to(place)


def measure(path: Path, network: Member, device: str) -> Peak:
    """Peak of this process while it predicts a slide."""
    settings = settings_for(device)
    case = Case(path, [network], settings)
    batch = torch.rand(settings.batch, 3, TILE, TILE, device=settings.torch_device())
    case.bare([batch.contiguous(memory_format=torch.channels_last)])
    del batch
    before = planning.resident()
    planning.forget_peak()  # loading's own is none of the prediction's
    case.ours()
    return Peak(before, planning.resident_peak())


def apart(path: Path, network: str, device: str) -> Peak:
    """`measure` in a process of its own.

    Raises:
        SystemExit: it failed; what it said stands above.
    """
    command = [sys.executable, memory_case.__file__, str(path), network, device]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}; see above")
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def rows(
    folder: Path, device: str, layouts: Sequence[str], width: int, heights: dict[str, tuple[int, ...]]
) -> Iterator[Row]:
    """Rows of the table: for each layout and network the memory at each height and, from the first to the last, growth.

    The limit is for slides of `WIDTH` pixels and the real network; other heights and widths are stated.
    """
    for layout in layouts:
        for network, sizes in heights.items():
            peaks: dict[int, Peak] = {}
            for height in sizes:
                peaks[height] = apart(draw_slide(folder / "memory.tif", height, width, layout), network, device)
                what = f"{NETWORKS[network]}, {layout}, {width:,} px wide"
                yield peak_row(f"{what}, {height:,} rows", network, (height, width), peaks[height])
            if len(peaks) > 1:
                yield growth_row(what, peaks)


def peak_row(what: str, network: str, size: tuple[int, int], found: Peak) -> Row:
    """Memory of one prediction, beside what the peer would hold and what streaming must, both by arithmetic."""
    height, width = size
    return Row(
        f"memory, {what}",
        "MB",
        found.more / MB,
        "the slide as uint8 and float32, map and counts held whole (arithmetic)",
        height * width * (3 + 12 + 4 + 4) / MB,
        "pixels and canvas of one row of tiles (arithmetic)",
        TILE * width * (3 + 4) / MB,
        LIMIT if network == "smp" and width == WIDTH else None,
        absolute=True,
        note=f"peak {found.peak / MB:.0f} MB with libraries and model",
    )


def growth_row(what: str, peaks: dict[int, Peak]) -> Row:
    """Growth of the same quantity from the lowest to the highest slide."""
    low, high = min(peaks), max(peaks)
    return Row(
        f"growth of memory, {what}, {low:,} to {high:,} rows",
        "×",
        peaks[high].more / peaks[low].more,
        "all held whole (arithmetic)",
        high / low,
        "none",
        1.0,
        GROWTH,
        absolute=True,
        note=f"of the peak with libraries and model {peaks[high].peak / peaks[low].peak:.3f} ×",
    )
