"""Settings of the predictor, with what each of them costs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import lcm

import torch

from histofold.errors import ConfigError
from histofold.hardware import cpu_has_bf16, gpu_has_bf16
from histofold.inference import blending, tta
from histofold.inference.member import Member

PRECISIONS = {"auto": None, "32-true": None, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


@dataclass(frozen=True)
class Settings:
    """How samples are predicted.

    Attributes:
        tile: side in pixels at the members' scale; 0 takes the size that they learned at, rounded up to what fits.
        step: from tile to tile as a share of the tile; forward passes grow by 1 / step²: 1 costs 1 ×, ¾ costs 1.78 ×,
            ½ costs 4 ×.
        margin: pixels cut from every inner side of a tile; it limits the step to tile - 2 margin: 32 on 1024 costs
            1.14 ×, 64 on 256 costs 4 ×.
        window: weights of overlapping tiles: hann, triangle or flat; costs nothing.
        tta: none (1 view), flips (4) or dihedral (8); each view costs a forward pass.
        batch: inputs of a network in one forward pass at most, views counted; bounds its memory.
        device: auto, cpu, cuda or cuda:N.
        precision: auto (bf16 where the processor has it, else fp16 on CUDA and float32 on the CPU), 32-true,
            16-mixed or bf16-mixed.
        spread: also give the band `spread`, the standard deviation of the foreground over all views and members; it
            costs next to no time and a band of disk.
        size: diameter in pixels that the instances of an image are magnified to (by up to 4, never reduced); 0 leaves
            images as they are. It costs the square of the magnification, and a quick look or two with one view.
        skip_background: leave out tiles of a slide that hold no tissue; they are predicted 0. Images are never skipped.
    """

    tile: int = 0
    step: float = 0.75
    margin: int = 0
    window: str = "hann"
    tta: str = "none"
    batch: int = 8
    device: str = "auto"
    precision: str = "auto"
    skip_background: bool = True
    spread: bool = False
    size: float = 0.0

    def __post_init__(self) -> None:
        for name, value, fits, expected in (
            ("tile", self.tile, self.tile >= 0, "0 or a positive number of pixels"),
            ("step", self.step, 0 < self.step <= 1, "a share of the tile above 0 and up to 1"),
            ("margin", self.margin, self.margin >= 0, "0 or a positive number of pixels"),
            ("window", self.window, self.window in blending.WINDOWS, f"one of {', '.join(blending.WINDOWS)}"),
            ("tta", self.tta, self.tta in tta.VIEWS, f"one of {', '.join(tta.VIEWS)}"),
            ("batch", self.batch, self.batch >= 1, "1 or more"),
            ("size", self.size, self.size >= 0, "0 or a diameter in pixels"),
            ("precision", self.precision, self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
        ):
            if not fits:
                raise ConfigError(f"predict.{name}={value!r}: expected {expected}")

    def tile_for(self, members: Sequence[Member]) -> int:
        """Side of a tile for these members.

        Raises:
            ConfigError: no size is known, it does not fit the networks, or the margin leaves nothing of it.
        """
        tile = self.tile or max((member.spec.tile for member in members if member.spec is not None), default=0)
        if tile == 0:
            raise ConfigError("predict.tile=0: these networks do not say what size they learned at; give a size")
        divisor = divisor_of(members)
        if self.tile == 0:
            # Networks learn at sizes that tiles may not have, as their layers round down; the next one is as good.
            tile = -(-tile // divisor) * divisor
        if tile % divisor:
            raise ConfigError(
                f"predict.tile={tile}: these networks need a multiple of {divisor}; try {-(-tile // divisor) * divisor}"
            )
        smallest = max((member.smallest for member in members), default=1)
        if 0 < self.tile < smallest:
            # They would fill it up by reflection, as they do small images: at the seams of large ones that is wrong.
            raise ConfigError(
                f"predict.tile={tile}: these networks need {smallest} pixels or more; "
                f"try {-(-smallest // divisor) * divisor}"
            )
        if tile <= 2 * self.margin:
            raise ConfigError(
                f"predict.margin={self.margin}: nothing is left of a tile of {tile} pixels; take less than {tile // 2}"
            )
        return tile

    def step_for(self, tile: int) -> int:
        """Pixels from tile to tile: what `step` asks for, or less where the margins need it."""
        return max(1, min(round(self.step * tile), tile - 2 * self.margin))

    def cost(self, members: Sequence[Member]) -> float:
        """Forward passes over each pixel of a large image: overlap × views × members."""
        tile = self.tile_for(members)
        return blending.cost(tile, self.step_for(tile), self.margin) * len(tta.views(self.tta)) * len(members)

    def torch_device(self) -> torch.device:
        """The device to compute on; `auto` falls back to the CPU.

        Raises:
            ConfigError: it is not there.
        """
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
        except RuntimeError as error:
            raise ConfigError(f"predict.device={self.device!r}: expected auto, cpu, cuda or cuda:N") from error
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ConfigError(
                f"predict.device={self.device}: this machine has {torch.cuda.device_count()} CUDA devices; use auto"
            )
        return device

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """The context in which networks compute at the chosen precision."""
        dtype = PRECISIONS[self.precision]
        if self.precision == "auto" and device.type == "cuda":
            dtype = torch.bfloat16 if gpu_has_bf16() else torch.float16
        elif self.precision == "auto" and cpu_has_bf16():
            dtype = torch.bfloat16
        return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def divisor_of(members: Sequence[Member]) -> int:
    """What the sides of a tile must be a multiple of, so that all members take it."""
    return lcm(*(member.divisor for member in members))
