"""Metrics: by pixel, by object, and those of the competitions; all instance metrics share one matcher.

Example:
    >>> import numpy as np
    >>> truth = np.zeros((8, 8), int); truth[1:4, 1:4] = 1
    >>> dsb(truth, truth)
    1.0
"""

from histofold.metrics.detection import Matching, dsb, dsb_score, match, pool
from histofold.metrics.final import final_scores
from histofold.metrics.hausdorff import hd95, object_hausdorff
from histofold.metrics.instances import COUNTS, SCORES, instance_scores, named_score, scores_of
from histofold.metrics.matching import Contingency, contingency
from histofold.metrics.semantic import (
    CURVES,
    PIXELS,
    dice,
    dice_curve,
    histogram,
    iou,
    iou_curve,
    named_curve,
    pooled,
    pooled_counts,
)

__all__ = [
    "COUNTS",
    "CURVES",
    "PIXELS",
    "SCORES",
    "Contingency",
    "Matching",
    "contingency",
    "dice",
    "dice_curve",
    "dsb",
    "dsb_score",
    "final_scores",
    "hd95",
    "histogram",
    "instance_scores",
    "iou",
    "iou_curve",
    "match",
    "named_curve",
    "named_score",
    "object_hausdorff",
    "pool",
    "pooled",
    "pooled_counts",
    "scores_of",
]
