"""Stain normalisation and stain augmentation on drawn tissue whose stains are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from histofold import competitions, compose, stain
from histofold.config import CompetitionConfig
from histofold.errors import ConfigError, DataError
from histofold.identity import identity
from histofold.preprocess import Preprocess
from histofold.tiles.augment import AugmentOptions, ColourAugment
from histofold.training.preprocessing import preprocess_of

PINK = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
PURPLE = np.array([[0.54, 0.77, 0.34], [0.22, 0.90, 0.37]])


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def amounts(seed: int = 0) -> NDArray[np.float64]:
    """Haematoxylin in discs, eosin around them, and bare glass at the left: (96, 96, 2)."""
    random = np.random.default_rng(seed)
    nuclei = np.zeros((96, 96), np.uint8)
    for _ in range(25):
        cv2.circle(nuclei, (int(random.integers(24, 96)), int(random.integers(0, 96))), 6, 1, -1)
    noise = random.uniform(0.8, 1.2, (96, 96))
    found = np.stack([np.where(nuclei > 0, 1.2, 0.06) * noise, np.where(nuclei > 0, 0.1, 0.7) * noise], axis=-1)
    found[:, :16] = 0
    return found


def stained(vectors: NDArray[np.float64], strength: float = 1.0, seed: int = 0) -> NDArray[np.uint8]:
    density = amounts(seed) * strength @ unit(vectors)
    return np.clip(np.rint(stain.WHITE * np.exp(-density)), 0, 255).astype(np.uint8)


NUMBERS = {name: numbers(stained(PINK)) for name, (numbers, _) in stain.METHODS.items()}


def apart(one: Any, other: Any) -> float:
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


def test_reinhard_gives_the_references_means_and_spreads() -> None:
    target = stain.reinhard_numbers(stained(PINK))
    changed = stain.reinhard(stained(PURPLE, 0.6, seed=3), target)
    assert stain.reinhard_numbers(changed) == pytest.approx(target, abs=2.0)
    assert apart(stain.reinhard(stained(PINK), target), stained(PINK)) < 1.5


def test_macenko_finds_the_stains_that_were_drawn() -> None:
    for vectors in (PINK, PURPLE):
        found = np.array(stain.macenko_numbers(stained(vectors))[:6]).reshape(2, 3)
        assert (np.sum(found * unit(vectors), axis=1) > 0.985).all()


def test_macenko_brings_one_tissue_to_one_colour_however_it_was_stained() -> None:
    reference = stained(PINK)
    target = stain.macenko_numbers(reference)
    for vectors, strength in ((PURPLE, 0.6), (PURPLE, 1.2), (PINK, 0.7)):
        before = stained(vectors, strength)
        after = stain.macenko(before, target)
        assert apart(after, reference) < 0.35 * apart(before, reference)
        assert after[:, :16].min() > 230, "bare glass stays bare"


@pytest.mark.parametrize("method", sorted(stain.METHODS))
def test_the_reference_stays_as_it_is(method: str) -> None:
    """Also where it has a colour that is neither haematoxylin nor eosin, and glass brighter than the white."""
    reference = stained(PINK)
    reference[40:44, 40:60] = (90, 70, 30)
    reference[:, :8] = 255
    numbers, normalised = stain.METHODS[method]
    changed = normalised(reference, numbers(reference))
    assert np.abs(changed.astype(int) - reference).max() <= 1


@pytest.mark.parametrize("level", [236, 240, 247, 255])
def test_glass_has_one_level_with_and_without_tissue(level: int) -> None:
    target = stain.macenko_numbers(stained(PURPLE, 1.3))
    bare = np.full((96, 96, 3), level, np.uint8)
    beside = stained(PINK)
    beside[:, :16] = level
    assert np.array_equal(stain.macenko(bare, target), bare)
    assert np.abs(stain.macenko(beside, target)[:, :16].astype(int) - level).max() <= (0 if level >= stain.WHITE else 2)


@pytest.mark.parametrize("method", sorted(stain.METHODS))
def test_an_image_without_tissue_stays_without(method: str) -> None:
    numbers, normalised = stain.METHODS[method]
    target = numbers(stained(PINK))
    noise = np.random.default_rng(0).integers(236, 242, (64, 64, 3), dtype=np.uint8)
    changed = normalised(noise, target)
    assert changed.shape == noise.shape
    assert changed.astype(float).std(axis=(0, 1)).max() < stain.GAIN * 4


def test_macenko_needs_tissue_in_its_reference() -> None:
    with pytest.raises(DataError, match=r"augment\.reference"):
        stain.macenko_numbers(np.full((64, 64, 3), 250, np.uint8))


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3))))
def test_any_image_stays_an_image(image: Any) -> None:
    for name, (_, normalised) in stain.METHODS.items():
        changed = normalised(image, NUMBERS[name])
        assert changed.dtype == np.uint8
        assert changed.shape == image.shape


@pytest.mark.parametrize("method", sorted(stain.METHODS))
def test_the_checkpoint_keeps_the_reference(method: str) -> None:
    preprocess = Preprocess(stain_method=method, stain_numbers=stain.METHODS[method][0](stained(PINK)))
    again = Preprocess.from_dict(preprocess.to_dict())
    assert again == preprocess
    assert again.enhances
    assert again.enhancement.stain_method == method
    image = stained(PURPLE, seed=1)
    assert np.array_equal(again.pixels(image), preprocess.pixels(image))
    assert apart(again.pixels(image), image) > 5
    older = Preprocess().to_dict()
    del older["stain_method"], older["stain_numbers"]
    assert Preprocess.from_dict(older) == Preprocess()


@pytest.fixture
def competition(tmp_path: Path) -> Any:
    place = tmp_path / "custom"
    for name, image in (("a", stained(PINK)), ("b", stained(PURPLE))):
        for folder, content in (("images", image[..., ::-1]), ("labels", np.zeros(image.shape[:2], np.uint8))):
            (place / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place / folder / f"{name}.png"), content)
    return competitions.open(CompetitionConfig("custom", "folders", None, {"folder": str(place)}), tmp_path)


def test_the_reference_is_a_sample_of_the_competition(competition: Any) -> None:
    options = AugmentOptions(normalise="reinhard", reference="a")
    preprocess = preprocess_of(options, competition, 1.0)
    assert preprocess.stain_numbers == pytest.approx(stain.reinhard_numbers(stained(PINK)))
    assert preprocess_of(options, competition, 2.0).stain_numbers == pytest.approx(preprocess.stain_numbers, abs=8)
    for wrong, words in (
        (AugmentOptions(normalise="vahadane", reference="a"), "expected none"),
        (AugmentOptions(normalise="macenko"), "reference"),
    ):
        with pytest.raises(ConfigError, match=words):
            preprocess_of(wrong, competition, 1.0)
    with pytest.raises(DataError, match="no sample"):
        preprocess_of(AugmentOptions(normalise="macenko", reference="c"), competition, 1.0)
    competition.kind = "slides"
    with pytest.raises(ConfigError, match="read by window"):
        preprocess_of(options, competition, 1.0)


def test_the_recipe_for_monuseg_normalises_and_older_runs_can_go_on() -> None:
    recipe = compose.load(compose.compose(["experiment=monuseg_fullnet"], Path(__file__).parents[1] / "configs"))
    assert recipe.competition.name == "monuseg"
    assert recipe.model["name"] == "fullnet"
    options = AugmentOptions(**recipe.augment)
    assert (options.normalise, options.reference) == ("reinhard", "TCGA-G9-6356-01Z-00-DX1")
    now: dict[str, Any] = {key: {} for key in ("model", "target", "loss", "optimizer", "prepare", "train")}
    now |= {"competition": {"name": "x"}, "seed": 0, "folds": "all", "fold": 0, "instances": {}}
    fresh = {**now, "augment": {"flip": 0.5, "normalise": "none", "reference": None, "copy_paste": 0.0, "mosaic": 0.0}}
    assert identity(fresh) == identity({**now, "augment": {"flip": 0.5}})
    assert identity(fresh) != identity({**now, "augment": {"flip": 0.5, "normalise": "reinhard"}})
    assert identity({**fresh, "train": {"even_strata": 0.0}}) == identity(fresh)
    assert identity({**fresh, "train": {"even_strata": 0.5}}) != identity(fresh)


def test_stain_augmentation_changes_the_stains_and_not_the_tissue() -> None:
    image = stained(PINK)
    augment = ColourAugment(AugmentOptions(stain=1.0))
    results = [augment(image, seed) for seed in range(12)]
    assert np.array_equal(augment(image, 3), results[3]), "a function of the seed"
    assert len({result.tobytes() for result in results}) == 12
    nuclei = amounts()[..., 0] > 0.5
    tissue = (amounts().sum(axis=-1) > 0) & ~nuclei
    shades = [(float(result[nuclei].mean()), float(result[tissue].mean())) for result in results]
    assert all(dark < light for dark, light in shades), "nuclei stay darker than what is around them"
    assert np.ptp([dark for dark, _ in shades]) > 10
    assert max(apart(result[:, :16], image[:, :16]) for result in results) < 12, "bare glass takes up no stain"
    assert ColourAugment(AugmentOptions(stain=0.0))(image, 1) is image
