"""Scores of many weight vectors in one pass over the samples, each sample's band files opened once a pass.

The search works at the predictions' own scale, in threads (reading, histograms and the flood release the interpreter);
what is reported in the end is scored at full size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histofold import metrics
from histofold.competitions.base import Competition
from histofold.errors import DataError
from histofold.evaluation.oof import MeanBands
from histofold.evaluation.scoring import ROWS, TruthLabels
from histofold.evaluation.search import Table, Weights
from histofold.inference.bandfile import BandFile
from histofold.instances import Decoder
from histofold.parallel import cores
from histofold.progress import bar

LEVELS = np.arange(1, 256)
"""Codes that are tried as thresholds: 0 would call everything foreground, 256 nothing."""


@dataclass(frozen=True)
class Scorer:
    """Scores weight vectors on OOF predictions.

    Attributes:
        sample_ids: in the order of the tables' rows.
        bands: of each sample; their weights are ignored.
        decoders: settings to score, empty for masks (then the settings are the levels 1..255).
        workers: threads; 0 is one for each core.
    """

    competition: Competition
    sample_ids: tuple[str, ...]
    bands: tuple[MeanBands, ...]
    decoders: tuple[Decoder, ...]
    workers: int

    def __call__(self, candidates: list[Weights]) -> list[Table]:
        """Tables (samples, settings), one a candidate."""
        one: Callable[[int, list[Weights]], NDArray[np.float64]] = self._instances if self.decoders else self._masks
        count = len(self.sample_ids)
        text = f"search, {len(candidates)} mixtures"
        with bar(total=count, text=text) as progress, ThreadPoolExecutor(self.workers or cores()) as pool:
            tasks = [pool.submit(one, index, candidates) for index in range(count)]
            rows = []
            for task in tasks:
                rows.append(task.result())
                progress.update()
        whole = np.stack(rows)  # (samples, candidates, settings)
        return [whole[:, index] for index in range(len(candidates))]

    def _masks(self, index: int, candidates: list[Weights]) -> NDArray[np.float64]:
        bands = self.bands[index]
        counts = np.zeros((len(candidates), 2, 256), np.int64)
        with BandFile(bands.paths[0]) as file:
            height, width, scale = file.height, file.width, file.scale
        truth = self._truth_rows(self.sample_ids[index], scale)
        for top in range(0, height, ROWS):
            bottom = min(top + ROWS, height)
            parts = [_alone(bands, member).rows("foreground", top, bottom) for member in range(len(bands.paths))]
            inside = truth(top, bottom, width)
            for number, weights in enumerate(candidates):
                counts[number] += metrics.histogram(_mean(parts, weights), inside)
        return np.stack([metrics.dice_curve(count)[LEVELS] for count in counts])

    def _truth_rows(self, sample_id: str, scale: float) -> Callable[[int, int, int], NDArray[np.bool_]]:
        """The truth at the prediction's scale, as a function of (first row, last row, width)."""
        competition = self.competition
        if competition.kind == "images":
            labels = TruthLabels(competition, sample_id, scale)() > 0
            return lambda top, bottom, width: labels[top:bottom, :width]
        mask = competition.mask(sample_id)
        if mask is None:
            raise DataError(f"{competition.name}: slide {sample_id} has no truth to score against")

        def rows(top: int, bottom: int, width: int) -> NDArray[np.bool_]:
            first = round(top * scale)
            height = min(mask.height, round(bottom * scale)) - first
            return mask.reduced_mask(first, 0, height, mask.width, scale)[: bottom - top, :width] > 0

        return rows

    def _instances(self, index: int, candidates: list[Weights]) -> NDArray[np.float64]:
        bands = self.bands[index]
        parts = [_alone(bands, member)() for member in range(len(bands.paths))]
        truth = TruthLabels(self.competition, self.sample_ids[index], bands.scale)()
        score = metrics.named_score(self.competition.metric)
        mixed: dict[str, NDArray[np.float32]]
        table = np.empty((len(candidates), len(self.decoders)))
        for number, weights in enumerate(candidates):
            mixed = {
                name: np.sum([np.float32(w) * part[name] for w, part in zip(weights, parts, strict=True)], axis=0)
                for name in bands.names
            }
            for column, decoder in enumerate(self.decoders):
                table[number, column] = score(metrics.contingency(truth, decoder(mixed)))
        return table


def _alone(bands: MeanBands, member: int) -> MeanBands:
    return MeanBands((bands.paths[member],), (1.0,), bands.names)


def _mean(parts: Sequence[NDArray[np.uint8]], weights: Weights) -> NDArray[np.uint8]:
    total: NDArray[Any] = np.zeros(parts[0].shape, np.float32)
    for part, weight in zip(parts, weights, strict=True):
        if weight > 0:
            total += part * np.float32(weight)
    return np.asarray(np.rint(total), np.uint8)
