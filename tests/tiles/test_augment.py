from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histofold.tiles.augment import AugmentOptions, ColourAugment, draw_crop, is_exact, warp

STRONG = AugmentOptions(rotate=180, scale=(0.5, 2.0), shear=10)


def picture(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    labels = np.zeros((height, width), np.uint16)
    for number in range(1, 8):
        y, x = random.integers(0, height), random.integers(0, width)
        labels[y : y + 9, x : x + 9] = number
    return image, labels


def test_flips_and_quarter_turns_move_pixels_and_change_none() -> None:
    image, labels = picture(64, 64)
    options = AugmentOptions()
    seen = set()
    for seed in range(40):
        matrix = draw_crop(options, np.random.default_rng(seed), 64, 64, 64)
        assert is_exact(matrix)
        pixels, truth, valid = warp(image, labels, matrix, 64)
        assert valid.all()
        matches = [
            (turns, mirror)
            for turns in range(4)
            for mirror in (False, True)
            if np.array_equal(pixels, np.rot90(image[:, ::-1] if mirror else image, turns))
            and np.array_equal(truth, np.rot90(labels[:, ::-1] if mirror else labels, turns))
        ]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) == 8


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(20, 150), st.integers(20, 150), st.sampled_from([32, 64, 96]))
def test_labels_follow_the_image_and_padding_carries_none(seed: int, height: int, width: int, crop: int) -> None:
    image, labels = picture(height, width, seed)
    image[..., 0] = np.where(labels > 0, 255, 0)
    matrix = draw_crop(STRONG, np.random.default_rng(seed), height, width, crop)
    pixels, truth, valid = warp(image, labels, matrix, crop)
    assert pixels.shape == (crop, crop, 3)
    assert set(np.unique(truth)) <= set(np.unique(labels))
    assert not truth[valid == 0].any()
    # Away from edges, where interpolation blends, the red channel says exactly where labels are.
    inner = (valid > 0) & ((pixels[..., 0] == 0) | (pixels[..., 0] == 255))
    agree = (truth > 0) == (pixels[..., 0] == 255)
    assert agree[inner].mean() > 0.97 if inner.any() else True


def test_corners_are_mirrored_tissue_and_not_the_opposite_side() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = 200
    matrix = draw_crop(AugmentOptions(flip=0, quarter=False, scale=(0.5, 0.5)), np.random.default_rng(0), 64, 64, 64)
    pixels, _, valid = warp(image, np.zeros((64, 64), np.uint16), matrix, 64)
    columns = np.flatnonzero(valid.any(axis=0))
    left = pixels[:, max(0, columns[0] - 4) : columns[0], 0]
    assert (left == 0).all()  # wrapping around would show the bright half here


def test_more_than_65535_labels_survive() -> None:
    labels = np.arange(300 * 300, dtype=np.uint32).reshape(300, 300)
    matrix = draw_crop(AugmentOptions(flip=0, quarter=False), np.random.default_rng(0), 300, 300, 300)
    _, truth, _ = warp(np.zeros((300, 300, 3), np.uint8), labels, matrix, 300)
    assert np.array_equal(truth, labels)


def test_colour_is_a_function_of_the_seed() -> None:
    image, _ = picture(48, 48)
    colour = ColourAugment(AugmentOptions(light=1, colour=1, noise=1, blur=0.5, invert=0.5, shuffle=0.5, grey=0.5))
    results = [colour(image, seed) for seed in range(6)]
    assert len({result.tobytes() for result in results}) == 6
    again = ColourAugment(AugmentOptions(light=1, colour=1, noise=1, blur=0.5, invert=0.5, shuffle=0.5, grey=0.5))
    assert np.array_equal(again(image, 4), results[4])
    assert np.array_equal(colour(image, 4), results[4])


def test_noise_is_as_small_as_the_originals_and_has_mean_zero() -> None:
    image = np.full((256, 256, 3), 128, np.uint8)
    noisy = ColourAugment(AugmentOptions(noise=1.0))(image, 1).astype(float) - 128
    assert abs(noisy.mean()) < 0.2
    assert 0.012 * 255 * 0.9 < noisy.std() < 0.028 * 255 * 1.1


def test_none_changes_nothing() -> None:
    image, _ = picture(32, 32)
    assert ColourAugment(AugmentOptions())(image, 1) is image


@pytest.mark.parametrize("crop", [32, 64])
def test_a_crop_lies_inside_where_it_fits(crop: int) -> None:
    options = AugmentOptions()
    for seed in range(50):
        matrix = draw_crop(options, np.random.default_rng(seed), 80, 70, crop)
        _, _, valid = warp(np.zeros((80, 70, 3), np.uint8), np.zeros((80, 70), np.uint8), matrix, crop)
        assert valid.all()
