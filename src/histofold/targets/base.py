"""What a target is: labels become a training tensor, raw outputs become named bands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from histofold.errors import DataError

Labels = NDArray[np.int32]
"""(H, W), 0 background, 1..n instances."""


@dataclass(frozen=True)
class Band:
    """One named map that a target gives, and the range of its values (what uint8 0..255 stands for on disk)."""

    name: str
    low: float = 0.0
    high: float = 1.0

    @property
    def relative(self) -> Band:
        """The band as decoders read it: one that goes beyond 1 is divided by its highest value, others stay.

        So a decoder's settings mean the same whatever units a target chose for what its network learns.
        """
        top = max(self.high, 1.0)
        return Band(self.name, self.low / top, self.high / top)


def in_common(bands: Sequence[Sequence[Band]]) -> tuple[Band, ...]:
    """Bands that all members give, in the order of the first; with another range, a band of one name is another band.

    A distance of 0..255 is stretched to its image and one of 0..1 to its instance, so that their mean says nothing.

    Args:
        bands: of each member.
    """
    return tuple(band for band in bands[0] if all(band in other for other in bands[1:]))


def unlike(bands: Sequence[Sequence[Band]]) -> tuple[str, ...]:
    """What each band is left out for that members give by one name and with different ranges, in words."""
    ranges = [{band.name: f"{band.low:g}..{band.high:g}" for band in member} for member in bands]
    shared = {band.name for band in in_common(bands)}
    names = [name for name in ranges[0] if name not in shared and all(name in member for member in ranges)]
    return tuple(
        f"band {name} left out: members give it the ranges {' and '.join(dict.fromkeys(one[name] for one in ranges))}; "
        "runs with equal target options share it"
        for name in names
    )


class Target(ABC):
    """Owns the way from labels to what a network learns and from its raw output to bands.

    Attributes:
        name: in the registry and in `target=`.
        channels: outputs of the network.
        bands: what `to_bands` gives, in order; the first is always `foreground`.
        activation: of the raw output: sigmoid, softmax, softplus, relu or linear.
        soft: sigmoid channels whose truth may lie between 0 and 1, never all of them. Losses that compare regions leave
            them out, as their least is elsewhere.
        default_loss: loss terms and their weights where the user names none.
    """

    name: ClassVar[str]
    channels: int
    bands: tuple[Band, ...]
    activation: str
    soft: ClassVar[tuple[int, ...]] = ()
    default_loss: dict[str, float]

    @abstractmethod
    def encode(self, labels: NDArray[Any]) -> NDArray[np.float32] | NDArray[np.int64]:
        """Turn labels (H, W) into float32 (C, H, W), or into int64 classes (H, W) for softmax targets."""

    def encode_crop(self, labels: NDArray[Any], mirrored: NDArray[Any]) -> NDArray[np.float32] | NDArray[np.int64]:
        """As `encode`, for a crop that may reach beyond its image; only what it says of the image's own pixels counts.

        Here the mirrored labels go on where the image ends, so that its edge outlines nothing. A target that measures
        whole instances has to leave them out of it: how much is seen of them depends on the crop.

        Args:
            labels: (H, W) of the image, 0 beyond its edge.
            mirrored: (H, W) the mirrored labels beyond the edge, numbered as what they mirror; 0 within the image.
        """
        return self.encode(labels + mirrored)

    @abstractmethod
    def to_bands(self, raw: torch.Tensor) -> torch.Tensor:
        """Turn raw output (B, C, H, W) into bands (B, K, H, W), each within its `low` and `high`."""


def as_labels(labels: NDArray[Any]) -> Labels:
    """Check labels and give them as contiguous int32 (H, W), with numbers no larger than the image has pixels.

    Raises:
        DataError: not two-dimensional, no integers, or negative.
    """
    array = np.asarray(labels)
    if array.ndim != 2:
        raise DataError(f"labels: expected an image (height, width), found shape {array.shape}")
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"labels: expected integers, found {array.dtype}")
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise DataError(f"labels: expected 0 or more, found {array.min()}")
    if array.dtype.itemsize > 1 and array.size and array.max() > array.size:
        array = compact(array)
    return np.ascontiguousarray(array, dtype=np.int32)


def compact(labels: NDArray[Any]) -> Labels:
    """Number the labels 1..n in their order, 0 stays background; tables indexed by label then stay small."""
    values, inverse = np.unique(labels, return_inverse=True)
    return (inverse.reshape(labels.shape) + int(values[0] != 0)).astype(np.int32)
