"""What all decoders promise: separation, no overlap, invariance, odd shapes, and clear refusals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from histofold import instances, metrics, targets
from histofold.connected import parts
from histofold.errors import ConfigError, DataError
from histofold.inference.bandfile import BandFile, BandFileWriter, quantise
from histofold.instances.secondlevel import SecondLevel

CONFIGS = Path(__file__).parents[2] / "configs" / "instances"
Labels = NDArray[np.int32]
Case = tuple[targets.Target, dict[str, Any]]
Perfect = Callable[[targets.Target, NDArray[Any]], dict[str, NDArray[np.float32]]]
DIHEDRAL = [(turns, flip) for turns in range(4) for flip in (False, True)]
FLOORS = {
    "threshold": 0.2,  # touching nuclei stay one
    "components": 0.9,  # the outlines of thin slivers
    "components-fullnet": 0.75,  # two erosions
    "hminima": 0.75,  # cut discs have several depths
    "hminima-image": 0.35,  # small nuclei beside large ones fall below the level
    "watershed_distance-border": 0.9,
}
"""Least Kaggle metric of a round trip of touching and cut discs, where it is not .95."""
LOOSE = {"core": 0.3, "threshold": 0.55}
"""Cores that reach beyond the foreground, for decoders that have both."""


def _check(labels: Labels, shape: tuple[int, ...]) -> None:
    assert labels.dtype == np.int32
    assert labels.shape == shape
    assert set(np.unique(labels)) | {0} == set(range(labels.max() + 1)), "1..n without gaps"
    assert len(parts(labels)[1]) == labels.max() + 1, "every instance is connected"


def _round_trip(case: Case, perfect: Perfect, labels: NDArray[Any], **options: Any) -> Labels:
    target, settings = case
    return instances.build(**{"min_size": 0, **settings, **options})(perfect(target, labels))


def test_a_round_trip_gives_the_instances_back(
    case: Case, perfect: Perfect, nuclei: Callable[..., Labels], request: pytest.FixtureRequest
) -> None:
    scores = []
    for seed in range(6):
        labels = nuclei(seed)
        found = _round_trip(case, perfect, labels)
        _check(found, labels.shape)
        scores.append(metrics.dsb(labels, found))
    assert np.mean(scores) >= FLOORS.get(request.node.callspec.params["case"], 0.95)


def test_order_of_the_labels_does_not_matter(case: Case, perfect: Perfect, nuclei: Callable[..., Labels]) -> None:
    labels = nuclei(7)
    table = np.concatenate([[0], np.random.default_rng(0).permutation(labels.max()) + 1])
    assert np.array_equal(_round_trip(case, perfect, labels), _round_trip(case, perfect, table[labels]))


@pytest.mark.parametrize(("turns", "flip"), DIHEDRAL[1:])
def test_turned_bands_give_turned_instances_up_to_ties(
    case: Case, perfect: Perfect, nuclei: Callable[..., Labels], turns: int, flip: bool
) -> None:
    def view(array: NDArray[Any]) -> NDArray[Any]:
        turned = np.rot90(array, turns)
        return np.ascontiguousarray(turned[:, ::-1] if flip else turned)

    target, settings = case
    decoder = instances.build(**{"min_size": 0, **settings})
    # Smooth noise leaves few equal levels next to each other: ties are where views may differ.
    rng = np.random.default_rng(1)
    bands = {
        name: (band * rng.uniform(0.9, 1, band.shape)).astype(np.float32)
        for name, band in perfect(target, nuclei(8)).items()
    }
    seen = {name: view(band) for name, band in bands.items()}
    if target.name == "flow":
        y, x = seen["flow_y"], seen["flow_x"]
        for _ in range(turns):
            y, x = -x, y
        seen |= {"flow_y": y, "flow_x": -x if flip else x}
    expected, found = view(decoder(bands)), decoder(seen)
    assert np.array_equal(expected > 0, found > 0)
    assert expected.max() == found.max()
    table = metrics.contingency(expected, found)
    assert metrics.match(table, 0.8).f1 == 1
    assert table.overlaps.sum() - table.overlaps[table.best_for_truth(table.overlaps)].sum() < 0.01 * expected.size


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (8, 1), (40, 40)])
def test_empty_and_full_images(case: Case, perfect: Perfect, size: tuple[int, int]) -> None:
    empty = _round_trip(case, perfect, np.zeros(size, np.int32))
    _check(empty, size)
    assert empty.max() == 0
    full = _round_trip(case, perfect, np.ones(size, np.int32))
    assert (full == 1).all()


def test_one_pixel_border_touching_and_holey_instances(case: Case, perfect: Perfect) -> None:
    labels = np.zeros((60, 60), np.int32)
    labels[0:14, 0:14] = 1  # in the corner
    labels[20:40, 48:60] = 2  # at the edge
    labels[20:40, 10:30] = 3
    labels[25:29, 15:19] = 0  # a hole
    labels[50:60, 20:40] = 4
    found = _round_trip(case, perfect, labels)
    filled = labels.copy()
    filled[25:29, 15:19] = 3
    table = metrics.contingency(filled, found)
    assert found.max() == 4
    assert metrics.match(table, 0.6).f1 == 1
    assert (found[25:29, 15:19] > 0).all(), "the hole is filled"
    open_hole = _round_trip(case, perfect, labels, max_hole=15)
    assert (open_hole[26:28, 16:18] == 0).all(), "a hole of 16 pixels is larger than 15"


def test_single_pixels_are_found_where_nothing_was_eroded(case: Case, perfect: Perfect) -> None:
    labels = np.zeros((20, 20), np.int32)
    labels[5, 5], labels[0, 0], labels[19, 10] = 1, 2, 3
    found = _round_trip(case, perfect, labels)
    if getattr(case[0], "form", "") == "fullnet":
        assert found.max() == 0, "two erosions leave nothing of a pixel"
    else:
        assert found.max() == 3
        assert all(found[at] > 0 for at in ((5, 5), (0, 0), (19, 10)))


def test_small_instances_are_dropped(case: Case, perfect: Perfect) -> None:
    labels = np.zeros((40, 40), np.int32)
    labels[2:7, 2:7], labels[20:35, 20:35] = 1, 2
    assert _round_trip(case, perfect, labels, min_size=60).max() == 1
    assert _round_trip(case, perfect, labels, min_size=1000).max() == 0


def test_more_instances_than_uint16_holds() -> None:
    foreground = np.zeros((600, 600), np.float32)
    foreground[::2, ::2] = 1  # 90,000 single pixels
    bands = {"foreground": foreground, "border": np.zeros_like(foreground), "distance": foreground}
    for settings in ({"name": "threshold"}, {"name": "watershed"}, {"name": "watershed_distance"}, {"name": "hminima"}):
        found = instances.build(min_size=0, **settings)(bands)
        assert found.max() == 90_000
        assert len(np.unique(found)) == 90_001


def test_near_constant_noise_gives_no_nuclei(case: Case) -> None:
    """A stretch of each image to its own range would give 5 % foreground here."""
    rng = np.random.default_rng(0)
    target, settings = case
    tops = {band.name: band.relative.high for band in target.bands}
    bands = {name: rng.normal(0.02 * top, 0.002, (64, 64)).astype(np.float32) for name, top in tops.items()}
    assert instances.build(**settings)(bands).max() == 0


def test_fortran_order_and_other_floats_are_welcome(
    case: Case, perfect: Perfect, nuclei: Callable[..., Labels]
) -> None:
    target, settings = case
    bands = perfect(target, nuclei(9))
    decoder = instances.build(**settings)
    other = {name: np.asfortranarray(band.astype(np.float64)) for name, band in bands.items()}
    assert np.array_equal(decoder(bands), decoder(other))


def test_decoding_leaves_the_bands_as_they_were(case: Case, perfect: Perfect, nuclei: Callable[..., Labels]) -> None:
    target, settings = case
    bands = perfect(target, nuclei(10))
    copies = {name: band.copy() for name, band in bands.items()}
    instances.build(**settings)(bands)
    assert all(np.array_equal(bands[name], copies[name]) for name in bands)


def test_a_missing_band_is_named() -> None:
    with pytest.raises(DataError, match="`border` is needed, found foreground"):
        instances.build("watershed")({"foreground": np.zeros((4, 4), np.float32)})


def test_bands_of_different_sizes_are_refused() -> None:
    with pytest.raises(DataError, match=r"\(4, 4\), \(4, 5\)"):
        instances.build("watershed")({"foreground": np.zeros((4, 4)), "border": np.zeros((4, 5))})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("stardist", {}, "instances=stardist: unknown; expected one of components"),
        ("watershed", {"thresh": 0.5}, "instances.thresh=0.5.*no such option.*threshold"),
        ("watershed", {"threshold": 1.5}, "expected 0 to 1"),
        ("watershed", {"min_size": -1}, "0 or more pixels"),
        ("watershed_distance", {"relative": 1.5}, "instances.relative=1.5.*0 to 1"),
        ("components", {"rule": "max"}, "threshold or argmax"),
        ("components", {"collision": "first"}, "nearest or higher"),
        ("components", {"dilation": 2.5}, "expected int, found float"),
        ("hminima", {"depth": 0}, "1 to 255"),
        ("hminima", {"top": 0, "depth": 0}, "depth=0"),  # `top`, of an earlier version, is nothing to complain of
        ("watershed", {"top": 1.0}, "no such option"),
        ("none", {"min_size": 3}, "no such option"),
    ],
)
def test_wrong_settings_are_one_clear_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        instances.build(name, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_config_builds_and_lists_every_option(path: Path) -> None:
    settings = yaml.safe_load(path.read_text())
    if path.stem == "auto":
        assert settings == {"name": "auto"}
        return
    name = settings.pop("name")
    assert set(settings) == set(instances.options(name))
    built = instances.build(name, **settings)
    if path.stem == name:
        assert built == instances.build(name), "the YAML's defaults are those of the class"


def test_every_decoder_has_a_config_and_a_grid_that_builds() -> None:
    assert set(instances.names()) <= {path.stem for path in CONFIGS.glob("*.yaml")}
    for name in instances.names():
        settings = instances.grid(name)
        assert len(settings) == len({repr(setting) for setting in settings}) > 1
        for setting in settings:
            instances.build(name, **setting)


def test_the_borders_weight_is_tuned_where_there_is_a_border() -> None:
    plain = instances.grid("watershed_distance", ("foreground", "distance"))
    more = instances.grid("watershed_distance", ("foreground", "border", "distance"))
    assert not any("border_weight" in setting for setting in plain)
    assert {setting["border_weight"] for setting in more} == {0.0, 0.5}
    assert [dict(setting, border_weight=0.0) for setting in plain] == [
        setting for setting in more if setting["border_weight"] == 0
    ]
    assert len(more) <= 1.5 * len(plain)
    for setting in more:
        instances.build("watershed_distance", **setting)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("foreground", "threshold"),
        ("ternary", "watershed_inside"),
        ("border", "watershed"),
        ("distance", "watershed_distance"),
        ("border_distance", "watershed_distance"),
    ],
)
def test_auto_takes_what_suits_the_bands(target: str, expected: str) -> None:
    bands = [band.name for band in targets.build(target).bands]
    assert instances.default_for(bands) == expected
    assert instances.resolve({"name": "auto"}, bands) == instances.build(expected)
    assert set(instances.build(expected).needs) <= set(bands)
    chosen = instances.resolve({"name": "none", "threshold": 0.3}, bands)
    assert chosen == instances.build("none", threshold=0.3)


@pytest.mark.parametrize("smooth", [0, 3])
def test_every_instance_is_connected_whatever_a_network_gives(case: Case, smooth: int) -> None:
    target, settings = case
    rng = np.random.default_rng(0)

    def smoothed(low: float, high: float) -> NDArray[np.float32]:
        noise = cv2.GaussianBlur(rng.random((96, 96)).astype(np.float32), (0, 0), 2.5)
        return (low + (noise - noise.min()) / np.ptp(noise) * (high - low)).astype(np.float32)

    for _ in range(6):
        bands = {band.name: smoothed(band.relative.low, band.relative.high) for band in target.bands}
        known = {key: value for key, value in LOOSE.items() if key in instances.options(settings["name"])}
        _check(instances.build(**{**settings, **known, "smooth": smooth, "min_size": 0})(bands), (96, 96))


@pytest.mark.parametrize("name", ["watershed", "watershed_inside", "watershed_distance"])
def test_a_core_that_reaches_beyond_the_foreground_joins_nothing(name: str) -> None:
    """A bridge of .45 makes one core of two nuclei at core .4, but they are apart in the foreground at .6."""
    level = np.full((20, 40), 0.05, np.float32)
    level[5:15, 5:15] = level[5:15, 22:32] = 0.9
    level[9:11, 15:22] = 0.45
    bands = {"foreground": level, "border": np.zeros_like(level), "inside": level, "distance": level}
    found = instances.build(name, core=0.4, threshold=0.6)(bands)
    assert found.max() == 2
    assert found[10, 10] != found[10, 25]
    level[9:11, 32:34] = 0.45
    level[7:10, 34:37] = 0.9  # a part of nine pixels on the same core
    assert instances.build(name, core=0.4, threshold=0.6, min_size=9)(bands).max() == 3
    assert instances.build(name, core=0.4, threshold=0.6, min_size=10)(bands).max() == 2, "parts are dropped by size"


def test_smoothing_may_cut_a_neck_and_leaves_two_instances() -> None:
    foreground = np.zeros((20, 40), np.float32)
    foreground[5:15, 5:15] = foreground[5:15, 22:32] = foreground[9, 15:22] = 1
    assert instances.build("threshold")({"foreground": foreground}).max() == 1
    assert instances.build("threshold", smooth=2)({"foreground": foreground}).max() == 2


@pytest.mark.parametrize("decoder", ["auto", "hminima"])
@pytest.mark.parametrize("scale", ["instance", "image"])
def test_nuclei_that_touch_come_apart_in_whatever_units_the_distance_was_learned(
    tmp_path: Path, decoder: str, scale: str
) -> None:
    y, x = np.mgrid[:64, :96]
    labels = (np.hypot(y - 32, x - 30) <= 15).astype(np.int32)
    labels[(np.hypot(y - 32, x - 56) <= 15) & (x >= 43)] = 2
    target = targets.build("distance", scale=scale, activation="relu")
    raw = torch.from_numpy(target.encode(labels))[None]
    maps = target.to_bands(raw)[0].numpy()
    codes = np.stack([quantise(value, band) for value, band in zip(maps, target.bands, strict=True)])
    with BandFileWriter(tmp_path / "a.tif", target.bands, 64, 96) as writer:
        writer.write_rows(0, codes)
    with BandFile(tmp_path / "a.tif") as file:
        bands = file.read()
    assert bands["distance"].max() == 1
    found = instances.resolve({"name": decoder}, list(bands))(bands)
    assert found.max() == 2
    assert metrics.dsb(labels, found) >= 0.7


def test_saved_settings_may_still_name_the_top() -> None:
    for name in ("watershed_distance", "hminima"):
        for top in (1.0, 255.0):
            assert instances.resolve({"name": name, "top": top}, ()) == instances.build(name)


def test_a_second_level_that_learned_distances_of_0_to_255_is_refused(tmp_path: Path) -> None:
    values = {"format": 1, "decoders": [{"name": "hminima", "top": 255.0}], "bands": ["distance"], "level": 0.5}
    (tmp_path / "a.json").write_text(json.dumps({**values, "trees": {}}))
    with pytest.raises(DataError, match=r"distance as 0\.\.255.*run evaluate again"):
        SecondLevel.read(tmp_path / "a.json")


@pytest.mark.parametrize("options", [{}, {"level": 16, "depth": 60}, {"lines": True}])
def test_h_minima_keep_a_faint_nucleus_whatever_lies_elsewhere(options: dict[str, Any]) -> None:
    y, x = np.mgrid[:60, :200]

    def cone(column: int, top: float) -> NDArray[np.float32]:
        return (np.clip(1 - np.hypot(y - 30, x - column) / 15, 0, 1) * top).astype(np.float32)

    decoder = instances.build("hminima", **options)
    for top in (0.15, 0.2, 0.23, 0.5):
        alone = decoder({"distance": cone(30, top)})
        beside = decoder({"distance": cone(30, top) + cone(150, 1.0)})
        assert (alone[:, :90] > 0).sum() > 20
        assert np.array_equal(alone[:, :90] > 0, beside[:, :90] > 0)
        assert (alone.max(), beside.max()) == (1, 2)


@pytest.mark.parametrize("name", ["watershed", "watershed_inside", "watershed_distance"])
def test_each_instance_has_an_outline_of_its_own_height(name: str) -> None:
    """A sure and a faint cone, cut at .39 of their own heights: one width, which no single threshold gives both."""
    y, x = np.indices((60, 120)).astype(np.float32)
    cones = [np.clip(1 - np.hypot(y - 30, x - at) / 25, 0, 1) * height for at, height in ((30, 1.0), (90, 0.5))]
    cone = np.maximum(*cones).astype(np.float32)
    bands = {"foreground": cone, "distance": cone, "inside": cone, "border": np.zeros_like(cone)}
    settings = {"core": 0.3, "min_size": 0}

    def widths(**options: float) -> list[int]:
        labels = instances.build(name, **settings, **options)(bands)
        return [int((labels[30] == label).sum()) for label in range(1, labels.max() + 1)]

    assert widths(threshold=0.15, relative=0.39) == [31, 31]
    assert widths(threshold=0.15) == [43, 35]
    assert widths(threshold=0.39) == [31, 11]
    assert widths(threshold=0.39, relative=0.39) == [31, 11], "the threshold stays"


def test_what_a_cut_leaves_of_an_instance_is_connected() -> None:
    foreground = np.full((9, 30), 0.2, np.float32)
    foreground[2:7, 2:10], foreground[2:7, 20:28] = 0.9, 0.8
    bands = {"foreground": foreground, "distance": np.where(foreground > 0.85, 1, 0.1).astype(np.float32)}
    labels = instances.build("watershed_distance", threshold=0.1, relative=0.5, core=0.5, min_size=0)(bands)
    _check(labels, foreground.shape)
    assert labels.max() == 2
