"""The band `spread`: how far views and members disagree, to the digit, on its way to disk and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from histofold.errors import DataError
from histofold.evaluation.oof import MeanBands
from histofold.inference.bandfile import BandFile
from histofold.inference.predict import fingerprint_of, predict_array, predict_sample
from histofold.inference.settings import Settings
from histofold.inference.stream import SPREAD, ArraySource, output_bands
from histofold.targets.base import Band

# One tile holds the image, so that nothing is blended; fp32, so that the numbers can be computed again.
ONE = Settings(tile=48, step=1.0, window="flat", device="cpu", precision="32-true", spread=True)
STEP = 0.5 / 255
"""Of spread's codes."""


def values(codes: NDArray[np.uint8], high: float = 1.0) -> NDArray[np.float64]:
    return codes.astype(np.float64) * high / 255


def test_without_views_and_with_one_member_nothing_disagrees(kit: Any) -> None:
    image, members = kit.tissue(48, 48), [kit.member(kit.WideNet(seed=1))]
    codes = predict_array(image, members, None, ONE)
    assert codes.shape == (2, 48, 48)
    assert codes[1].max() <= 1, "but for the rounding of a square"
    assert np.array_equal(codes[:1], predict_array(image, members, None, replace(ONE, spread=False)))


def test_it_is_the_standard_deviation_over_views_and_weighted_members(kit: Any) -> None:
    image = kit.tissue(48, 48, 3)
    networks = [kit.WideNet(seed=seed) for seed in (1, 2)]
    weights = np.array([0.25, 0.75])
    codes = predict_array(
        image, [kit.member(network) for network in networks], weights.tolist(), replace(ONE, tta="flips")
    )
    plain = replace(ONE, spread=False)
    seen, shares = [], []
    for network, weight in zip(networks, weights, strict=True):
        for axes in ((), (0,), (1,), (0, 1)):
            turned = np.ascontiguousarray(np.flip(image, axes))
            one = predict_array(turned, [kit.member(network)], None, plain)[0]
            seen.append(values(np.flip(one, axes)))
            shares.append(weight / 4)
    mean = np.average(seen, axis=0, weights=shares)
    expected = np.sqrt(np.average((np.stack(seen) - mean) ** 2, axis=0, weights=shares))
    assert expected.max() > 0.05
    assert values(codes[0]) == pytest.approx(mean, abs=1 / 255)
    assert values(codes[1], 0.5) == pytest.approx(expected, abs=STEP + 1 / 255)


def test_bands_of_all_kinds_keep_their_places(kit: Any) -> None:
    members = [kit.member(kit.WideNet(outputs=3, seed=4), Band("foreground"), Band("flow_y", -1), Band("flow_x", -1))]
    image = kit.tissue(48, 48)
    both = predict_array(image, members, None, replace(ONE, tta="dihedral"))
    assert [band.name for band in output_bands(members, ONE)] == ["foreground", "flow_y", "flow_x", "spread"]
    assert np.array_equal(both[:3], predict_array(image, members, None, replace(ONE, tta="dihedral", spread=False)))
    with pytest.raises(DataError, match="foreground"):
        output_bands([kit.member(kit.WideNet(), Band("other"))], ONE)


def test_files_of_several_runs_give_the_spread_over_all_of_them(kit: Any, tmp_path: Path) -> None:
    image, paths = kit.tissue(48, 48, 5), []
    networks = [kit.WideNet(seed=1), kit.PixelNet()]
    views = replace(ONE, tta="flips")
    for number, network in enumerate(networks):
        paths.append(tmp_path / f"{number}.tif")
        predict_sample(ArraySource(image), [kit.member(network)], None, views, paths[-1])
        with BandFile(paths[-1]) as file:
            assert [(band.name, band.high) for band in file.bands] == [("foreground", 1.0), (SPREAD.name, 0.5)]
    together = predict_array(image, [kit.member(network) for network in networks], [0.4, 0.6], views)
    mixed = MeanBands(tuple(paths), (0.4, 0.6), ("foreground", "spread"))()
    assert mixed["foreground"] == pytest.approx(values(together[0]), abs=1 / 255)
    assert mixed["spread"] == pytest.approx(values(together[1], 0.5), abs=0.012)
    alone = MeanBands(tuple(paths[:1]), (1.0,), ("foreground", "spread"))()
    assert mixed["spread"].mean() > alone["spread"].mean() + 0.02, "the runs disagree among each other, too"
    assert set(MeanBands(tuple(paths), (0.4, 0.6), ("foreground",))()) == {"foreground"}


def test_predictions_from_before_there_was_one_are_still_known() -> None:
    assert fingerprint_of(["a"], [1.0], replace(ONE, spread=False)) != fingerprint_of(["a"], [1.0], ONE)
