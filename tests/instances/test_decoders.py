"""What all decoders promise: separation, no overlap, invariance, odd shapes, and clear refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from histofold import instances, metrics, targets
from histofold.errors import ConfigError, DataError

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


def _check(labels: Labels, shape: tuple[int, ...]) -> None:
    assert labels.dtype == np.int32
    assert labels.shape == shape
    assert set(np.unique(labels)) | {0} == set(range(labels.max() + 1)), "1..n without gaps"


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
    bands = {band.name: rng.normal(0.02 * band.high, 0.002, (64, 64)).astype(np.float32) for band in target.bands}
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
        ("components", {"rule": "max"}, "threshold or argmax"),
        ("components", {"collision": "first"}, "nearest or higher"),
        ("components", {"dilation": 2.5}, "expected int, found float"),
        ("hminima", {"depth": 0}, "1 to 255"),
        ("hminima", {"top": 0}, "above 0"),
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
