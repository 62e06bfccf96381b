"""How good one sample's prediction is: the competition's metric on the full-size truth, and what explains it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histofold import instances, metrics
from histofold.competitions.base import Competition, Sample
from histofold.errors import DataError
from histofold.evaluation.oof import MeanBands, shared_bands
from histofold.inference.bandfile import BandFile
from histofold.instances import Decoder
from histofold.upsample import full_size, reduced_labels, upsampled

LEVEL = 128
"""Code at which foreground begins before a threshold was tuned: one half."""

ROWS = 512
"""Rows of a prediction that are looked at together."""


@dataclass(frozen=True)
class TruthLabels:
    """Loads the truth of one image, at full size or reduced to the scale of a prediction; picklable."""

    competition: Competition
    sample_id: str
    scale: float = 1.0

    def __call__(self) -> NDArray[np.integer[Any]]:
        """Labels (H, W).

        Raises:
            DataError: the sample has no truth.
        """
        labels = self.competition.labels(self.sample_id)
        if labels is None:
            raise DataError(f"{self.competition.name}: sample {self.sample_id} has no truth to score against")
        return reduced_labels(labels, self.scale)


@dataclass(frozen=True)
class HistogramTask:
    """One sample of a mask competition and the band files to average for it; picklable."""

    competition: Competition
    sample: Sample
    bands: MeanBands

    def __call__(self) -> NDArray[np.int64]:
        """Counts (2, 256) of the foreground codes off and on the truth, at full size.

        From them the score of every threshold follows, so a threshold is tuned in one pass and without the network.
        """
        with BandFile(self.bands.paths[0]) as file:
            height, scale = file.height, file.scale
        sample = self.sample
        prediction = (self.bands.rows("foreground", top, min(top + ROWS, height)) for top in range(0, height, ROWS))
        counts = np.zeros((2, 256), np.int64)
        if self.competition.kind == "images":
            labels = TruthLabels(self.competition, sample.sample_id)() > 0
            for top, rows in upsampled(prediction, scale, sample.height, sample.width):
                counts += metrics.histogram(rows, labels[top : top + len(rows)])
            return counts
        mask = self.competition.mask(sample.sample_id)
        if mask is None:
            raise DataError(f"{self.competition.name}: slide {sample.sample_id} has no truth to score against")
        for top, rows in upsampled(prediction, scale, sample.height, sample.width):
            counts += metrics.histogram(rows, mask.window(top, 0, len(rows), sample.width))
        return counts


def mask_scores(counts: NDArray[np.int64], level: int, metric: str) -> dict[str, float]:
    """Dice, IoU and pixels of (code ≥ level) from a histogram (2, 256); `score` is the competition's metric of them."""
    values = {name: float(curve(counts)[level]) for name, curve in metrics.CURVES.items()}
    areas = (counts[1, level:].sum(), counts[1].sum(), counts[:, level:].sum())
    return {"score": values[metric], **values} | dict(zip(metrics.PIXELS, map(float, areas), strict=True))


def decoded(decoder: Decoder, bands: MeanBands, shape: tuple[int, ...]) -> NDArray[np.integer[Any]]:
    """Instances of an image as labels (H, W) of the size `shape`."""
    height, width = shape
    return full_size(decoder(bands()), bands.scale, height, width)


def instance_scores(truth: NDArray[np.integer[Any]], labels: NDArray[np.integer[Any]], metric: str) -> dict[str, float]:
    """All instance metrics of labels of the truth's size; `score` is the competition's."""
    values = metrics.instance_scores(truth, labels)
    return {"score": values[metric], **values}


def final_scores(truth: NDArray[np.integer[Any]], labels: NDArray[np.integer[Any]], metric: str) -> dict[str, float]:
    """`instance_scores` and the distances of `metrics.final_scores`."""
    values = metrics.final_scores(truth, labels)
    return {"score": values[metric], **values}


@dataclass(frozen=True)
class ScoreTask:
    """One sample's band file and what scores it without tuning; picklable.

    Attributes:
        options: the config group `instances`.
    """

    competition: Competition
    sample: Sample
    path: Path
    options: Mapping[str, Any]


def score(task: ScoreTask) -> dict[str, float]:
    """Score one sample at one half, or with the decoder's own settings; the first entry is the competition's metric."""
    bands = MeanBands((task.path,), (1.0,), shared_bands([task.path]))
    if task.competition.truth == "mask":
        return mask_scores(HistogramTask(task.competition, task.sample, bands)(), LEVEL, task.competition.metric)
    decoder = instances.resolve(task.options, bands.names)
    truth = TruthLabels(task.competition, task.sample.sample_id)()
    return instance_scores(truth, decoded(decoder, bands, truth.shape), task.competition.metric)
