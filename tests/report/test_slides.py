"""Slides in the report: thumbnails, reduced predictions, and counts that do not depend on how the rows are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from histofold.competitions.base import Competition, Place, Sample
from histofold.inference.bandfile import BandFileWriter
from histofold.report import predictions
from histofold.report.predictions import Job, View, look
from histofold.report.run import build
from histofold.rle import RunMask
from histofold.targets.base import Band
from histofold.tiles.grid import rational, reduced

HEIGHT, WIDTH, SCALE = 601, 803, 2.0


def blob(y: int, x: int, radius: int) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


class OneSlide(Competition):
    """One drawn slide with two round objects."""

    kind = "slides"

    def __init__(self, folder: Path) -> None:
        super().__init__(Place("slides", None, folder, folder))
        self.truth, self.metric = "mask", "dice"
        self.mask_pixels = blob(150, 200, 60) | blob(450, 600, 80)
        pixels = np.where(self.mask_pixels, 120, 210).astype(np.uint8)
        profile = {"driver": "GTiff", "height": HEIGHT, "width": WIDTH, "count": 3, "dtype": "uint8"}
        with rasterio.open(folder / "slide.tif", "w", photometric="RGB", **profile) as file:
            file.write(np.repeat(pixels[None], 3, axis=0))

    def check(self) -> None:
        """Nothing can be missing."""

    def samples(self) -> list[Sample]:
        return [Sample("slide", "train", HEIGHT, WIDTH, "patient", "")]

    def source(self, sample_id: str) -> Path:
        return self.root / f"{sample_id}.tif"

    def mask(self, sample_id: str) -> RunMask:
        return RunMask.from_mask(self.mask_pixels)

    def submission_ids(self) -> list[str]:
        return []


@pytest.fixture
def slide(tmp_path: Path) -> OneSlide:
    return OneSlide(tmp_path)


@pytest.fixture
def job(slide: OneSlide) -> Job:
    """A prediction that has the larger object, shifted a little, and one that is not there."""
    found = blob(450, 604, 80) | blob(100, 700, 40)
    reduced = found[::2, ::2].astype(np.uint8) * 255
    path = slide.root / "bands.tif"
    with BandFileWriter(path, (Band("foreground", 0.0, 1.0),), *reduced.shape, SCALE, HEIGHT, WIDTH) as writer:
        writer.write_rows(0, reduced[None])
    return Job("slide", (path,), (1.0,), 100_000)


def view(slide: OneSlide, longest: int = 256) -> View:
    return View(slide, ("foreground",), 0.5, None, longest)


def test_picture_and_measures(slide: OneSlide, job: Job) -> None:
    found = look(view(slide), job)
    assert found.picture is not None
    assert found.truth is not None
    assert found.predicted is not None
    assert found.truth["share"] == pytest.approx(100 * slide.mask_pixels.mean(), rel=1e-6)
    assert found.predicted["share"] == pytest.approx(100 * (80**2 + 40**2) * np.pi / HEIGHT / WIDTH, rel=0.05)
    drawn = found.picture.layers
    assert drawn.view_width == 1000
    assert drawn.view_height == pytest.approx(1000 * HEIGHT / WIDTH, abs=5)
    assert [drawn.truth.count("M"), drawn.prediction.count("M")] == [2, 2]
    assert drawn.missed.count("M") == drawn.false.count("M") == 1, "the small shift is no finding"
    x, y = (int(v) for v in drawn.missed[1:].split("l")[0].split(" "))
    assert abs(x / 1000 * WIDTH - 200) < 70, "the missed object is where it is in the slide"
    assert abs(y / 1000 * WIDTH - 150) < 70, "units are the same both ways"


def test_histogram_counts_every_pixel_once(slide: OneSlide, job: Job) -> None:
    histogram = look(view(slide), job).histogram
    assert histogram.sum() == -(-HEIGHT // 2) * -(-WIDTH // 2)
    truth = slide.mask("slide").reduced_window(0, 0, HEIGHT, WIDTH, SCALE) >= 0.5
    assert histogram[1].sum() == truth.sum()
    assert histogram[:, 1:255].sum() == 0


@pytest.mark.parametrize("rows", [1, 37, 64, 4096])
def test_the_result_does_not_depend_on_the_chunks(
    slide: OneSlide, job: Job, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = look(view(slide), job)
    monkeypatch.setattr(predictions, "ROWS", rows)
    parts = look(view(slide), job)
    np.testing.assert_array_equal(parts.histogram, whole.histogram)
    assert parts.picture is not None
    assert whole.picture is not None
    assert parts.picture.layers.truth == whole.picture.layers.truth
    assert parts.predicted == pytest.approx(whole.predicted, rel=0.03)


def test_without_a_budget_nothing_is_drawn(slide: OneSlide, job: Job) -> None:
    found = look(view(slide), Job(job.sample_id, job.paths, job.weights, 0))
    assert found.picture is None
    assert found.histogram.sum() > 0


def test_the_page_shows_whole_slides(slide: OneSlide, job: Job, tmp_path: Path) -> None:
    folder = tmp_path / "oof" / "slides" / "net" / "fold0"
    (folder / "predictions").mkdir(parents=True)
    job.paths[0].rename(folder / "predictions" / "slide.tif")
    columns = "sample_id,fold,stratum,group,height,width,score,dice"
    (folder / "scores.csv").write_text(f"{columns}\nslide,0,,patient,{HEIGHT},{WIDTH},0.6,0.6\n")
    text = build(slide, tmp_path / "oof", tmp_path / "submissions", workers=1).read_text(encoding="utf-8")
    cards = text[text.index('id="gallery"') :]
    assert "Slides, worst to best" in cards
    assert cards.count('preserveAspectRatio="xMidYMid meet"') == 1
    assert "slice" not in cards[: cards.index("</ul>")], "outlines must follow the picture, which is not cropped"


class AnySize(Competition):
    """A slide of any size, of which only the truth is looked at."""

    kind = "slides"

    def __init__(self, pixels: np.ndarray) -> None:
        super().__init__(Place("slides", None, Path(), Path()))
        self.truth, self.metric = "mask", "dice"
        self.pixels = pixels

    def check(self) -> None:
        """Nothing can be missing."""

    def source(self, sample_id: str) -> Path:
        return Path(sample_id)

    def samples(self) -> list[Sample]:
        return [Sample("slide", "train", *self.pixels.shape, "patient", "")]

    def mask(self, sample_id: str) -> RunMask:
        return RunMask.from_mask(self.pixels)

    def submission_ids(self) -> list[str]:
        return []


def counted(folder: Path, height: int, width: int, scale: float, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Histogram of a slide with stripes as the report counts it, and in one piece."""
    rows, columns = np.mgrid[:height, :width]
    pixels = ((rows % 11 < 4) ^ (columns % 7 < 3)).astype(np.uint8)
    shape = reduced(height, scale), reduced(width, scale)
    codes = np.random.default_rng(height).integers(0, 256, shape, dtype=np.uint8)
    path = folder / "bands.tif"
    with BandFileWriter(path, (Band("foreground", 0.0, 1.0),), *shape, scale, height, width) as writer:
        writer.write_rows(0, codes[None])
    slide = AnySize(pixels)
    found = look(View(slide, ("foreground",), 0.5, None, longest), Job("slide", (path,), (1.0,), 0)).histogram
    # A cell more than there are: rounding of the sizes must not decide here.
    truth = slide.mask("slide").reduced_mask(0, 0, height + 9, width + 9, scale)[: shape[0], : shape[1]]
    return found, predictions.count(codes, truth)


@pytest.mark.parametrize("scale", [1.0, 1.25, 1.3, 1.5, 2.7, 3.3, 4.0, 8 / 3])
def test_fractional_scales_lose_no_row(tmp_path: Path, scale: float) -> None:
    found, whole = counted(tmp_path, 3035, 61, scale, 1024)
    np.testing.assert_array_equal(found, whole)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 4000),
    width=st.integers(1, 40),
    scale=st.one_of(st.integers(10, 99).map(lambda tenths: tenths / 10), st.floats(1, 20)),
    longest=st.sampled_from([37, 256, 1024]),
)
def test_any_height_at_any_scale(tmp_path: Path, height: int, width: int, scale: float, longest: int) -> None:
    found, whole = counted(tmp_path, height, width, scale, longest)
    np.testing.assert_array_equal(found.sum(axis=0), whole.sum(axis=0), "every pixel counts once")
    # Elsewhere no block begins at a whole pixel: a cell may be off by half of one, and with it its truth.
    exact = rational(scale)
    if exact.denominator <= 10 and float(exact) == scale:
        np.testing.assert_array_equal(found, whole)
