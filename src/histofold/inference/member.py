"""A member of an ensemble: one trained network with its own weights, preprocessing and target."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from histofold import models, targets
from histofold.errors import DataError
from histofold.inference import checkpoint
from histofold.inference.blending import Axis, axis
from histofold.inference.checkpoint import Spec
from histofold.preprocess import Preprocess
from histofold.targets.base import Target


class Member(nn.Module):
    """A network that takes pixels and gives bands; each fold of each run is a module of its own.

    Args:
        network: raw outputs (B, C, H, W) from float (B, 3, H, W); its `divisor` says what sides must be a multiple of,
            its `smallest`, where it has one, what they must be at least (a multiple of `divisor`).
        target: gives the meaning of the outputs.
        preprocess: what the network learned with; `pixels` is the caller's, `normalise` happens here.
        spec: where it comes from, when it was loaded.
    """

    def __init__(self, network: nn.Module, target: Target, preprocess: Preprocess, spec: Spec | None = None) -> None:
        super().__init__()
        self.network = network
        self.target = target
        self.preprocess = preprocess
        self.spec = spec
        self.bands = tuple(target.bands)
        self.divisor = int(getattr(network, "divisor", 1))
        self.smallest = int(getattr(network, "smallest", 1))

    @classmethod
    def load(cls, path: Path, device: str | torch.device = "cpu", competition: str | None = None) -> Member:
        """Rebuild a member from a checkpoint without network or configuration, ready for inference on `device`.

        Raises:
            DataError: not a checkpoint, of another competition, or its weights do not fit its network.
        """
        spec, state = checkpoint.load(path)
        checkpoint.require(spec, path=path, competition=competition)
        member = cls.build(spec)
        try:
            member.network.load_state_dict(state)
        except RuntimeError as error:
            raise DataError(
                f"{path}: its weights do not fit the network {spec.model} of this version "
                f"({' '.join(str(error).split())[:200]}); train the fold again or use the version that wrote it"
            ) from error
        member = member.to(device).eval().requires_grad_(False)
        # The layout that convolutions like best, on CPUs and GPUs alike.
        return member.to(memory_format=torch.channels_last)

    @classmethod
    def build(cls, spec: Spec) -> Member:
        """The member that `spec` describes, with weights still untrained; never downloads anything."""
        target_options = dict(spec.target)
        target = targets.build(target_options.pop("name"), **target_options)
        # The checkpoint holds the encoder's weights already: fetching pretrained ones would need a network.
        model_options = models.offline(spec.model)
        network = models.build(model_options.pop("name"), target.channels, **model_options)
        return cls(network, target, Preprocess.from_dict(spec.preprocess), spec)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels (B, 3, H, W), uint8 or float on 0..255, after `preprocess.pixels` → bands (B, K, H, W) float32."""
        return self.from_normalised(self.preprocess.normalise(pixels))

    def from_normalised(self, batch: torch.Tensor) -> torch.Tensor:
        """As `forward`, for a batch that members with equal preprocessing share."""
        return self.target.to_bands(self._raw(batch).float())

    def _raw(self, batch: torch.Tensor) -> torch.Tensor:
        """Raw outputs of a batch; one that is too small for this network is filled up by reflection around it."""
        if min(batch.shape[2:]) >= self.smallest:
            raw: torch.Tensor = self.network(batch)
            return raw
        rows, columns = (_filled_up(length, self.smallest) for length in batch.shape[2:])
        wider = batch[:, :, torch.from_numpy(rows.reflection())][..., torch.from_numpy(columns.reflection())]
        whole: torch.Tensor = self.network(wider.contiguous(memory_format=torch.channels_last))
        return whole[:, :, rows.low[0] : rows.high[0], columns.low[0] : columns.high[0]]


def _filled_up(length: int, smallest: int) -> Axis:
    """An axis of one tile, as long as the image or, where that is more, `smallest`."""
    side = max(length, smallest)
    return axis(length, side, side, 0, "flat", side)
