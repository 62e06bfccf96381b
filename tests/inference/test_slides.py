"""The engine on slides on disk: the same pixels as images in memory, each tile enhanced once, no seams."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray

from histofold import models, slides
from histofold.inference.bandfile import BandFile
from histofold.inference.member import Member
from histofold.inference.predict import predict_array, predict_sample
from histofold.inference.stream import ArraySource, Settings, SlideSource, predict_rows
from histofold.preprocess import Preprocess
from histofold.targets.base import Band
from histofold.targets.foreground import Foreground
from histofold.tiles.grid import reduced


@pytest.fixture
def tiff(kit: Any, tmp_path: Path) -> Path:
    """A slide of odd size in LZW strips."""
    pixels = kit.tissue(301, 437).transpose(2, 0, 1)
    path = tmp_path / "slide.tiff"
    with rasterio.open(
        path, "w", driver="GTiff", height=301, width=437, count=3, dtype="uint8", compress="lzw"
    ) as file:
        file.write(pixels)
    return path


def rows_of(source: SlideSource, members: list[Member], chosen: Settings) -> NDArray[np.uint8]:
    return np.concatenate([rows for _, rows in predict_rows(source, members, None, chosen)], axis=1)


@pytest.mark.parametrize("scale", [1.0, 1.5, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("step", [0.6, 1.0])
def test_slides_at_any_scale_equal_the_image(kit: Any, tiff: Path, scale: float, step: float) -> None:
    members = [kit.member(kit.WideNet(seed=2))]
    chosen = Settings(tile=64, step=step, margin=4, tta="flips", device="cpu", precision="32-true")
    with closing(SlideSource(slides.open(tiff), scale)) as source:
        result = rows_of(source, members, chosen)
        image = source.slide.window(0, 0, 301, 437, scale)
        assert result.shape == (1, reduced(301, scale), reduced(437, scale))
        assert (source.full_height, source.full_width) == (301, 437)
    np.testing.assert_array_equal(result, predict_array(image, members, None, chosen))


def test_band_file_of_a_slide_knows_its_full_size(kit: Any, tiff: Path, tmp_path: Path) -> None:
    chosen = Settings(tile=64, device="cpu", precision="32-true")
    with closing(SlideSource(slides.open(tiff), 4.0)) as source:
        predict_sample(source, [kit.member(kit.WideNet())], None, chosen, tmp_path / "out.tif")
    with BandFile(tmp_path / "out.tif") as file:
        assert (file.height, file.width, file.scale, file.full_size) == (76, 110, 4.0, (301, 437))


def test_each_tile_is_read_once_and_enhanced_once_a_look(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[float] = Counter()
    plain = Preprocess.pixels

    def counted(self: Preprocess, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        calls[self.clahe] += 1
        return plain(self, image)

    monkeypatch.setattr(Preprocess, "pixels", counted)
    looks = [Preprocess(clahe=2.0), Preprocess(clahe=2.0), Preprocess(mean=(0.0, 0.0, 0.0), clahe=2.0), Preprocess()]
    members = [kit.member(kit.PixelNet(float(index)), preprocess=look) for index, look in enumerate(looks)]
    slide = kit.FakeSlide(kit.tissue(96, 64))
    rows_of(SlideSource(slide), members, Settings(tile=32, step=1.0, tta="dihedral", device="cpu", precision="32-true"))
    assert slide.rows_read == 96
    # 6 tiles: four members with eight views, but two ways of enhancing.
    assert calls == {2.0: 6, 0.0: 6}
    assert all(sum(shape[0] for shape in member.network.seen) == 48 for member in members)


def test_vectors_of_a_slide_turn_with_the_views(kit: Any) -> None:
    """A field of gradients comes out the same with and without views."""

    class Gradient(torch.nn.Module):
        divisor = 8

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            padded = torch.nn.functional.pad(x[:, :1] / 255, (1, 1, 1, 1), mode="replicate")
            along_y = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
            along_x = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
            return torch.cat([x[:, :1] / 255, along_y, along_x], 1)

    bands = (Band("foreground"), Band("flow_y", -1.0, 1.0), Band("flow_x", -1.0, 1.0))
    smooth = cv2.GaussianBlur(kit.tissue(100, 130), (9, 9), 2)
    members = [kit.member(Gradient(), *bands)]
    once, turned = (
        predict_array(
            smooth, members, None, Settings(tile=32, margin=2, tta=views, device="cpu", precision="32-true")
        ).astype(int)
        for views in ("none", "dihedral")
    )
    assert np.abs(once - turned).max() <= 1
    assert once[1].std() > 0.3


@pytest.mark.slow
def test_no_seams_with_a_segmentation_network(kit: Any) -> None:
    """The step across the borders of tiles is not larger than elsewhere, and much larger without blending."""
    torch.manual_seed(0)
    network = models.build("smp", 1, arch="Unet", encoder="resnet18").eval()
    member = Member(network, Foreground(), Preprocess())
    smooth = cv2.GaussianBlur(kit.tissue(384, 384), (0, 0), 6)
    image = cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)

    def excess(chosen: Settings, borders: list[int]) -> float:
        rows = [rows for _, rows in predict_rows(ArraySource(image), [member], None, chosen)]
        steps = np.abs(np.diff(np.concatenate(rows, axis=1)[0].astype(float), axis=1)).mean(axis=0)
        return float(np.mean([steps[border - 1] for border in borders]) / steps.mean())

    blended = excess(Settings(tile=64, step=0.5, device="cpu", precision="32-true"), list(range(32, 384, 32)))
    unblended = excess(
        Settings(tile=64, step=1.0, window="flat", device="cpu", precision="32-true"), list(range(64, 384, 64))
    )
    assert blended <= 1.1
    assert unblended > 1.5
