"""Which search to believe: the simplest within the noise of the best, chosen for each fold by the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from histofold.evaluation.crossfit import first_good
from histofold.evaluation.search import STRATEGIES, Found, Weights

LEAST_FOLDS, LEAST_GROUPS = 2, 20
"""A fold needs more folds, and as many groups in the others, to be given another strategy than the simplest."""


def simplest(found: Sequence[Found], groups: NDArray[np.str_], folds: NDArray[np.int64]) -> Found:
    """The simplest result that is not clearly worse than the best; for each fold, as the others see it.

    Simpler is what comes earlier in `STRATEGIES`: equal weights before searched ones. The submission's strategy is
    chosen by honest scores. A fold's is chosen by the scores of the other folds alone, under what they chose: honest
    scores of the others would have its truth in them, because it had a part in the choice of their weights. Such scores
    flatter what was searched, so a fold takes the simplest where there are too few others to tell.
    """
    order = list(STRATEGIES)
    ranked = sorted(found, key=lambda item: (order.index(item.strategy), item.size))
    chosen = ranked[first_good([item.scores for item in ranked], groups)]
    per_fold: dict[int, tuple[Weights, int]] = {}
    scores = np.empty(len(folds))
    for fold in chosen.per_fold:
        own = folds == fold
        others = ~own
        enough = len(chosen.per_fold) > LEAST_FOLDS and len(set(groups[others])) >= LEAST_GROUPS
        at = first_good([item.seen[fold][others] for item in ranked], groups[others]) if enough else 0
        mine = ranked[at]
        per_fold[fold] = mine.per_fold[fold]
        scores[own] = mine.scores[own]
    return replace(chosen, per_fold=per_fold, scores=scores)
