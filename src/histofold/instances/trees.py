"""Boosted regression trees as plain numbers: learned with scikit-learn, kept as JSON, evaluated without it.

A pickled model runs whatever its maker put in and opens with one version of the library only; numbers do neither.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numpy.typing import NDArray

from histofold.errors import DataError

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingRegressor

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

INTEGERS = ("feature", "left", "right", "missing_left", "roots")


@dataclass(frozen=True)
class Trees:
    """A sum of regression trees over (n, features), all of their nodes in one table.

    Attributes:
        features: how many there are.
        start: value that the trees add to.
        feature: of each node, −1 at a leaf.
        threshold: of each node; values up to it go left.
        missing_left: 1 where NaN goes left.
        left, right: index of each node's children.
        value: of each leaf.
        roots: index of each tree's first node.
    """

    features: int
    start: float
    feature: Integers
    threshold: Floats
    missing_left: Integers
    left: Integers
    right: Integers
    value: Floats
    roots: Integers

    @classmethod
    def of(cls, model: HistGradientBoostingRegressor) -> Trees:
        """Take the trees out of a fitted regressor of continuous features."""
        nodes = [predictor.nodes for stage in model._predictors for predictor in stage]
        roots = np.cumsum([0, *(len(part) for part in nodes)])[:-1].astype(np.int64)
        table = np.concatenate(nodes)
        shift = np.repeat(roots, [len(part) for part in nodes])
        leaf = table["is_leaf"].astype(bool)
        # Leaves carry no threshold, and JSON no infinity: a split of NaN against the rest has one.
        threshold = np.clip(np.where(leaf, 0.0, table["num_threshold"]), -1e300, 1e300)
        return cls(
            features=int(model.n_features_in_),
            start=float(np.ravel(model._baseline_prediction)[0]),
            feature=np.where(leaf, -1, table["feature_idx"].astype(np.int64)),
            threshold=threshold,
            missing_left=table["missing_go_to_left"].astype(np.int64),
            left=table["left"].astype(np.int64) + shift,
            right=table["right"].astype(np.int64) + shift,
            value=table["value"].astype(np.float64),
            roots=roots,
        )

    def __call__(self, rows: Floats) -> Floats:
        """Predict (n,) from features (n, f), NaN where one is missing.

        Raises:
            DataError: another number of features than was learned from.
        """
        if rows.shape[1] != self.features:
            raise DataError(f"second level: learned from {self.features} features, found {rows.shape[1]}")
        tables = (self.feature, self.threshold, self.missing_left, self.left, self.right, self.value, self.roots)
        return _sums(np.ascontiguousarray(rows, np.float64), self.start, *tables)

    def to_dict(self) -> dict[str, Any]:
        """As what JSON can hold; numbers come back to the bit."""
        return {key: part.tolist() if isinstance(part, np.ndarray) else part for key, part in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Trees:
        """The way back from `to_dict`.

        Raises:
            DataError: something is missing, or a node points to where there is none.
        """
        try:
            parts: dict[str, Any] = {
                key: np.array(part, np.int64 if key in INTEGERS else np.float64)
                for key, part in values.items()
                if key not in ("features", "start")
            }
            trees = cls(features=int(values["features"]), start=float(values["start"]), **parts)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"second level: its trees are damaged ({error!r}); run evaluate again") from error
        trees.check()
        return trees

    def check(self) -> None:
        """Refuse a table that could be read past its end or for ever.

        Raises:
            DataError: naming what is wrong.
        """
        count = len(self.feature)
        inner = self.feature >= 0
        own = np.arange(count)
        sound = (
            all(
                part.shape == (count,)
                for part in (self.threshold, self.missing_left, self.left, self.right, self.value)
            )
            and bool((self.feature < self.features).all())
            # A child comes after its parent, so every walk ends.
            and all(bool(((part > own) & (part < count))[inner].all()) for part in (self.left, self.right))
            and bool(((self.roots >= 0) & (self.roots < count)).all())
        )
        if not sound:
            raise DataError("second level: its trees point to nodes that are not there; run evaluate again")


@numba.njit(cache=True)
def _sums(
    rows: Floats, start: float, feature: Integers, threshold: Floats, missing_left: Integers, left: Integers,
    right: Integers, value: Floats, roots: Integers,
) -> Floats:  # fmt: skip
    out = np.full(rows.shape[0], start)
    for row in range(rows.shape[0]):
        for root in roots:
            node = root
            while feature[node] >= 0:
                one = rows[row, feature[node]]
                if np.isnan(one):
                    goes_left = missing_left[node] != 0
                else:
                    goes_left = one <= threshold[node]
                node = left[node] if goes_left else right[node]
            out[row] += value[node]
    return out
