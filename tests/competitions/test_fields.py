"""Kinds of images and shared fields of view, from pixels alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from histofold.competitions import fields
from histofold.sample import texture

Pixels = NDArray[np.uint8]


def picture(seed: int, height: int = 96, width: int = 128) -> Pixels:
    rng = np.random.default_rng(seed)
    grey = 40 + 30 * texture.clouds(rng, height, width, 14, 2) + texture.grain(rng, height, width, 1)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def groups(tmp_path: Path, png: Any, pictures: dict[str, Pixels]) -> dict[str, str]:
    paths = {key: png(tmp_path / f"{key}.png", pixels) for key, pixels in pictures.items()}
    return {key: view.group for key, view in fields.look(paths).items()}


def test_four_tiles_of_a_field_share_a_group(tmp_path: Path, png: Any) -> None:
    one, two = picture(1), picture(2)
    tiles = {f"one{i}{j}": one[48 * i : 48 * i + 48, 64 * j : 64 * j + 64] for i in (0, 1) for j in (0, 1)}
    tiles |= {f"two{i}{j}": two[48 * i : 48 * i + 48, 64 * j : 64 * j + 64] for i in (0, 1) for j in (0, 1)}
    tiles["alone"] = picture(3, 48, 64)
    found = groups(tmp_path, png, tiles)
    assert found == {key: "alone" if key == "alone" else f"{key[:3]}00" for key in tiles}


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_turned_flipped_scaled_and_rebrightened_copies(tmp_path: Path, png: Any, turns: int) -> None:
    original = picture(4, 96, 96)
    copy = np.rot90(original[:, ::-1], turns).astype(np.float32) * 1.7 + 10
    small = original.reshape(48, 2, 48, 2, 3).mean(axis=(1, 3))
    pictures = {
        "a": original,
        "b": np.clip(copy, 0, 255).astype(np.uint8),
        "c": small.astype(np.uint8),
        "d": picture(5, 96, 96),
    }
    assert groups(tmp_path, png, pictures) == {"a": "a", "b": "a", "c": "a", "d": "d"}


def test_flat_dark_images_are_not_joined(tmp_path: Path, png: Any) -> None:
    rng = np.random.default_rng(0)
    dark = {f"i{n}": np.repeat(rng.integers(0, 2, (64, 64, 1)).astype(np.uint8), 3, axis=2) for n in range(6)}
    dark["zero"] = np.zeros((64, 64, 3), np.uint8)
    dark["zero2"] = np.zeros((64, 64, 3), np.uint8)
    found = groups(tmp_path, png, dark)
    assert all(group == key for key, group in found.items())


def test_odd_and_tiny_sizes(tmp_path: Path, png: Any) -> None:
    shapes = [(1, 1), (1, 1), (1, 7), (2, 2), (2, 2), (33, 1)]
    pictures = {f"p{n}": np.full((*shape, 3), 30 * n, np.uint8) for n, shape in enumerate(shapes)}
    found = groups(tmp_path, png, pictures)
    assert set(found) == set(pictures)


def test_join_can_be_switched_off(tmp_path: Path, png: Any) -> None:
    paths = {key: png(tmp_path / f"{key}.png", picture(1)) for key in "ab"}
    assert {view.group for view in fields.look(paths).values()} == {"a"}
    assert {view.group for view in fields.look(paths, join=False).values()} == {"a", "b"}


@pytest.mark.parametrize(
    ("colour", "kind"),
    [
        ((12, 12, 12), "fluorescence"),
        ((10, 40, 5), "fluorescence"),
        ((226, 226, 226), "brightfield"),
        ((190, 160, 210), "histology"),
        ((225, 225, 190), "histology"),
    ],
)
def test_kinds(colour: tuple[int, int, int], kind: str) -> None:
    assert fields.kind_of(np.tile(np.array(colour, np.uint8), (8, 8, 1))) == kind
