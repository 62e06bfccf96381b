"""The options of augmentation and optimiser, and the values that they may take.

They stand apart from what they configure (`tiles.augment`, `training.optim`), so that a wrong value is found before
torch is imported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class AugmentOptions:
    """What may happen to a training crop; every probability is 0..1.

    Attributes:
        flip: probability of each of the two mirrorings.
        flip_y: probability of the one that turns a crop upside down, where it is another; None is that of `flip`.
        quarter: rotate by a random multiple of 90 degrees.
        rotate: largest rotation in degrees, on top of the quarter turns.
        scale: factor range of the magnification, drawn log-uniformly.
        shear: largest shear in degrees.
        noise: probability of zero-mean Gaussian noise, with standard deviation `noise_std` (share of 255).
        brightness, contrast: largest relative changes, drawn with probability `light`.
        gamma: range of the exponent × 100, drawn with probability `light` instead of brightness and contrast.
        hue, saturation, value: largest shifts (degrees of OpenCV's hue, grey levels), with probability `colour`.
        stain: probability of changing the amounts of haematoxylin and eosin in the tissue: factors of `stain_scale`
            and offsets of `stain_shift` on the two stains' optical densities.
        blur: probability of a slight Gaussian blur.
        invert: probability of inverting intensities (bright field ↔ fluorescence).
        shuffle: probability of permuting the channels.
        grey: probability of dropping colour.
        stretch: percentile of the contrast stretch as preprocessing (it becomes part of the checkpoint); 0 is off.
        clahe: clip limit of CLAHE as preprocessing (it becomes part of the checkpoint); 0 is off.
        normalise: stain normalisation as preprocessing: `none`, `reinhard` or `macenko`, to the sample `reference`
            (its numbers become part of the checkpoint).
        mean, std: of each RGB channel on a scale of 0..1, taken away and divided by as preprocessing (they become part
            of the checkpoint); zeros and ones leave pixels at 0..1.
        copy_paste: probability of pasting some instances of another image into the crop.
        mosaic: probability that a crop is put together from four images.
    """

    flip: float = 0.5
    flip_y: float | None = None
    quarter: bool = True
    rotate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    noise: float = 0.0
    noise_std: tuple[float, float] = (0.012, 0.028)
    light: float = 0.0
    brightness: float = 0.2
    contrast: float = 0.2
    gamma: tuple[float, float] = (80.0, 120.0)
    colour: float = 0.0
    hue: int = 20
    saturation: int = 30
    value: int = 20
    stain: float = 0.0
    stain_scale: tuple[float, float] = (0.6, 1.6)
    stain_shift: tuple[float, float] = (-0.05, 0.05)
    blur: float = 0.0
    invert: float = 0.0
    shuffle: float = 0.0
    grey: float = 0.0
    stretch: float = 0.0
    clahe: float = 0.0
    normalise: str = "none"
    reference: str | int | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    copy_paste: float = 0.0
    mosaic: float = 0.0


@dataclass(frozen=True)
class OptimizerOptions:
    """Optimiser and schedule.

    Attributes:
        name: any optimiser of timm (adamw, adam, sgd, lamb, …).
        lr: peak learning rate.
        weight_decay: not applied to biases and normalisation layers unless `decay_all`.
        schedule: `cosine` (to `final` × lr), `step` (× `factor` every `every` epochs) or `constant`.
        times: how often `step` takes place at most; 0 sets no limit.
        warmup: share of all steps during which the rate rises linearly from nearly zero.
        options: further arguments of the optimiser, such as betas or amsgrad.
    """

    name: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-4
    decay_all: bool = False
    schedule: str = "cosine"
    warmup: float = 0.05
    final: float = 0.01
    every: int = 25
    factor: float = 0.1
    times: int = 0
    options: dict[str, Any] = field(default_factory=dict)


INFINITE = float("inf")

RANGES: dict[str, tuple[float, float]] = {
    **{
        f"augment.{name}": (0, 1)
        for name in (
            "flip", "flip_y", "noise", "noise_std", "light", "brightness", "contrast", "colour", "stain", "blur",
            "invert", "shuffle", "grey", "mean", "copy_paste", "mosaic",
        )
    },
    "augment.rotate": (0, 180),
    "augment.scale": (0.01, 100),
    "augment.shear": (0, 80),
    "augment.gamma": (1, 1000),
    "augment.hue": (0, 180),
    "augment.saturation": (0, 255),
    "augment.value": (0, 255),
    "augment.stain_scale": (0, 10),
    "augment.stain_shift": (-2, 2),
    "augment.stretch": (0, 49),
    "augment.clahe": (0, INFINITE),
    "augment.std": (0.001, 1),
    "optimizer.lr": (0, INFINITE),
    "optimizer.weight_decay": (0, INFINITE),
    "optimizer.warmup": (0, 1),
    "optimizer.final": (0, 1),
    "optimizer.every": (1, INFINITE),
    "optimizer.factor": (0, 1),
    "optimizer.times": (0, INFINITE),
}  # fmt: skip
"""Options that are numbers, or the two ends of a range of numbers, and the smallest and largest that make sense."""

CHOICES: dict[str, tuple[str, ...]] = {
    "augment.normalise": ("none", "reinhard", "macenko"),
    "optimizer.schedule": ("cosine", "step", "constant"),
}
"""Options that are words, and the words that they know."""
