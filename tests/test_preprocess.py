from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from histofold.preprocess import GAIN, Preprocess, stretched


def picture(low: int, high: int) -> np.ndarray:
    ramp = np.linspace(low, high, 64 * 64).reshape(64, 64)
    return np.repeat(np.rint(ramp).astype(np.uint8)[..., None], 3, axis=2)


def test_a_dim_image_fills_the_range_and_a_full_one_stays() -> None:
    dim = stretched(picture(3, 60), 0.1)
    assert dim.min() == 0
    assert dim.max() == 255
    full = picture(0, 255)
    assert np.abs(stretched(full, 0.1).astype(int) - full).max() <= 1


def test_an_empty_images_noise_is_not_blown_up_to_tissue() -> None:
    image = np.random.default_rng(0).integers(10, 14, (64, 64, 3), dtype=np.uint8)
    assert stretched(image, 0.1).max() <= 3 * GAIN


def test_a_constant_image_stays_defined() -> None:
    assert not stretched(np.full((8, 8, 3), 77, np.uint8), 0.1).any()


@given(st.integers(0, 255), st.integers(0, 255))
def test_stretching_keeps_the_order_of_values(one: int, other: int) -> None:
    image = np.full((10, 10, 3), one, np.uint8)
    image[5:] = other
    result = stretched(image, 1.0)
    assert (one <= other) == (int(result[0, 0, 0]) <= int(result[9, 9, 0])) or one == other


def test_preprocessing_is_deterministic_and_survives_a_checkpoint() -> None:
    """Trap S4: the original drew CLAHE's clip limit anew at each call, also in validation."""
    image = np.random.default_rng(1).integers(0, 90, (96, 80, 3), dtype=np.uint8)
    preprocess = Preprocess(stretch=0.1, clahe=2.0)
    again = Preprocess.from_dict(preprocess.to_dict())
    assert again == preprocess
    assert np.array_equal(preprocess.pixels(image), again.pixels(image))
    assert not np.array_equal(preprocess.pixels(image), image)
    assert Preprocess().pixels(image) is image


def test_normalise_gives_zero_mean_and_unit_spread() -> None:
    preprocess = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    batch = torch.tensor([0, 127.5, 255]).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    assert torch.allclose(preprocess.normalise(batch), torch.tensor([-2.0, 0.0, 2.0]).expand(1, 3, 1, 3))
    assert preprocess.normalise(batch.to(torch.uint8)).dtype == torch.float32


def test_a_checkpoint_says_whether_images_were_seen_whole() -> None:
    for whole in (True, False):
        assert Preprocess.from_dict(Preprocess(clahe=2.0, whole=whole).to_dict()).whole is whole
    older = Preprocess(clahe=2.0).to_dict()
    del older["whole"]
    assert Preprocess.from_dict(older).whole is None
    # Slides were never stain-normalised, so these were images.
    assert Preprocess.from_dict({**older, "stain_method": "reinhard", "stain_numbers": [0.0] * 6}).whole is True
    same = {Preprocess(clahe=2.0, whole=whole).enhancement for whole in (True, False, None)}
    assert len(same) == 1, "members that differ in nothing else share the work"


def test_a_mean_of_whole_numbers_is_no_reason_to_compute_with_them() -> None:
    """Recipes of the originals say mean=[0,0,0], which YAML reads as integers."""
    batch = torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4)
    found = Preprocess(mean=(0, 0, 0), std=(1, 1, 1)).normalise(batch)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, batch.float() / 255)
    halves = batch.float() + 0.5
    kept = halves.clone()
    Preprocess().normalise(halves)
    assert torch.equal(halves, kept), "what is given stays as it is"
