"""Options that recipes differ in: mirrorings in one direction, and pixels as their authors fed them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from histofold import compose
from histofold.options import AugmentOptions
from histofold.preprocess import Preprocess
from histofold.tiles.augment import draw_crop
from histofold.training.preprocessing import preprocess_of


def mirrorings(options: AugmentOptions) -> set[tuple[float, float]]:
    """Signs of x and y that are drawn."""
    drawn = [draw_crop(options, np.random.default_rng(seed), 64, 64, 64) for seed in range(60)]
    return {(matrix[0, 0], matrix[1, 1]) for matrix in drawn}


def test_mirroring_in_one_direction_only() -> None:
    assert mirrorings(AugmentOptions(quarter=False, flip_y=0)) == {(1, 1), (-1, 1)}
    assert mirrorings(AugmentOptions(quarter=False, flip=0, flip_y=0.5)) == {(1, 1), (1, -1)}


def test_without_a_word_on_it_both_directions_are_drawn_as_before() -> None:
    one, other = AugmentOptions(flip=0.3), AugmentOptions(flip=0.3, flip_y=0.3)
    for seed in range(20):
        maps = [draw_crop(options, np.random.default_rng(seed), 90, 80, 64) for options in (one, other)]
        assert np.array_equal(*maps)
    assert len(mirrorings(AugmentOptions(quarter=False))) == 4


@pytest.mark.parametrize("kind", ["images", "slides"])
def test_mean_and_spread_become_part_of_the_checkpoint(kind: str) -> None:
    competition: Any = SimpleNamespace(kind=kind, name="x")
    config = compose.load(compose.compose(["experiment=nuclei_unet", "competition=dsb2018"]))
    found = preprocess_of(AugmentOptions(**config.augment), competition, 1.0)
    assert found.whole is (kind == "images")
    assert found == Preprocess.from_dict(found.to_dict())
    pixels = torch.tensor([0, 51, 255]).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    assert torch.allclose(found.normalise(pixels), pixels / 255)
    assert {found: 1}[found] == 1, "members are told apart by it"


@pytest.mark.parametrize("path", sorted((compose.CONFIGS / "augment").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_augmentation_has_images_as_before(path: Path) -> None:
    config = compose.load(compose.compose([f"augment={path.stem}", "competition=folders"]))
    options, before = AugmentOptions(**config.augment), AugmentOptions()
    assert options.flip_y is None
    assert (tuple(options.mean), tuple(options.std)) == (before.mean, before.std)
