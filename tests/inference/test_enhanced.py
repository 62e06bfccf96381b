"""Pixels are enhanced in prediction as in training, or the prediction is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from histofold import stain
from histofold.errors import ConfigError, DataError
from histofold.inference.checkpoint import Spec
from histofold.inference.enhanced import require_alike
from histofold.inference.member import Member
from histofold.inference.predict import Job, predict_array, predict_sample, predict_samples
from histofold.inference.settings import Settings
from histofold.inference.sources import ArraySource, SlideSource
from histofold.preprocess import Preprocess

CHOSEN = Settings(device="cpu", precision="32-true", tta="none")
CLAHE = Preprocess(clahe=2.0)


def learned(kit: Any, preprocess: Preprocess, tile: int = 64) -> Member:
    """A member whose checkpoint says that it learned at `tile` pixels."""
    member: Member = kit.member(kit.PixelNet(), preprocess=preprocess)
    member.spec = Spec("custom", "unet", 0, {"name": "unet"}, {"name": "foreground"}, preprocess.to_dict(), tile, 1.0)
    return member


def beside_glass(kit: Any) -> Any:
    """Tissue on the left, bare glass on the right."""
    image = np.full((96, 192, 3), (233, 234, 232), np.uint8)
    image[:, :96] = kit.tissue(96, 96)
    return image


def looks(kit: Any) -> list[Preprocess]:
    numbers = stain.reinhard_numbers(kit.tissue(64, 64))
    return [CLAHE, Preprocess(stretch=1.0), Preprocess(stain_method="reinhard", stain_numbers=numbers)]


@pytest.mark.parametrize("index", range(3))
def test_what_was_learned_from_whole_images_is_not_asked_about_tiles(kit: Any, tmp_path: Path, index: int) -> None:
    """Half an image is not enhanced as the whole is: without tissue beside it, glass takes up its colours."""
    image, look = beside_glass(kit), replace(looks(kit)[index], whole=True)
    whole, half = look.pixels(image)[:, 96:], look.pixels(image[:, 96:].copy())
    assert np.abs(whole.astype(int) - half).mean() > 4
    member, slide = learned(kit, look), kit.FakeSlide(image)
    with pytest.raises(DataError, match=r"^unet fold 0 \(augment\..*whole.*by window.*cut them into images"):
        predict_sample(SlideSource(slide), [kit.member(kit.PixelNet()), member], None, CHOSEN, tmp_path / "a.tif")
    assert slide.rows_read == 0
    assert not list(tmp_path.iterdir())
    predict_sample(ArraySource(image), [member], None, CHOSEN, tmp_path / "b.tif")


def test_a_slide_that_is_refused_costs_no_other_image(kit: Any, tmp_path: Path) -> None:
    image = kit.tissue(64, 64)
    sources = {"slide": SlideSource(kit.FakeSlide(image)), "image": ArraySource(image)}
    jobs = [Job(name, lambda one=one: one, tmp_path / f"{name}.tif", 4096) for name, one in sources.items()]
    outcome = predict_samples(jobs, [learned(kit, replace(CLAHE, whole=True))], None, CHOSEN)
    assert outcome.made == ("image",)
    assert isinstance(outcome.failures["slide"], DataError)


def test_what_was_learned_from_tiles_is_not_asked_about_whole_images(kit: Any) -> None:
    member = learned(kit, replace(CLAHE, whole=False))
    with pytest.raises(DataError, match=r"unet fold 0 \(augment\.clahe=2\): learned from tiles"):
        predict_array(kit.tissue(80, 80), [member], None, CHOSEN)


def test_tiles_are_as_large_as_those_that_were_learned_from(kit: Any) -> None:
    slide, member = SlideSource(kit.FakeSlide(kit.tissue(96, 96))), learned(kit, replace(CLAHE, whole=False))
    require_alike(slide, [member], CHOSEN)
    require_alike(slide, [member], replace(CHOSEN, tile=64))
    with pytest.raises(ConfigError, match=r"predict\.tile=128: unet fold 0.* 64 pixels .*tiles of 128"):
        require_alike(slide, [member], replace(CHOSEN, tile=128))
    larger = learned(kit, Preprocess(whole=False), 128)
    with pytest.raises(ConfigError, match=r"predict\.tile=0: .*runs of one train\.crop"):
        require_alike(slide, [member, larger], CHOSEN)
    # A size that the layers do not take is rounded up, as `tile_for` does.
    require_alike(slide, [learned(kit, replace(CLAHE, whole=False), 61)], CHOSEN)


def test_without_enhancement_everything_goes(kit: Any) -> None:
    for whole in (True, False, None):
        member = learned(kit, Preprocess(whole=whole))
        for source in (ArraySource(kit.tissue(64, 64)), SlideSource(kit.FakeSlide(kit.tissue(64, 64)))):
            require_alike(source, [member], replace(CHOSEN, tile=128))


def test_an_older_checkpoint_that_does_not_tell_is_told_of(kit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    require_alike(ArraySource(kit.tissue(64, 64)), [learned(kit, CLAHE)], CHOSEN)
    assert capsys.readouterr().err == ""
    require_alike(SlideSource(kit.FakeSlide(kit.tissue(64, 64))), [learned(kit, CLAHE)], CHOSEN)
    assert "unet fold 0 (augment.clahe=2): does not say" in capsys.readouterr().err
