"""The engine: exact where tiles agree, exact in size, without seams, and economical with reads and work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from histofold.errors import ConfigError, DataError, ResourceError
from histofold.inference.bandfile import quantise
from histofold.inference.checkpoint import Spec
from histofold.inference.predict import predict_array
from histofold.inference.stream import ArraySource, Settings, SlideSource, common_bands, predict_rows
from histofold.preprocess import Preprocess
from histofold.slides.reduce import reduce_array
from histofold.targets.base import Band
from histofold.tiles.grid import reduced
from histofold.upsample import upsampled

FOREGROUND = Band("foreground")


def unblended(network: nn.Module, image: NDArray[np.uint8], band: Band = FOREGROUND) -> NDArray[np.uint8]:
    """The map of a pixelwise network over the whole image at once, quantised without any tiles."""
    divisor = network.divisor
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % divisor), (0, -width % divisor), (0, 0)), mode="edge")
    with torch.inference_mode():
        values = network(torch.from_numpy(padded).permute(2, 0, 1)[None].float())[0, 0, :height, :width]
    return quantise(values.numpy().astype(np.float64), band)


def collect(source: ArraySource | SlideSource, *arguments: object) -> NDArray[np.uint8]:
    """All rows, checked to come in order and without gaps."""
    parts, expected = [], 0
    for first, rows in predict_rows(source, *arguments):  # type: ignore[arg-type]
        assert first == expected
        assert rows.dtype == np.uint8
        expected += rows.shape[1]
        parts.append(rows)
    assert expected == source.height
    return np.concatenate(parts, axis=1)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    tile=st.sampled_from([16, 24, 64]),
    step=st.sampled_from([0.3, 0.5, 0.75, 1.0]),
    margin=st.integers(0, 7),
    window=st.sampled_from(["hann", "triangle", "flat"]),
    tta=st.sampled_from(["none", "dihedral"]),
    batch=st.integers(1, 9),
)
def test_pixelwise_network_gives_the_unblended_map_to_the_bit(
    kit: Any, height: int, width: int, tile: int, step: float, margin: int, window: str, tta: str, batch: int
) -> None:
    image = kit.tissue(height, width, seed=height * 1000 + width)
    network = kit.PixelNet()
    chosen = Settings(tile, step, margin, window, tta, batch, device="cpu", precision="32-true")
    result = collect(ArraySource(image), [kit.member(network)], None, chosen)
    assert result.shape == (1, height, width)
    np.testing.assert_array_equal(result[0], unblended(network, image))


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 120), width=st.integers(1, 120), step=st.sampled_from([0.5, 0.75, 1.0]))
def test_slides_and_images_go_through_one_engine(kit: Any, height: int, width: int, step: float) -> None:
    image = kit.tissue(height, width, seed=1)
    members = [kit.member(kit.WideNet(seed=3))]
    chosen = Settings(tile=32, step=step, batch=3, device="cpu", precision="32-true")
    by_image = collect(ArraySource(image), members, None, chosen)
    slide = kit.FakeSlide(image)
    np.testing.assert_array_equal(collect(SlideSource(slide), members, None, chosen), by_image)  # type: ignore[arg-type]
    assert slide.rows_read == height


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 260),
    width=st.integers(1, 260),
    scale=st.sampled_from([1, 1.3, 1.3333, 1.5, 2, 2.75, 3, 4, 7.3]),
    tile=st.sampled_from([16, 24, 64]),
    step=st.sampled_from([0.3, 0.5, 0.75, 1.0]),
    margin=st.integers(0, 7),
)
def test_slides_of_any_size_tile_step_scale_and_margin_are_covered_once(
    kit: Any, height: int, width: int, scale: float, tile: int, step: float, margin: int
) -> None:
    """The map of a slide that is read at a reduction is exact, and enlarged it is as large as the slide."""
    image = kit.tissue(height, width, seed=height * 1000 + width)
    small = reduce_array(image, scale)

    class Reduced(kit.FakeSlide):
        def bands(self, height: int, scale: float = 1.0, overlap: int = 0) -> Iterator[tuple[int, NDArray[np.uint8]]]:
            assert (overlap, scale) == (0, expected)
            for top in range(0, len(small), height):
                yield top, small[top : top + height].copy()

    expected = scale
    network = kit.PixelNet()
    source = SlideSource(Reduced(image), scale)  # type: ignore[arg-type]
    assert (source.height, source.width) == (reduced(height, scale), reduced(width, scale))
    chosen = Settings(tile, step, margin, batch=5, device="cpu", precision="32-true", skip_background=False)
    result = collect(source, [kit.member(network)], None, chosen)
    np.testing.assert_array_equal(result[0], unblended(network, small))
    bands = [result[0][top : top + 9] for top in range(0, len(small), 9)]
    rows = list(upsampled(bands, scale, height, width))
    assert sum(len(part) for _, part in rows) == height
    assert {part.shape[1] for _, part in rows} == {width}


def test_wide_range_of_values_stays_exact(kit: Any) -> None:
    image = kit.tissue(70, 90, 5)
    band = Band("distance", -3.0, 11.0)

    class Scaled(kit.PixelNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 14 - 3

    network = Scaled()
    result = collect(
        ArraySource(image),
        [kit.member(network, band)],
        None,
        Settings(32, 0.5, 3, device="cpu", precision="32-true", batch=4),
    )
    np.testing.assert_array_equal(result[0], unblended(network, image, band))


def test_no_seams_with_a_real_neighbourhood(kit: Any) -> None:
    """Across borders of tiles the prediction steps no more than elsewhere, and margins give the untiled map."""
    image = kit.tissue(160, 160, 2)
    network = kit.WideNet(seed=1)
    whole = collect(
        ArraySource(image), [kit.member(network)], None, Settings(tile=160, device="cpu", precision="32-true")
    )[0]
    blended = collect(
        ArraySource(image), [kit.member(network)], None, Settings(32, 0.75, device="cpu", precision="32-true")
    )[0]
    cut = collect(
        ArraySource(image), [kit.member(network)], None, Settings(32, 1.0, margin=3, device="cpu", precision="32-true")
    )[0]
    # The network sees 3 pixels around each; what a margin of 3 keeps is what the whole image gives.
    assert np.abs(cut.astype(int) - whole).max() <= 1
    starts = [24, 48, 72, 96, 120]
    difference = np.abs(blended.astype(int) - whole)
    at_borders = np.mean([difference[:, s - 1 : s + 1].mean() for s in starts])
    assert at_borders <= difference.mean() + 0.5
    steps = np.abs(np.diff(blended.astype(int), axis=1))
    assert np.mean([steps[:, s - 1].mean() for s in starts]) <= 1.05 * steps.mean()


def test_members_are_weighted_and_share_the_work(kit: Any) -> None:
    image = kit.tissue(40, 40)
    calls: Counter[str] = Counter()

    class Counting(Preprocess):
        def normalise(self, batch: torch.Tensor) -> torch.Tensor:
            calls["normalise"] += 1
            return super().normalise(batch)

    shared = Counting(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
    members = [kit.member(kit.PixelNet(phase), preprocess=shared) for phase in (0.0, 1.0, 2.0)]
    chosen = Settings(tile=16, step=1.0, batch=64, tta="flips", device="cpu", precision="32-true")
    result = collect(ArraySource(image), members, [2, 1, 1], chosen)[0].astype(float)
    singles = [collect(ArraySource(image), [member], None, chosen)[0].astype(float) for member in members]
    expected = 0.5 * singles[0] + 0.25 * singles[1] + 0.25 * singles[2]
    assert np.abs(result - expected).max() <= 1.01
    # 9 tiles × 4 views fit one batch: normalised once for three members, and once for each single run.
    assert calls["normalise"] == 1 + 3
    assert all(len(member.network.seen) == 2 for member in members)


def test_members_with_other_preprocessing_get_their_own_pixels(kit: Any) -> None:
    """CLAHE depends on the whole image, so images are enhanced before they are cut."""
    image = kit.tissue(64, 80)
    image[:, 40:] //= 3
    plain, enhanced = (Preprocess(RAW_MEAN, RAW_STD, clahe=clahe) for clahe in (0.0, 4.0))
    network = kit.PixelNet()
    chosen = Settings(tile=32, step=0.5, device="cpu", precision="32-true")
    only = collect(ArraySource(image), [kit.member(network, preprocess=enhanced)], None, chosen)[0]
    np.testing.assert_array_equal(only, unblended(network, enhanced.pixels(image)))
    both = collect(
        ArraySource(image),
        [kit.member(network, preprocess=enhanced), kit.member(kit.PixelNet(), preprocess=plain)],
        None,
        chosen,
    )[0]
    mean = (only.astype(float) + unblended(network, image)) / 2
    assert np.abs(both - mean).max() <= 1.01


RAW_MEAN, RAW_STD = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)


def test_the_same_module_twice_is_refused(kit: Any) -> None:
    """A "4-fold ensemble" of one module is one fold counted four times."""
    network = kit.PixelNet()
    with pytest.raises(ConfigError, match="one and the same module"):
        predict_array(kit.tissue(16, 16), [kit.member(network), kit.member(network)], None, Settings(tile=16))


def test_background_of_slides_is_skipped_and_predicted_zero(kit: Any) -> None:
    image = np.full((96, 208, 3), 243, dtype=np.uint8)
    image[32:64, 100:140] = kit.tissue(32, 40)
    image[90:, :] = 0
    network = kit.PixelNet()
    bands = (FOREGROUND, Band("flow_y", -1.0, 1.0))

    class Two(kit.PixelNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            value = super().forward(x)
            return torch.cat([value, value], 1)

    network = Two()
    chosen = Settings(tile=32, step=1.0, device="cpu", precision="32-true", batch=2)
    result = collect(SlideSource(kit.FakeSlide(image)), [kit.member(network, *bands)], None, chosen)  # type: ignore[arg-type]
    tissue = np.zeros((96, 208), dtype=bool)
    tissue[32:64, 96:160] = True
    np.testing.assert_array_equal(result[0][~tissue], 0)
    np.testing.assert_array_equal(result[1][~tissue], 128)
    np.testing.assert_array_equal(result[0][tissue], unblended(kit.PixelNet(), image)[tissue])
    assert sum(shape[0] for shape in network.seen) == 2
    network.seen.clear()
    everything = Settings(tile=32, step=1.0, device="cpu", precision="32-true", batch=2, skip_background=False)
    full = collect(SlideSource(kit.FakeSlide(image)), [kit.member(network, *bands)], None, everything)  # type: ignore[arg-type]
    np.testing.assert_array_equal(full[0], unblended(kit.PixelNet(), image))
    assert sum(shape[0] for shape in network.seen) == 21


def test_grey_images_are_never_skipped(kit: Any) -> None:
    image = np.full((40, 40, 3), 30, dtype=np.uint8)
    network = kit.PixelNet()
    np.testing.assert_array_equal(
        predict_array(image, [kit.member(network)], None, Settings(tile=16, device="cpu", precision="32-true"))[0],
        unblended(network, image),
    )


def test_members_are_averaged_on_shared_bands(kit: Any) -> None:
    image = kit.tissue(24, 24)
    first = kit.member(kit.WideNet(2, seed=1), Band("border"), FOREGROUND)
    second = kit.member(kit.WideNet(1, seed=2), FOREGROUND)
    assert common_bands([first, second]) == (FOREGROUND,)
    chosen = Settings(tile=24, device="cpu", precision="32-true")
    alone = predict_array(image, [first], None, chosen)[1].astype(float)
    other = predict_array(image, [second], None, chosen)[0].astype(float)
    both = predict_array(image, [first, second], None, chosen)
    assert both.shape == (1, 24, 24)
    assert np.abs(both[0] - (alone + other) / 2).max() <= 1.01


def test_bands_of_unequal_range_are_not_averaged(kit: Any) -> None:
    other = kit.member(kit.WideNet(2, seed=1), FOREGROUND, Band("distance", 0.0, 8.0))
    assert common_bands([kit.member(kit.WideNet(2, seed=2), FOREGROUND, Band("distance")), other]) == (FOREGROUND,)
    with pytest.raises(DataError, match=r"share no band.*band distance left out: .*0\.\.1 and 0\.\.8"):
        common_bands(
            [kit.member(kit.PixelNet(), Band("distance")), kit.member(kit.PixelNet(), Band("distance", 0.0, 8.0))]
        )
    with pytest.raises(DataError, match="share no band"):
        common_bands([kit.member(kit.PixelNet(), Band("a")), kit.member(kit.PixelNet(), Band("b"))])


def test_members_of_another_scale_are_refused(kit: Any) -> None:
    member = kit.member(kit.PixelNet())
    member.spec = Spec("demo", "unet", 2, {}, {}, {}, 16, 4.0)
    with pytest.raises(DataError, match="unet fold 2 learned at scale 4, but the sample is read at scale 2"):
        collect(ArraySource(kit.tissue(16, 16), scale=2.0), [member], None, Settings(device="cpu", precision="32-true"))
    assert collect(
        ArraySource(kit.tissue(16, 16), scale=4.0), [member], None, Settings(device="cpu", precision="32-true")
    ).shape == (
        1,
        16,
        16,
    )
    assert predict_array(kit.tissue(16, 16), [member], None, Settings(device="cpu", precision="32-true")).shape == (
        1,
        16,
        16,
    )


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("batch", [1, 3, 4])
def test_views_that_are_more_than_a_batch_go_through_in_parts(kit: Any, batch: int, spread: bool) -> None:
    image = kit.tissue(40, 56)
    image[:, 30:] //= 3
    wide = [kit.member(kit.WideNet(seed=seed)) for seed in (1, 2)]
    network = kit.PixelNet()
    for tile in (24, 64):  # of the larger one the tiles are oblong
        small, large = (
            Settings(tile, 0.75, tta="dihedral", batch=count, spread=spread, device="cpu", precision="32-true")
            for count in (batch, 64)
        )
        network.seen.clear()
        exact = predict_array(image, [kit.member(network)], None, small)
        assert max(shape[0] for shape in network.seen) <= batch
        np.testing.assert_array_equal(exact, predict_array(image, [kit.member(kit.PixelNet())], None, large))
        # A convolution may sum in another order where its batch is larger.
        codes = [predict_array(image, wide, [1, 3], one).astype(int) for one in (small, large)]
        assert np.abs(codes[0] - codes[1]).max() <= 1
        assert (codes[0] == codes[1]).mean() > 0.999


def test_smaller_batches_help_where_memory_is_short(kit: Any) -> None:
    """What is advised is what helps, down to where nothing smaller is left."""

    class Large(kit.PixelNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > most:
                raise torch.cuda.OutOfMemoryError("full")
            return super().forward(x)

    image, members = kit.tissue(16, 16), [kit.member(Large())]
    chosen, most = Settings(tile=16, batch=8, tta="dihedral", device="cpu", precision="32-true"), 2
    for batch in (8, 4):
        with pytest.raises(ResourceError, match=rf"predict\.batch={batch}; try predict\.batch={batch // 2} or a"):
            predict_array(image, members, None, replace(chosen, batch=batch))
    assert predict_array(image, members, None, replace(chosen, batch=2)).any()
    most = 0
    with pytest.raises(ResourceError, match=r"with predict\.batch=1; try a smaller predict\.tile"):
        predict_array(image, members, None, replace(chosen, batch=1))


def test_train_mode_comes_back(kit: Any) -> None:
    member = kit.member(kit.WideNet()).train()
    member.network.layers[1].eval()
    predict_array(kit.tissue(16, 16), [member], None, Settings(tile=16, device="cpu", precision="32-true"))
    assert member.training
    assert member.network.training


def test_values_that_are_no_numbers_are_reported(kit: Any) -> None:
    member = kit.member(kit.PixelNet(float("nan")))
    with pytest.raises(DataError, match="no numbers near row 0"):
        predict_array(kit.tissue(16, 16), [member], None, Settings(tile=16, device="cpu", precision="32-true"))


def test_a_slide_that_ends_early_is_reported(kit: Any) -> None:
    slide = kit.FakeSlide(kit.tissue(40, 40))
    slide.height = 64
    slide.bands = lambda height, scale, overlap=0: iter([(0, slide.pixels)])  # type: ignore[method-assign,assignment]
    with pytest.raises(DataError, match="end at row 40"):
        collect(
            SlideSource(slide), [kit.member(kit.PixelNet())], None, Settings(tile=16, device="cpu", precision="32-true")
        )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tile": -1}, r"predict\.tile=-1"),
        ({"step": 0.0}, r"predict\.step=0\.0"),
        ({"step": 1.5}, r"predict\.step=1\.5"),
        ({"margin": -3}, r"predict\.margin=-3"),
        ({"window": "gauss"}, r"predict\.window='gauss'.*hann"),
        ({"tta": "all"}, r"predict\.tta='all'.*dihedral"),
        ({"batch": 0}, r"predict\.batch=0"),
        ({"precision": "half"}, r"predict\.precision='half'.*bf16-mixed"),
    ],
)
def test_settings_out_of_range(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        (Settings(tile=20, device="cpu", precision="32-true"), r"multiple of 8; try 24"),
        (Settings(tile=16, margin=8, device="cpu", precision="32-true"), r"margin=8: nothing is left"),
        (Settings(tile=0, device="cpu", precision="32-true"), r"tile=0: these networks do not say"),
        (Settings(tile=16, device="warp"), r"device='warp'"),
        (Settings(tile=16, device="cuda:99"), r"device=cuda:99: this machine has"),
    ],
)
def test_settings_that_do_not_fit_the_members(settings_: Settings, message: str, kit: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        predict_array(kit.tissue(16, 16), [kit.member(kit.PixelNet())], None, settings_)


@pytest.mark.parametrize("weights", [[1.0, 2.0], [-1.0], [0.0]])
def test_weights_must_fit(weights: list[float], kit: Any) -> None:
    with pytest.raises(ConfigError, match="weights of an ensemble"):
        predict_array(
            kit.tissue(16, 16),
            [kit.member(kit.PixelNet())],
            weights,
            Settings(tile=16, device="cpu", precision="32-true"),
        )


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_only_rgb_images(image: NDArray[np.uint8]) -> None:
    with pytest.raises(DataError, match="expected an RGB image"):
        ArraySource(image)


def test_batches_are_full_across_rows_of_tiles(kit: Any) -> None:
    network = kit.PixelNet()
    collect(
        ArraySource(kit.tissue(80, 48)),
        [kit.member(network)],
        None,
        Settings(16, 1.0, batch=8, tta="flips", device="cpu", precision="32-true"),
    )
    assert [shape[0] for shape in network.seen] == [8] * 7 + [4]


def test_bfloat16_on_the_cpu_is_close(kit: Any) -> None:
    image = kit.tissue(32, 32)
    member = kit.member(kit.WideNet(seed=4))
    exact = predict_array(image, [member], None, Settings(tile=32, device="cpu", precision="32-true")).astype(int)
    half = predict_array(image, [member], None, Settings(tile=32, device="cpu", precision="bf16-mixed")).astype(int)
    assert 0 < np.abs(exact - half).max() <= 6
