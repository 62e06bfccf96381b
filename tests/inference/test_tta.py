"""Views: turned and turned back, each different, vectors with them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from histofold.errors import ConfigError
from histofold.inference import tta


@pytest.mark.parametrize(("name", "count"), [("none", 1), ("flips", 4), ("dihedral", 8)])
def test_views_are_distinct_and_invert(name: str, count: int) -> None:
    batch = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).view(2, 3, 4, 4)
    chosen = tta.views(name)
    assert len(chosen) == count
    assert len({tuple(view.apply(batch).flatten().tolist()) for view in chosen}) == count
    for view in chosen:
        assert torch.equal(view.invert(view.apply(batch)), batch)


def test_square_tiles_are_one_batch_and_oblong_ones_two() -> None:
    chosen = tta.views("dihedral")
    assert [tuple(batch.shape) for _, batch in tta.stack(torch.zeros(3, 3, 8, 8), chosen).groups] == [(24, 3, 8, 8)]
    shapes = [tuple(batch.shape) for _, batch in tta.stack(torch.zeros(3, 3, 8, 16), chosen).groups]
    assert shapes == [(12, 3, 8, 16), (12, 3, 16, 8)]


@pytest.mark.parametrize("shape", [(8, 8), (8, 16)])
def test_mean_of_an_equivariant_function_is_that_function(shape: tuple[int, int]) -> None:
    batch = torch.rand(2, 3, *shape)
    stacked = tta.stack(batch, tta.views("dihedral"))
    torch.testing.assert_close(tta.mean(lambda x: F.avg_pool2d(x, 3, 1, 1), stacked), F.avg_pool2d(batch, 3, 1, 1))


def test_mean_averages_what_differs_between_views() -> None:
    batch = torch.rand(1, 1, 4, 4)
    ramp = torch.linspace(0, 1, 4).view(1, 1, 1, 4).expand(1, 1, 4, 4)
    result = tta.mean(lambda x: ramp.expand(len(x), 1, 4, 4), tta.stack(batch, tta.views("flips")))
    torch.testing.assert_close(result, torch.full((1, 1, 4, 4), 0.5))


@pytest.mark.parametrize("shape", [(8, 8), (8, 16)])
@pytest.mark.parametrize(("tiles", "most"), [(1, 1), (1, 3), (1, 5), (1, 7), (2, 4), (3, 1)])
def test_views_in_parts_give_the_mean_of_all_at_once_to_the_bit(shape: tuple[int, int], tiles: int, most: int) -> None:
    stacked = tta.stack(torch.rand(tiles, 3, *shape), tta.views("dihedral"))
    sizes: list[int] = []

    def function(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        assert images.is_contiguous(memory_format=torch.channels_last)
        return gradient(images)

    names = ("foreground", "flow_y", "flow_x")
    assert torch.equal(tta.mean(function, stacked, names, most), tta.mean(gradient, stacked, names))
    assert max(sizes) <= max(most, tiles), "a view of all tiles is the least"
    assert sum(sizes) == 8 * tiles
    groups = len(stacked.groups)
    assert len(sizes) == groups * -(-(8 // groups) // max(1, most // tiles)), "no more passes than it takes"


@pytest.mark.parametrize(("tiles", "most"), [(1, 8), (2, 16), (2, 17), (1, None)])
def test_views_that_fit_are_one_batch(tiles: int, most: int | None) -> None:
    stacked = tta.stack(torch.rand(tiles, 3, 8, 8), tta.views("dihedral"))
    sizes: list[int] = []
    tta.mean(lambda images: sizes.append(len(images)) or images, stacked, most=most)
    assert sizes == [8 * tiles]


def gradient(x: torch.Tensor) -> torch.Tensor:
    """Foreground and the gradient of the first channel: a vector field that turns with the image."""
    padded = F.pad(x[:, :1], (1, 1, 1, 1), mode="replicate")
    along_y = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    along_x = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    return torch.cat([x[:, :1], along_y, along_x], 1)


@pytest.mark.parametrize("shape", [(8, 8), (8, 16)])
@pytest.mark.parametrize("view", tta.views("dihedral"))
def test_vectors_turn_with_the_view(view: tta.View, shape: tuple[int, int]) -> None:
    batch = torch.rand(2, 3, *shape)
    names = ("foreground", "flow_y", "flow_x")
    torch.testing.assert_close(view.invert(gradient(view.apply(batch)), names), gradient(batch))


def test_vectors_survive_the_mean() -> None:
    batch = torch.rand(2, 3, 8, 8)
    stacked = tta.stack(batch, tta.views("dihedral"))
    torch.testing.assert_close(tta.mean(gradient, stacked, ("foreground", "flow_y", "flow_x")), gradient(batch))


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match=r"predict\.tta='rotate'"):
        tta.views("rotate")
