"""Scores of mixtures: those of the mean bands, on all pixels or on a lattice of them, from memory or from files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from histofold import instances, metrics
from histofold.competitions.base import Competition
from histofold.evaluation import objective
from histofold.evaluation.objective import LEVELS, Kept, Scorer
from histofold.evaluation.oof import MeanBands
from histofold.evaluation.search import Weights
from histofold.inference.bandfile import BandFileWriter
from histofold.targets import build

NAMES = ("foreground", "border")
MIXTURES: list[Weights] = [(0.5, 0.5), (0.9, 0.1), (0.0, 1.0)]
ROWS = np.array([1, 0])


@dataclass
class Drawn:
    """As much of a competition as scoring asks for."""

    truth: list[NDArray[np.int32]]
    name: str = "drawn"
    kind: str = "images"
    metric: str = "dice"

    def labels(self, sample_id: str) -> NDArray[np.int32]:
        return self.truth[int(sample_id)]


def _image(seed: int, height: int, width: int) -> NDArray[np.int32]:
    random = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.int32)
    for label in range(1, 9):
        centre = (int(random.integers(0, width)), int(random.integers(0, height)))
        cv2.circle(labels, centre, int(random.integers(5, 11)), label, -1)
    return labels


@pytest.fixture
def scorer(tmp_path: Path) -> Scorer:
    """Two images with two members each."""
    truth = [_image(0, 90, 70), _image(1, 64, 101)]
    bands = []
    for at, labels in enumerate(truth):
        paths = []
        for member in range(2):
            soft = build("border").encode(labels) * 230.0
            noise = np.random.default_rng((at, member)).normal(0, 40, soft.shape)
            codes = np.clip(cv2.GaussianBlur(soft[0] + noise[0], (0, 0), 1 + member), 0, 255).astype(np.uint8)
            both = np.stack([codes, np.clip(soft[1] + noise[1], 0, 255).astype(np.uint8)])
            paths.append(tmp_path / f"{at}_{member}.tif")
            with BandFileWriter(paths[-1], build("border").bands, *labels.shape) as writer:
                writer.write_rows(0, both)
        bands.append(MeanBands(tuple(paths), (0.5, 0.5), NAMES))
    return Scorer(cast(Competition, Drawn(truth)), ("0", "1"), tuple(bands), (), 1)


def _truth(scorer: Scorer, at: int) -> NDArray[Any]:
    labels = scorer.competition.labels(str(at))
    assert labels is not None
    return labels


def _mean(scorer: Scorer, at: int, weights: Weights) -> MeanBands:
    return MeanBands(scorer.bands[at].paths, weights, NAMES)


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_the_score_of_every_level_is_that_of_the_mean(scorer: Scorer, metric: str) -> None:
    scorer.competition.metric = metric
    for weights, table in zip(MIXTURES, scorer(MIXTURES, ROWS), strict=True):
        assert table.shape == (2, len(LEVELS))
        for row, at in zip(table, ROWS, strict=True):
            truth = _truth(scorer, at)
            codes = _mean(scorer, at, weights).rows("foreground", 0, truth.shape[0])
            for level in (1, 60, 128, 200, 255):
                assert row[level - 1] == pytest.approx(getattr(metrics, metric)(truth, codes >= level), abs=2e-3)


def test_large_samples_are_looked_at_on_a_lattice(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objective, "PIXELS", 700)
    monkeypatch.setattr(objective, "ROWS", 7)  # strips that end between the lattice's rows
    (table,) = scorer([(1.0, 0.0)], ROWS)
    for row, at in zip(table, ROWS, strict=True):
        truth = _truth(scorer, at)
        codes = _mean(scorer, at, (1.0, 0.0)).rows("foreground", 0, truth.shape[0])
        seen = (slice(None, None, 3), slice(None, None, 3))
        assert row[127] == metrics.dice(truth[seen], codes[seen] >= 128)


def test_instances_are_those_of_the_decoded_mean(scorer: Scorer) -> None:
    decoder = instances.build("watershed")
    scorer.competition.metric = "dsb"
    found = Scorer(scorer.competition, scorer.sample_ids, scorer.bands, (decoder,), 2)(MIXTURES, ROWS)
    for weights, table in zip(MIXTURES, found, strict=True):
        for row, at in zip(table, ROWS, strict=True):
            labels = decoder(_mean(scorer, at, weights)())
            assert row[0] == pytest.approx(metrics.dsb(_truth(scorer, at), labels), abs=0.02)
    assert len({float(table.mean()) for table in found}) == len(MIXTURES)


@pytest.mark.parametrize(("limit", "reads"), [(1 << 20, 1), (0, 3)])
def test_samples_stay_in_memory_up_to_a_limit(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch, limit: int, reads: int
) -> None:
    monkeypatch.setattr(objective, "KEPT", limit)
    read: list[int] = []

    def count(index: int) -> Any:
        read.append(index)
        return scorer._read_masks(index)

    kept = Kept()
    for _ in range(3):
        kept.get(0, count)
    assert len(read) == reads
