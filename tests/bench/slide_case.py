"""What the benchmarks of slides share: drawn slides, networks, and one prediction in three ways."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
import torch
from numpy.typing import NDArray

from histofold import models, slides
from histofold.inference import blending, tta
from histofold.inference.batches import tile_batches
from histofold.inference.member import Member
from histofold.inference.predict import predict_sample
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
    with rasterio.open(path, "w", driver="GTiff", BIGTIFF="IF_SAFER", num_threads="all_cpus", **options) as file:
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
    """Members (U-Net/ResNet-18) with weights of their own."""
    members = []
    for seed in range(count):
        torch.manual_seed(seed)
        network = models.build("smp", 1, arch="Unet", encoder="resnet18").eval().requires_grad_(False)
        members.append(Member(network, Foreground(), Preprocess()).to(device, memory_format=torch.channels_last))
    return members


def free_member() -> Member:
    """A member whose forward pass costs nothing."""
    return Member(PixelNet(), Foreground(), Preprocess())


def settings_for(device: str, views: str = "none") -> Settings:
    """A step of ¾ with Hann's window, eight inputs a pass, background included."""
    return Settings(tile=TILE, step=0.75, batch=8, tta=views, device=device, skip_background=False)


# ------------------------------------------------------------------------------------------------------- prediction


@dataclass(frozen=True)
class Anatomy:
    """Seconds of a prediction on the CPU: before the first pass, between passes, within them, after the last one."""

    before: float
    between: float
    within: float
    after: float

    def told(self, bare: float) -> str:
        """In words, the passes as a share of the bare ones."""
        return (
            f"before the first pass {self.before:.3f} s, between passes {self.between:.3f} s, after the last "
            f"{self.after:.3f} s, the passes themselves {self.within / bare:.3f} × bare"
        )


@dataclass(frozen=True)
class Case:
    """A slide, members that share their preprocessing, and settings; `scale` is the reduction that it is read at."""

    path: Path
    members: list[Member]
    settings: Settings
    scale: float = 1.0

    @property
    def bands(self) -> Path:
        """The file that `ours` writes."""
        return self.path.with_suffix(".bands.tif")

    def ours(self) -> None:
        """Read, tile, predict, blend, write."""
        with closing(SlideSource(slides.open(self.path), self.scale)) as source:
            predict_sample(source, self.members, None, self.settings, self.bands)

    def batches(self) -> list[torch.Tensor]:
        """What each network is given, from memory."""
        device, views = self.settings.torch_device(), tta.views(self.settings.tta)
        preprocess = self.members[0].preprocess
        with closing(SlideSource(slides.open(self.path), self.scale)) as source:
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

    def anatomy(self) -> Anatomy:
        """One prediction taken apart by the clock: what lies before, between, within and after the forward passes."""
        marks: list[float] = []

        def mark(*_: object) -> None:
            marks.append(time.perf_counter())

        hooks = [
            hook
            for member in self.members
            for hook in (member.network.register_forward_pre_hook(mark), member.network.register_forward_hook(mark))
        ]
        start = time.perf_counter()
        self.ours()
        end = time.perf_counter()
        for hook in hooks:
            hook.remove()
        within = sum(marks[1::2]) - sum(marks[::2])
        return Anatomy(marks[0] - start, marks[-1] - marks[0] - within, within, end - marks[-1])

    def monai(self) -> NDArray[np.uint8]:
        """MONAI on the same slide, tiles, window, members and views: codes (H, W).

        The slide is read at once, as it needs it. Of its own windows none is Hann's; it takes ours as a map.
        """
        from monai.inferers import sliding_window_inference

        device = self.settings.torch_device()
        views = tta.views(self.settings.tta)
        weights = torch.from_numpy(blending.window(self.settings.window, TILE)).float().to(device)

        def mean(batch: torch.Tensor) -> torch.Tensor:
            stacked = tta.stack(batch, views)
            return sum(tta.mean(member.from_normalised, stacked) for member in self.members) / len(self.members)

        with closing(slides.open(self.path)) as slide, torch.inference_mode(), self.settings.autocast(device):
            pixels = torch.from_numpy(slide.window(0, 0, slide.height, slide.width, self.scale))
            images = self.members[0].preprocess.normalise(pixels.permute(2, 0, 1)[None].to(device))
            maps = sliding_window_inference(
                images.contiguous(memory_format=torch.channels_last), (TILE, TILE),
                max(1, self.settings.batch // len(views)), mean,
                overlap=1 - self.settings.step, roi_weight_map=weights[:, None] * weights,
            )  # fmt: skip
        return (maps * 255).round().to(torch.uint8)[0, 0].cpu().numpy()
