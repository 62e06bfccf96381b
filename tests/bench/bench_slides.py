"""Prediction of slides beside the bare forward passes and MONAI: time, memory, and what everything else costs.

    python tests/bench/bench_slides.py            # a few minutes on two cores
    python tests/bench/bench_slides.py --large    # memory at 40,000 px width, overhead on 20,000 × 20,000 px
    python tests/bench/bench_slides.py --only predict memory overhead

*Bare forward* is the same batches of the same network from memory, nothing else: segmentation-models' U-Net with a
ResNet-18 encoder at 256 px. Slides are drawn here: PAS-like tissue as LZW strips, deflate tiles and JPEG tiles.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
import torch
from numpy.typing import NDArray

from histofold import models, rle, slides
from histofold.inference import tta
from histofold.inference.bandfile import BandFile
from histofold.inference.batches import tile_batches
from histofold.inference.member import Member
from histofold.inference.predict import predict_sample
from histofold.inference.readahead import ahead
from histofold.inference.settings import Settings
from histofold.inference.sources import SlideSource
from histofold.inference.stream import axes
from histofold.preprocess import Preprocess
from histofold.targets.foreground import Foreground

TILE = 256
LAYOUTS: dict[str, dict[str, Any]] = {
    "LZW strips": {"compress": "lzw", "tiled": False, "blockysize": 16},
    "deflate tiles": {"compress": "deflate", "zlevel": 6, "tiled": True, "blockxsize": 512, "blockysize": 512},
    "JPEG tiles": {
        "compress": "jpeg", "photometric": "ycbcr", "tiled": True, "blockxsize": 512, "blockysize": 512,
        "interleave": "pixel",
    },
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- slides


def texture(side: int, seed: int = 0) -> NDArray[np.uint8]:
    """Something like PAS-stained tissue: pink, with structure at several sizes and the grain of a camera."""
    rng = np.random.default_rng(seed)
    field = np.zeros((side, side, 3), np.float32)
    for cells, strength in ((8, 30.0), (64, 25.0), (256, 12.0)):
        noise = rng.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        field += cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
    field += np.array([190, 120, 170], np.float32) + rng.normal(0, 3, field.shape).astype(np.float32)
    return np.clip(field, 0, 255).astype(np.uint8)


def draw_slide(path: Path, height: int, width: int, layout: str) -> Path:
    """Draw a slide row by row, full of tissue, so that nothing is skipped."""
    side = 2048
    block = texture(side)
    wide = np.tile(block, (1, -(-width // side), 1))[:, :width].transpose(2, 0, 1)
    options = {"height": height, "width": width, "count": 3, "dtype": "uint8", **LAYOUTS[layout]}
    # A transform of its own keeps rasterio from remarking that there is none.
    options["transform"] = rasterio.transform.Affine(1, 0, 0, 0, -1, height)
    with rasterio.open(path, "w", driver="GTiff", BIGTIFF="IF_SAFER", **options) as file:
        for top in range(0, height, side):
            rows = min(side, height - top)
            file.write(wide[:, :rows], window=rasterio.windows.Window(0, top, width, rows))
    return path


# --------------------------------------------------------------------------------------------------------- networks


class PixelNet(torch.nn.Module):
    """The cheapest network there is, for what is left when the forward pass costs nothing."""

    divisor = 32

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The green channel."""
        return x[:, 1:2]


def make_members(count: int, device: torch.device) -> list[Member]:
    """Members with weights of their own."""
    members = []
    for seed in range(count):
        torch.manual_seed(seed)
        network = models.build("smp", 1, arch="Unet", encoder="resnet18").eval().requires_grad_(False)
        members.append(Member(network, Foreground(), Preprocess()).to(device, memory_format=torch.channels_last))
    return members


def settings_for(device: str, views: str = "none") -> Settings:
    """A step of ¾ with Hann's window, eight inputs a pass, background included."""
    return Settings(tile=TILE, step=0.75, batch=8, tta=views, device=device, skip_background=False)


@dataclass(frozen=True)
class Case:
    """One row: a slide, members and settings."""

    name: str
    path: Path
    members: list[Member]
    settings: Settings
    target: float

    def ours(self) -> None:
        """Read, tile, predict, blend, write."""
        with closing(SlideSource(slides.open(self.path))) as source:
            predict_sample(source, self.members, None, self.settings, self.path.with_suffix(".bands.tif"))

    def batches(self) -> list[torch.Tensor]:
        """What each network is given, from memory."""
        device, views = self.settings.torch_device(), tta.views(self.settings.tta)
        preprocess = self.members[0].preprocess
        with closing(SlideSource(slides.open(self.path))) as source:
            rows, columns = axes(source, self.members, self.settings)
            size = max(1, self.settings.batch // len(views))
            tiles = list(tile_batches(source, rows, columns, [preprocess.pixels], size, skip_background=False))
        stacks = [tta.stack(preprocess.normalise(tile.pixels[0].to(device)), views) for tile in tiles]
        return [batch for stack in stacks for _, batch in stack.groups]

    def bare(self, batches: Sequence[torch.Tensor]) -> None:
        """The forward passes and nothing else."""
        with torch.inference_mode(), self.settings.autocast(self.settings.torch_device()):
            for batch in batches:
                for member in self.members:
                    member.network(batch)
        if self.settings.torch_device().type == "cuda":
            torch.cuda.synchronize()

    def monai(self) -> None:
        """MONAI on the same slide, overlap and kind of window; the slide is read at once, as it needs it."""
        from monai.inferers import sliding_window_inference

        member, device = self.members[0], self.settings.torch_device()
        with closing(slides.open(self.path)) as slide, torch.inference_mode():
            pixels = torch.from_numpy(slide.window(0, 0, slide.height, slide.width)).permute(2, 0, 1)[None]
            batch = member.preprocess.normalise(pixels.to(device)).contiguous(memory_format=torch.channels_last)
            with self.settings.autocast(device):
                maps = sliding_window_inference(
                    batch, (TILE, TILE), self.settings.batch, member.from_normalised, overlap=0.25, mode="gaussian"
                )
            (maps * 255).round().to(torch.uint8).cpu()


def timed(functions: Sequence[Callable[[], None]], repeats: int) -> list[tuple[float, float]]:
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


def bench_predict(folder: Path, device: str, side: int, repeats: int) -> list[dict[str, Any]]:
    """Time of prediction against the bare forward passes."""
    members = make_members(5, settings_for(device).torch_device())
    cases = [
        Case(f"1 member, {layout}", draw_slide(folder / f"{index}.tif", side, side, layout), members[:1],
             settings_for(device), 1.08)
        for index, layout in enumerate(LAYOUTS)
    ]  # fmt: skip
    small = draw_slide(folder / "small.tif", side // 2, side // 2, "JPEG tiles")
    cases.append(Case("5 members × 4 views, JPEG tiles", small, members, settings_for(device, "flips"), 1.05))
    results = []
    for case in cases:
        batches = case.batches()
        first = replace(case, members=case.members[:1])
        first.bare(batches[:2])
        functions: list[Callable[[], None]] = [lambda c=case, b=batches: c.bare(b), case.ours]  # type: ignore[misc]
        if len(case.members) == 1:
            case.monai()
            functions.append(case.monai)
        (bare, bare_cpu), (ours, ours_cpu), *others = timed(functions, repeats)
        line = {"what": case.name, "passes": len(batches) * len(case.members), "bare_s": bare, "ours_s": ours}
        line |= {"ours_to_bare": ours / bare, "ours_to_bare_cpu": ours_cpu / bare_cpu, "to_reach": case.target}
        peer = ""
        if others:
            theirs, theirs_cpu = others[0]
            line |= {"monai_s": theirs, "monai_to_ours": theirs / ours, "monai_to_ours_cpu": theirs_cpu / ours_cpu}
            peer = f", MONAI {theirs:.2f} s = {theirs / ours:.2f} × ours (processor {theirs_cpu / ours_cpu:.2f})"
        results.append(line)
        print(
            f"{case.name}: bare {bare:.2f} s, ours {ours:.2f} s = {ours / bare:.3f} × bare, to reach {case.target} "
            f"(processor {ours_cpu / bare_cpu:.3f}){peer}",
            flush=True,
        )
    return results


# ----------------------------------------------------------------------------------------------------------- memory


def resident(key: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (the most so far) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


AS_PREDICT = """
import runpy, sys
from histofold.allocator import one_arena
one_arena()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""The allocator is told before any library starts a thread, as `predict` does."""


def measure_memory(path: Path, device: str) -> None:
    """In a process of its own: peak memory of a prediction less that after loading the model and one batch."""
    member = make_members(1, settings_for(device).torch_device())[0]
    batch = torch.rand(8, 3, TILE, TILE, device=settings_for(device).torch_device())
    with torch.inference_mode():
        member(batch.contiguous(memory_format=torch.channels_last))
    before = resident("VmRSS")
    # The networks' own memory does not depend on the slide and is in `before`; a free one leaves the streaming.
    free = Member(PixelNet(), Foreground(), Preprocess())
    Case("memory", path, [free], settings_for(device), 0).ours()
    print(json.dumps({"before": before, "peak": resident("VmHWM")}))


def bench_memory(folder: Path, device: str, width: int, height: int) -> list[dict[str, Any]]:
    """Peak memory from a slide to one four times as high."""
    results: list[dict[str, Any]] = []
    for layout in LAYOUTS:
        for rows in (height, 4 * height):
            path = draw_slide(folder / "memory.tif", rows, width, layout)
            command = [sys.executable, "-c", AS_PREDICT, __file__, "--measure", str(path), "--device", device]
            found = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=found)
            values = json.loads(done.stdout.splitlines()[-1])
            more = values["peak"] - values["before"]
            results.append({"what": f"memory, {layout}", "width": width, "height": rows, "more_bytes": more, **values})
        growth = results[-1]["peak"] / results[-2]["peak"] - 1
        print(f"memory, {layout}: {width} px wide: {results[-2]['more_bytes'] / 1e6:.0f} MB above model and batch at "
              f"{height} rows, {results[-1]['more_bytes'] / 1e6:.0f} MB at {4 * height} (peak {growth:+.1%})",
              flush=True)  # fmt: skip
        results[-1]["growth"] = growth
    return results


# --------------------------------------------------------------------------------------------------------- overhead


def bench_overhead(folder: Path, device: str, side: int, scale: float) -> list[dict[str, Any]]:
    """From TIFF to RLE text with a network that costs nothing, and which step takes how much of it."""
    results = []
    settings = settings_for(device)
    member = Member(PixelNet(), Foreground(), Preprocess())
    for layout in LAYOUTS:
        path = draw_slide(folder / "overhead.tif", side, side, layout)
        bands = path.with_suffix(".bands.tif")

        def source(path: Path = path) -> SlideSource:
            return SlideSource(slides.open(path), scale)

        def read(source: Callable[[], SlideSource] = source) -> None:
            with closing(source()) as opened:
                for _ in opened.bands(256, []):
                    pass

        def tiles(source: Callable[[], SlideSource] = source) -> None:
            with closing(source()) as opened:
                rows, columns = axes(opened, [member], settings)
                for _ in ahead(tile_batches(opened, rows, columns, [member.preprocess.pixels], 8, False), 3):
                    pass

        def predict(source: Callable[[], SlideSource] = source, bands: Path = bands) -> None:
            with closing(source()) as opened:
                predict_sample(opened, [member], None, settings, bands)

        def encode(bands: Path = bands) -> None:
            with BandFile(bands) as file:
                rows = (file.rows(y, min(y + 256, file.height))[0] for y in range(0, file.height, 256))
                rle.encode_upsampled(rows, scale, side, side, 0.5)

        read_s, tiles_s, predict_s, encode_s = (wall for wall, _ in timed([read, tiles, predict, encode], 1))
        gigapixels = side * side / 1e9
        line = {"what": f"all but the networks, {layout}, scale {scale:g}", "side": side}
        line |= {"read": read_s / gigapixels, "tile": max(0.0, tiles_s - read_s) / gigapixels}
        line |= {"blend and write": max(0.0, predict_s - tiles_s) / gigapixels, "encode": encode_s / gigapixels}
        line["total"] = (predict_s + encode_s) / gigapixels
        results.append(line)
        parts = ", ".join(f"{key} {line[key]:.1f}" for key in ("read", "tile", "blend and write", "encode"))
        print(f"{line['what']}: {line['total']:.1f} s per gigapixel ({parts})", flush=True)
    return results


def main() -> None:
    """Run all or the chosen parts; `--json FILE` keeps the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=["predict", "memory", "overhead"])
    parser.add_argument("--large", action="store_true", help="full sizes; needs 10 GB of disk and some patience")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--side", type=int, help="pixels of the slides of `predict`")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: its own choice")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure_memory(options.measure, options.device)
        return
    if options.threads:
        torch.set_num_threads(options.threads)
    chosen = options.only or ["predict", "memory", "overhead"]
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "predict" in chosen:
            side = options.side or (4096 if options.large else 1664)
            results += bench_predict(folder, options.device, side, options.repeats)
        if "memory" in chosen:
            results += bench_memory(folder, options.device, *((40_000, 5_000) if options.large else (20_000, 1_500)))
        if "overhead" in chosen:
            for scale in (1.0, 4.0):
                results += bench_overhead(folder, options.device, 20_000 if options.large else 6_000, scale)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
