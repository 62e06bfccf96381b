"""What happens to pixels before a network sees them: the same in training, OOF and test, kept in the checkpoint.

Two steps. `pixels` works on uint8 images on the CPU (stain normalisation, contrast stretch, CLAHE); it is
deterministic, so that nothing differs between the image a network learned from and the one it is asked about (trap S1
and S4 of the U-Net++ original). `normalise` works on float batches on the device (mean and standard deviation a
channel).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from histofold import stain
from histofold.options import IMAGENET_MEAN, IMAGENET_STD

ENHANCES = ("stretch", "clahe", "stain_method", "stain_numbers")
"""What `Preprocess.pixels` depends on."""

GAIN = 16.0
"""How much a contrast stretch may amplify at most."""


@dataclass(frozen=True)
class Preprocess:
    """Pixel preprocessing of one checkpoint.

    Attributes:
        mean, std: of each RGB channel on a scale of 0..1.
        stretch: percentile of an image's values that becomes black, and from above white, for all channels together, so
            that a dim fluorescence image looks like a bright one; 0 switches it off. The gain has a limit, else the
            noise of an empty image would look like tissue.
        clahe: clip limit of CLAHE on the L channel of Lab with 8 × 8 tiles (Zuiderveld 1994); 0 switches it off.
        stain_method: stain normalisation, a name of `stain.METHODS`; `none` switches it off.
        stain_numbers: the numbers of the reference image that it brings colours to.
        whole: whether the network learned from images that `pixels` saw as a whole, or (False) from tiles of slides,
            each by itself: it depends on what it sees. None: a checkpoint from before this was kept.
    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    stretch: float = 0.0
    clahe: float = 0.0
    stain_method: str = "none"
    stain_numbers: tuple[float, ...] = ()
    whole: bool | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocess:
        """Rebuild from `to_dict()`, as read from a checkpoint."""
        # Checkpoints from before there was a stain normalisation have none.
        method, numbers = str(values.get("stain_method", "none")), tuple(values.get("stain_numbers", ()))
        mean, std = tuple(values["mean"]), tuple(values["std"])
        # Older ones do not say what they learned from; slides were never stain-normalised.
        whole = values.get("whole", None if method == "none" else True)
        return cls(mean, std, float(values["stretch"]), float(values["clahe"]), method, numbers, whole)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def pixels(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Enhance one RGB image: (H, W, 3) uint8 → the same shape."""
        if self.stain_method != "none":
            image = stain.METHODS[self.stain_method][1](image, self.stain_numbers)
        if self.stretch > 0:
            image = stretched(image, self.stretch)
        if self.clahe <= 0:
            return image
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
        equaliser = cv2.createCLAHE(clipLimit=self.clahe, tileGridSize=(8, 8))
        lab[:, :, 0] = equaliser.apply(np.ascontiguousarray(lab[:, :, 0]))
        return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), dtype=np.uint8)

    @property
    def enhancement(self) -> Preprocess:
        """What `pixels` depends on, and nothing else: members that agree in it share the work."""
        return replace(Preprocess(), **{name: getattr(self, name) for name in ENHANCES})

    @property
    def enhances(self) -> bool:
        """Whether `pixels` changes anything."""
        return self.stretch > 0 or self.clahe > 0 or self.stain_method != "none"

    def normalise(self, batch: torch.Tensor) -> torch.Tensor:
        """Scale a batch (B, 3, H, W), uint8 or float on 0..255, to zero mean and unit spread, as float32."""
        mean = torch.tensor(self.mean, dtype=torch.float32, device=batch.device).view(1, 3, 1, 1) * 255
        std = torch.tensor(self.std, dtype=torch.float32, device=batch.device).view(1, 3, 1, 1) * 255
        values = batch if batch.dtype == torch.uint8 else batch.float()
        # In place: three copies of a batch of tiles cost more than the arithmetic.
        return torch.sub(values, mean).div_(std)


def stretched(image: NDArray[np.uint8], percentile: float) -> NDArray[np.uint8]:
    """Map the percentiles p and 100 - p of an image's values to 0 and 255, linearly, by at most `GAIN`."""
    counts = np.cumsum(np.bincount(image.ravel(), minlength=256))
    low = int(np.searchsorted(counts, counts[-1] * percentile / 100, side="right"))
    high = int(np.searchsorted(counts, counts[-1] * (1 - percentile / 100)))
    gain = min(GAIN, 255 / max(1, high - low))
    table = np.clip((np.arange(256) - low) * gain, 0, 255)
    return np.asarray(np.rint(table).astype(np.uint8)[image])
