"""Losses that look at each pixel by itself: cross entropy, focal loss, and the two regressions.

All are plain means over the pixels of weight × loss: the weight map of the FullNet paper is not divided by its sum, and
padding (weight zero) counts as pixels without loss.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional

from histofold.errors import ConfigError

Batch = Mapping[str, torch.Tensor]

LEAST_MISS = 1e-12
"""Least 1 - p that focal loss weighs by: below a gamma of one, the slope of its power is infinite at zero."""

REGRESSIONS = ("softplus", "relu", "linear")
"""Activations of targets that regress a quantity."""


def weighted_mean(loss: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Mean of a loss (B, C, H, W) or (B, H, W), weighted by the batch's `weight` (B, 1, H, W) where it has one."""
    weight = batch.get("weight")
    if weight is None:
        return loss.mean()
    return (loss * (weight if loss.ndim == 4 else weight[:, 0])).mean()


def require_classes(activation: str, term: str) -> None:
    """Refuse a classification loss for a target that regresses.

    Raises:
        ConfigError: the activation is neither sigmoid nor softmax.
    """
    if activation not in ("sigmoid", "softmax"):
        raise ConfigError(
            f"loss.{term}: this term needs classes (sigmoid or softmax); the target's activation is {activation}. "
            "Use mse or smooth_l1"
        )


def activate(raw: torch.Tensor, activation: str) -> torch.Tensor:
    """The quantity behind a raw output (B, C, H, W).

    Raises:
        ConfigError: unknown activation.
    """
    if activation == "sigmoid":
        return raw.sigmoid()
    if activation == "softmax":
        return raw.softmax(1)
    if activation == "softplus":
        return functional.softplus(raw)
    if activation == "relu":
        return raw.relu()
    if activation == "linear":
        return raw
    raise ConfigError(f"target: unknown activation {activation!r}")


class CrossEntropy:
    """Cross entropy of logits: binary and per channel for sigmoid targets, over the classes for softmax targets."""

    def __init__(self, activation: str) -> None:
        """Take the target's activation, sigmoid or softmax."""
        require_classes(activation, "bce")
        self.softmax = activation == "softmax"

    def __call__(self, raw: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Mean of weight × cross entropy."""
        if self.softmax:
            return weighted_mean(functional.cross_entropy(raw, batch["truth"], reduction="none"), batch)
        loss = functional.binary_cross_entropy_with_logits(raw, batch["truth"], reduction="none")
        return weighted_mean(loss, batch)


class Focal:
    """Focal loss (Lin et al., ICCV 2017, arXiv 1708.02002), each class of a softmax target against the rest.

    Of a soft truth it is least at that truth, too, as it grows with the cross entropy. Where the truth is uncertain,
    its probabilities lie nearer to one half than the truth's mean, those of soft labels less so than those of classes.
    """

    def __init__(self, activation: str, gamma: float = 2.0) -> None:
        """Take the target's activation and gamma, the exponent that fades easy pixels (0: cross entropy)."""
        require_classes(activation, "focal")
        self.softmax = activation == "softmax"
        self.gamma = gamma

    def __call__(self, raw: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Mean of weight × focal loss."""
        truth = batch["truth"]
        if self.softmax:
            truth = functional.one_hot(truth, raw.shape[1]).movedim(3, 1).to(raw.dtype)
        entropy = functional.binary_cross_entropy_with_logits(raw, truth, reduction="none")
        # 1 - p of the right answer; expm1 keeps what 1 - exp() rounds to nothing at logits above 16.
        miss = (-torch.expm1(-entropy)).clamp_min(LEAST_MISS)
        return weighted_mean(miss.pow(self.gamma) * entropy, batch)


class Regression:
    """Squared or smooth absolute error of the activated output against a regression target such as a distance map."""

    def __init__(self, activation: str, kind: str) -> None:
        """Take the target's activation and the kind, mse or smooth_l1."""
        if activation == "softmax":
            raise ConfigError(f"loss.{kind}: a softmax target has classes, not a quantity; use bce, focal or dice")
        self.activation = activation
        self.error = functional.mse_loss if kind == "mse" else functional.smooth_l1_loss

    def __call__(self, raw: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Mean of weight × error."""
        loss = self.error(activate(raw, self.activation), batch["truth"], reduction="none")
        return weighted_mean(loss, batch)
