"""What all targets promise: shapes, types, ranges, foreground first, equivariance, and clear refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from histofold import targets
from histofold.errors import ConfigError, DataError

CONFIGS = Path(__file__).parents[2] / "configs" / "target"
VARIANTS: list[dict[str, Any]] = [
    {"name": "foreground"},
    {"name": "ternary"},
    {"name": "ternary", "radius": 3},
    {"name": "ternary", "form": "fullnet"},
    {"name": "ternary", "form": "fullnet", "radius": 2},
    {"name": "border"},
    {"name": "border", "width": 0.5, "widest": 6},
    {"name": "distance"},
    {"name": "distance", "scale": "image", "activation": "relu"},
    {"name": "border_distance"},
    {"name": "flow"},
]
DIHEDRAL = [(turns, flip) for turns in range(4) for flip in (False, True)]


def _view(array: NDArray[Any], turns: int, flip: bool) -> NDArray[Any]:
    turned = np.rot90(array, turns, axes=(-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if flip else turned)


@pytest.fixture(params=VARIANTS, ids=lambda variant: "-".join(str(value) for value in variant.values()))
def target(request: pytest.FixtureRequest) -> targets.Target:
    return targets.build(**request.param)


def test_encoding_and_bands_have_the_shapes_and_ranges_of_the_contract(
    target: targets.Target, blobs: Callable[..., NDArray[np.int32]]
) -> None:
    labels = blobs(0)
    encoded = target.encode(labels.astype(np.uint16))
    if target.activation == "softmax":
        assert encoded.shape == labels.shape
        assert encoded.dtype == np.int64
        assert set(np.unique(encoded)) <= set(range(target.channels))
    else:
        assert encoded.shape == (target.channels, *labels.shape)
        assert encoded.dtype == np.float32
        assert np.isfinite(encoded).all()
    raw = torch.linspace(-40, 300, 2 * target.channels * 6 * 5).reshape(2, target.channels, 6, 5)
    bands = target.to_bands(raw)
    assert bands.shape == (2, len(target.bands), 6, 5)
    assert bands.dtype == torch.float32
    assert target.bands[0].name == "foreground"
    for index, band in enumerate(target.bands):
        assert bands[:, index].min() >= band.low
        assert bands[:, index].max() <= band.high


def test_the_channels_of_soft_truth_are_named(target: targets.Target, blobs: Callable[..., NDArray[np.int32]]) -> None:
    if target.activation != "sigmoid":
        assert target.soft == ()
        return
    encoded = target.encode(blobs(0))
    found = [channel for channel, plane in enumerate(encoded) if not np.isin(plane, (0, 1)).all()]
    assert list(target.soft) == found


def test_half_precision_output_gives_float32_bands(target: targets.Target) -> None:
    assert target.to_bands(torch.zeros(1, target.channels, 4, 4, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (17, 5)])
@pytest.mark.parametrize("fill", [0, 1, 7])
def test_empty_and_full_images_of_any_size(target: targets.Target, size: tuple[int, int], fill: int) -> None:
    encoded = target.encode(np.full(size, fill, np.uint8))
    assert encoded.shape[-2:] == size
    assert np.isfinite(encoded).all()
    if target.activation == "softmax":
        assert (encoded == (1 if fill else 0)).all()  # no outline: the edge of a crop is none
    else:
        assert (encoded[0] > 0).all() == (fill > 0)


# Flow's vectors turn with the image: test_encodings.py has that.
@pytest.mark.parametrize("target", [one for one in VARIANTS if one["name"] != "flow"], indirect=True, ids=str)
@pytest.mark.parametrize(("turns", "flip"), DIHEDRAL)
def test_a_turned_image_has_the_turned_target(
    target: targets.Target, turns: int, flip: bool, blobs: Callable[..., NDArray[np.int32]]
) -> None:
    labels = blobs(1)
    assert np.array_equal(target.encode(_view(labels, turns, flip)), _view(target.encode(labels), turns, flip))


def test_the_numbers_of_the_labels_do_not_matter(
    target: targets.Target, blobs: Callable[..., NDArray[np.int32]]
) -> None:
    labels = blobs(2)
    shuffled = np.concatenate([[0], np.random.default_rng(0).permutation(25) + 1])[labels]
    sparse = labels.astype(np.int64) * 80_000_000
    expected = target.encode(labels)
    assert np.array_equal(target.encode(shuffled), expected)
    assert np.array_equal(target.encode(sparse), expected)


def test_more_labels_than_uint16_holds(target: targets.Target) -> None:
    size = 300
    labels = np.arange(1, size * size + 1).reshape(size, size)
    encoded = target.encode(labels)
    one_pixel_each = target.encode(np.array([[1, 2], [3, 4]]))
    assert np.array_equal(encoded[..., :2, :2], one_pixel_each)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((2, 3, 3), int), r"\(2, 3, 3\)"),
        (np.zeros((3, 3)), "float64"),
        (np.full((3, 3), -1), "-1"),
    ],
)
def test_what_is_no_label_image_is_refused(target: targets.Target, labels: NDArray[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        target.encode(labels)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("contour", {}, "target=contour: unknown; expected one of border, border_distance"),
        ("border", {"thickness": 2}, "target.thickness=2.*no such option.*narrowest, widest, width"),
        ("border", {"width": "wide"}, "target.width='wide': expected float, found str"),
        ("border", {"narrowest": 5}, "narrowest <= widest"),
        ("ternary", {"form": "triple"}, "single or fullnet"),
        ("ternary", {"radius": True}, "expected int, found bool"),
        ("ternary", {"radius": 0}, "1 to 16"),
        ("distance", {"scale": "slide"}, "instance or image"),
        ("distance", {"activation": "tanh"}, "relu or softplus"),
        ("distance", {"edge": 1.0}, "between 0 and 1"),
    ],
)
def test_wrong_settings_are_one_clear_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        targets.build(name, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_config_builds_and_lists_every_option(path: Path) -> None:
    settings = yaml.safe_load(path.read_text())
    name = settings.pop("name")
    assert set(settings) == set(targets.options(name))
    built = targets.build(name, **settings)
    if path.stem == name:
        assert built == targets.build(name), "the YAML's defaults are those of the class"


def test_every_target_has_a_config() -> None:
    assert set(targets.names()) <= {path.stem for path in CONFIGS.glob("*.yaml")}
