"""Losses that compare regions: Dice and Tversky, and Lovász. Pixels of weight zero (padding) take no part in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from segmentation_models_pytorch.losses import LovaszLoss
from torch.nn import functional

from histofold.losses.pixel import activate, require_classes

Batch = Mapping[str, torch.Tensor]

_IGNORED = 255
"""Label of pixels that Lovász leaves out."""

_LEAST_SMOOTH = 1e-7
"""What stands for `smooth` = 0: of a crop without a pixel that counts, zero by zero would be no number."""


class HardChannels:
    """A term of this file on the channels whose truth is 0 or 1; the soft ones take no part.

    A region term is for pixels that belong to the region or do not: with a truth between 0 and 1 its least lies at
    another probability. Soft Dice beside cross entropy turned depths of .1 .2 .4 .8 into .04 .12 .61 .96, Tversky and
    Lovász bend them more.
    """

    def __init__(self, term: Callable[[torch.Tensor, Batch], torch.Tensor], soft: tuple[int, ...]) -> None:
        """Take the term, and the channels that it leaves out."""
        self.term, self.soft = term, soft

    def __call__(self, raw: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The term of the other channels."""
        return self.term(self._hard(raw), {**batch, "truth": self._hard(batch["truth"])})

    def _hard(self, values: torch.Tensor) -> torch.Tensor:
        hard = [channel for channel in range(values.shape[1]) if channel not in self.soft]
        return torch.stack([values[:, channel] for channel in hard], dim=1)


class Tversky:
    """One minus the Tversky index, in each channel, then the mean (Salehi et al., 2017, arXiv 1706.05721).

    index = (TP + s/2) / (TP + alpha·FP + beta·FN + s/2); with alpha = beta = 1/2 it is soft Dice,
    (2·TP + s) / (|P| + |T| + s). A softmax target's background channel is left out: it is nearly always right.
    Library versions skip classes that a batch lacks; here, with s > 0, an absent class pushes probabilities down.
    """

    def __init__(
        self, activation: str, alpha: float = 0.5, beta: float = 0.5, smooth: float = 1.0, per_image: bool = False
    ) -> None:
        """Take the weights of false positives and negatives, and whether each image has its own index."""
        require_classes(activation, "dice or tversky")
        self.activation = activation
        self.alpha, self.beta, self.smooth, self.per_image = alpha, beta, max(smooth, _LEAST_SMOOTH), per_image

    def __call__(self, raw: torch.Tensor, batch: Batch) -> torch.Tensor:
        """One minus the mean index."""
        probability, truth = activate(raw, self.activation), batch["truth"]
        if self.activation == "softmax":
            truth = functional.one_hot(truth, raw.shape[1]).movedim(3, 1)[:, 1:]
            probability = probability[:, 1:]
        truth = truth.to(probability.dtype)
        weight = batch.get("weight")
        if weight is not None:
            valid = (weight > 0).to(probability.dtype)
            probability, truth = probability * valid, truth * valid
        axes = (2, 3) if self.per_image else (0, 2, 3)
        hit = (probability * truth).sum(axes)
        false_positive = probability.sum(axes) - hit
        false_negative = truth.sum(axes) - hit
        half = self.smooth / 2
        index = (hit + half) / (hit + self.alpha * false_positive + self.beta * false_negative + half)
        return 1 - index.mean()


class Lovasz:
    """The Lovász extension of the Jaccard loss (Berman et al., CVPR 2018, arXiv 1705.08790).

    The hinge in each channel for sigmoid targets, softmax over the classes that are present for softmax targets. Where
    each image has its own loss, the mean is over those that have a pixel of weight above zero.
    """

    def __init__(self, activation: str, per_image: bool = False) -> None:
        """Take the target's activation, and whether each image has its own loss."""
        require_classes(activation, "lovasz")
        self.softmax = activation == "softmax"
        mode = "multiclass" if self.softmax else "binary"
        self.per_image = per_image
        self.loss = LovaszLoss(mode, per_image=False, ignore_index=_IGNORED)

    def __call__(self, raw: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The mean over channels (sigmoid) or present classes (softmax)."""
        truth, weight = batch["truth"], batch.get("weight")
        if self.softmax:
            if weight is not None:
                truth = truth.masked_fill(weight[:, 0] <= 0, _IGNORED)
            return self._scalar(raw, truth)
        if weight is not None:
            truth = truth.masked_fill(weight <= 0, _IGNORED)
        channels = range(raw.shape[1])
        return torch.stack([self._scalar(raw[:, channel], truth[:, channel]) for channel in channels]).mean()

    def _scalar(self, raw: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Theirs of the batch, or the mean of theirs over its images; what is left out whole takes no part."""
        pieces = zip(raw.split(1), truth.split(1), strict=True) if self.per_image else [(raw, truth)]
        found = [self.loss(logits, labels) for logits, labels in pieces if (labels != _IGNORED).any()]
        return torch.stack(found).mean() if found else raw.sum() * 0
