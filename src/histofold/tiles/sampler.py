"""Which tile or image each training example comes from: a pure function of (seed, epoch, index).

Because nothing here remembers anything, a resumed run continues exactly where the broken one stopped, and any rank or
loader process can work out its own share (resume bugs of others: field notes §4).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch.utils.data import Sampler


def foreground_bins(shares: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Sort foreground shares (N,) into bins: 0 holds what has none, the others are quantiles of the rest.

    Drawing evenly from such bins was the batch recipe of the HuBMAP 2020 winner.
    """
    codes = np.zeros(len(shares), np.int64)
    positive = shares > 0
    if bins < 2 or not positive.any():
        return codes
    edges = np.quantile(shares[positive], np.linspace(0, 1, bins)[1:-1])
    codes[positive] = 1 + np.searchsorted(edges, shares[positive], side="right")
    return codes


def weights_of(tiles: pd.DataFrame, bins: int, crop: int) -> NDArray[np.float64]:
    """Probability (N,) of each row of the store's tiles to be drawn.

    Every bin of foreground share is drawn equally often. Within a bin an image that holds more crops than another
    counts by the square root of that number, so that the big images of a set do not drown the small ones, and a tile's
    own `weight` (from anatomical structures) multiplies.
    """
    codes = foreground_bins(tiles["foreground"].to_numpy(np.float64), bins)
    crops = tiles["height"].to_numpy(np.float64) * tiles["width"].to_numpy(np.float64)
    crops = crops / (crop * tiles["scale"].to_numpy(np.float64)) ** 2
    weight = np.sqrt(np.maximum(crops, 1.0))
    if "weight" in tiles:
        weight = weight * tiles["weight"].to_numpy(np.float64)
    total = np.zeros(len(tiles))
    for code in np.unique(codes):
        rows = codes == code
        total[rows] = weight[rows] / weight[rows].sum()
    return total / total.sum()


def even_out(weights: NDArray[np.float64], strata: Sequence[str], power: float) -> NDArray[np.float64]:
    """Raise rare strata: of all draws (N,) a stratum gets its share to the power 1 - `power`; 1 makes all alike.

    Within a stratum the rows keep their proportions, and the sum stays 1.
    """
    raised = weights.copy()
    names = np.asarray(strata, np.str_)
    for name in np.unique(names):
        rows = names == name
        share = weights[rows].sum()
        if share > 0:
            raised[rows] *= share**-power
    return raised / raised.sum()


def epoch_rows(weights: NDArray[np.float64], count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Rows (count,) that one epoch draws, by systematic sampling: each row's count is within one of its expectation.

    Systematic sampling (one random offset, evenly spaced points on the cumulated weights) has less spread than
    independent draws, so that no image is missed for many epochs.
    """
    random = np.random.default_rng([seed, epoch, 0xB175])
    points = (np.arange(count) + random.random()) / count
    # Rows lie on the line in a fresh order each epoch, else neighbours would always exclude one another.
    order = random.permutation(len(weights))
    rows = order[np.minimum(np.searchsorted(np.cumsum(weights[order]), points), len(weights) - 1)]
    return random.permutation(rows).astype(np.int64)


@dataclass
class EpochSampler(Sampler[tuple[int, int]]):
    """Keys (epoch, index) of one rank's examples in one epoch, from `first` (in examples of this rank) on."""

    count: int
    epoch: int
    rank: int = 0
    ranks: int = 1
    first: int = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the keys in order."""
        return iter([(self.epoch, index) for index in range(self.rank, self.count, self.ranks)][self.first :])

    def __len__(self) -> int:
        """Number of keys left."""
        return max(0, len(range(self.rank, self.count, self.ranks)) - self.first)
