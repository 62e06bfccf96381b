"""All scores of one image together, as `evaluate` and `submit` keep them of what they have settled on."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from histofold.metrics.hausdorff import hd95, object_hausdorff
from histofold.metrics.instances import instance_scores


def final_scores(truth: NDArray[Any], prediction: NDArray[Any]) -> dict[str, float]:
    """`instance_scores` and two distances in pixels: `object_hausdorff` of the GlaS rule, `hd95` of the foreground.

    Of objects that are nothing like one another the distances take seconds, so that they are left to final scores.
    """
    distances = {"object_hausdorff": object_hausdorff(truth, prediction), "hd95": hd95(truth, prediction)}
    return {**instance_scores(truth, prediction), **distances}
