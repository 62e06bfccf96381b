"""The varCE loss of FullNet: cross entropy plus the variance of the predicted probabilities within each instance."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from histofold.errors import ConfigError, DataError
from histofold.losses.pixel import CrossEntropy

INSIDE = 1
"""The class of a nucleus' or gland's inside in a ternary target (0 background, 2 boundary)."""


class VarCE:
    """Weighted cross entropy plus alpha times the variance within instances (Qu et al., MICCAI 2019, FullNet).

    L = mean over pixels of weight × CE + alpha · V, and V is the mean over the images of
    Σ_i Σ_c Var{p_c(x): x in instance i} / N with all softmax channels c, the unbiased variance (an instance of one
    pixel adds 0 and still counts), and N the image's number of instances. An image without instances adds nothing, so
    that empty crops give exactly the cross entropy.

    The batch needs `instances` (B, H, W), 0 for background: `inside_components` of the crop's truth, found once by the
    loader. What differs from the authors' code: instances are not searched for inside the loop, sums are scattered
    instead of looped over, and no instance is no error. Values are theirs, but for their 1e-8 below the fraction.
    """

    def __init__(self, activation: str, alpha: float = 1.0) -> None:
        """Take the target's activation, which must be softmax, and alpha, the weight of the variance."""
        if activation != "softmax":
            raise ConfigError(f"loss.varce: expected a softmax target such as ternary; its activation is {activation}")
        self.cross_entropy = CrossEntropy(activation)
        self.alpha = alpha

    def __call__(self, raw: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss of raw outputs (B, C, H, W)."""
        if "instances" not in batch:
            raise DataError("loss.varce: the batch has no `instances`; the loader must label each crop")
        return self.cross_entropy(raw, batch) + self.alpha * instance_variance(raw.softmax(1), batch["instances"])


def instance_variance(probability: torch.Tensor, instances: torch.Tensor) -> torch.Tensor:
    """Mean over images of the mean over instances of the summed unbiased variances of all channels, a scalar.

    `probability` is (B, C, H, W), `instances` (B, H, W) int with 0 for background. Labels need not be consecutive, but
    memory grows with the largest.
    """
    batch, channels = probability.shape[:2]
    # On a CPU this bound costs one pass; on a GPU it would wait for the device, so there it is the bound that the
    # number of pixels gives: two 8-connected objects never share a 2 × 2 block.
    rows, columns = instances.shape[1:]
    bound = int(instances.max()) if instances.device.type == "cpu" else ((rows + 1) // 2) * ((columns + 1) // 2)
    labels = instances.long() + torch.arange(batch, device=instances.device).view(-1, 1, 1) * (bound + 1)
    index = labels.reshape(-1)
    values = probability.movedim(1, 0).reshape(channels, -1)
    slots = batch * (bound + 1)
    count = values.new_zeros(slots).index_add_(0, index, values.new_ones(index.numel()))
    mean = values.new_zeros(channels, slots).index_add_(1, index, values) / count.clamp(min=1)
    squares = (values - mean.detach()[:, index]).square()
    # d/dp of Σ(p - mean)² has no term through the mean, because Σ(p - mean) = 0: the mean may stay out of the graph.
    variance = values.new_zeros(channels, slots).index_add_(1, index, squares).sum(0) / (count - 1).clamp(min=1)
    inside = (count > 0).view(batch, bound + 1)
    inside[:, 0] = False
    number = inside.sum(1)
    total = (variance.view(batch, bound + 1) * inside).sum(1)
    return (total / number.clamp(min=1)).mean()


def inside_components(truth: NDArray[np.integer] | NDArray[np.bool_]) -> NDArray[np.int32]:
    """Label the 8-connected components of class `INSIDE` of a ternary truth (H, W); gives int32, 0 elsewhere."""
    labels: NDArray[np.int32] = cv2.connectedComponents((truth == INSIDE).astype(np.uint8), connectivity=8)[1]
    return labels
