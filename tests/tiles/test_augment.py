from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histofold import targets
from histofold.tiles.augment import AugmentOptions, ColourAugment, _sampled, beyond, draw_crop, is_exact, warp

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
    pure = (pixels[..., 0] == 0) | (pixels[..., 0] == 255)
    agree = (truth + beyond(labels, matrix, crop) > 0) == (pixels[..., 0] == 255)
    for where in (pure & (valid > 0), pure & (valid == 0)):
        assert agree[where].mean() > 0.97 if where.sum() > 100 else True


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


def test_labels_of_every_width_come_from_the_same_pixels() -> None:
    places = np.mgrid[:250, :250] + 1
    for seed in range(50):
        matrix = draw_crop(STRONG, np.random.default_rng(seed), 250, 250, 128)
        for place in places:
            narrow, middle, wide = (_sampled(place.astype(kind), matrix, 128) for kind in ("uint8", "uint16", "uint32"))
            assert np.array_equal(narrow, middle)
            assert np.array_equal(middle, wide)
            far = _sampled((place * 300_007).astype(np.uint32), matrix, 128)
            assert np.array_equal(far, wide * np.uint32(300_007)), "more than 16 bits"
        # What warp gives are these pixels, but on a tie, and `valid` comes from the same ones.
        image, down = np.zeros((250, 250, 3), np.uint8), places[0].astype(np.uint16)
        _, rows, valid = warp(image, down, matrix, 128, instances=False)
        exact = matrix[1] @ np.stack([*np.mgrid[:128, :128][::-1].reshape(2, -1), np.ones(128 * 128)])
        assert (np.abs(rows.ravel() - 1 - exact) <= 0.51)[rows.ravel() > 0].all()
        assert np.array_equal(rows > 0, valid > 0)


def test_a_crop_beside_the_image_holds_nothing_real() -> None:
    matrix = np.array([[1.1, 0.0, 500.0], [0.0, 1.1, -700.0]])
    _, truth, valid = warp(np.zeros((40, 50, 3), np.uint8), np.ones((40, 50), np.uint8), matrix, 32)
    assert not truth.any()
    assert not valid.any()


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(-90, 90), st.integers(-90, 90))
def test_mirrored_labels_lie_where_mirrored_pixels_do(height: int, width: int, y: int, x: int) -> None:
    labels = np.arange(height * width, dtype=np.uint32).reshape(height, width)
    image = np.stack([labels & 0xFF, labels >> 8, labels * 0], axis=-1).astype(np.uint8)
    for turn in (np.eye(2), np.array([[0.0, -1.0], [1.0, 0.0]]), np.diag([-1.0, 1.0])):
        matrix = np.column_stack([turn, [x, y]])
        pixels, truth, _ = warp(image, labels, matrix, 48)
        truth += beyond(labels, matrix, 48)
        assert np.array_equal(pixels[..., 0] + 256 * pixels[..., 1].astype(np.int32), truth)


@pytest.mark.parametrize("name", ["foreground", "ternary", "border", "distance", "border_distance", "flow"])
def test_the_truth_at_the_edge_of_the_image_does_not_depend_on_the_crop(name: str) -> None:
    # A nucleus that the image's edge cuts was outlined there where the crop went on, and was not where it ended, too.
    y, x = np.mgrid[:64, :96]
    labels = (((y - 45) ** 2 + (x - 94) ** 2) < 15**2).astype(np.uint16)
    # Two that touch, wholly within the image and so near to its edge that one of the crops shows them mirrored, too.
    for number, row in ((2, 7), (3, 21)):
        labels[((y - row) ** 2 + (x - 86) ** 2) <= 7**2] = number
    image = np.zeros((64, 96, 3), np.uint8)
    target = targets.build(name)
    truth = []
    for left in (32, 48):
        matrix = np.array([[1.0, 0.0, left], [0.0, 1.0, 0.0]])
        _, found, _ = warp(image, labels, matrix, 64)
        at = np.asarray(target.encode_crop(found, beyond(labels, matrix, 64)))
        truth.append(at[..., 16 : 96 - left] if left == 32 else at[..., : 96 - left])
    np.testing.assert_allclose(truth[0], truth[1], atol=1e-6)


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
