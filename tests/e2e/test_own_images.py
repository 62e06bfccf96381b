"""Images of one's own: known by their file and not by their name, large ones by window, and planned like test sets."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from histofold import slides
from histofold.competitions import images
from histofold.files import read_json, write_json
from histofold.inference.bandfile import BandFile
from histofold.submission import own

Said = Callable[[], str]


@pytest.fixture
def predict(tmp_path: Path, said: Said) -> Callable[..., tuple[int, str]]:
    """Predict a folder of images into submissions/ below the test's own folder; gives exit code and what was said."""

    def run(world: Any, folder: Path, *more: str) -> tuple[int, str]:
        said()
        place = f"paths.submissions={tmp_path / 'submissions'}"
        return world.run("predict", "name=both", place, f"images={folder}", *more), said()

    return run


def place(tmp_path: Path, world: Any, name: str) -> Path:
    return tmp_path / "submissions" / world.competition / "both" / "images" / name


def noise(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Coloured blobs."""
    values = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def write(path: Path, image: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def band(path: Path) -> NDArray[np.uint8]:
    with BandFile(path) as file:
        return file.band_uint8("foreground")


@contextmanager
def cut_at_the_median(world: Any, folder: Path) -> Iterator[None]:
    """Let the ensemble call a pixel foreground from the median of a folder's predictions on, as long as this lasts."""
    path = world.oof / "ensembles" / "both.json"
    whole = path.read_bytes()
    values = [band(one).ravel() for one in (folder / "predictions").glob("*.tif")]
    level = float(np.median(np.concatenate(values))) / 255
    mask = read_json(path)["instances"] is None
    found = {"threshold": level} if mask else {"instances": {"name": "threshold", "threshold": level}, "strata": {}}
    write_json(path, {**read_json(path), **found})
    try:
        yield
    finally:
        path.write_bytes(whole)


def bmp(path: Path, seed: int) -> Path:
    """An image whose file has the same size whatever it shows."""
    return write(path, noise(seed, 72, 96))


def test_an_image_gets_the_setting_of_the_type_that_it_shows(
    nuclei: Any, tmp_path: Path, predict: Callable[..., tuple[int, str]]
) -> None:
    folder, results = tmp_path / "mine", place(tmp_path, nuclei, "mine")
    write(folder / "night.png", noise(1, 64, 64) // 8)
    write(folder / "stained.png", noise(2, 64, 64))
    assert predict(nuclei, folder)[0] == 0
    path = nuclei.oof / "ensembles" / "both.json"
    with cut_at_the_median(nuclei, results):
        nothing = {"fluorescence": {"name": "threshold", "threshold": 1.0}}
        write_json(path, {**read_json(path), "strata": nothing})
        code, text = predict(nuclei, folder)
    assert (code, "fluorescence 1 with its own setting, histology 1 with the setting for all" in text) == (0, True)
    assert not images.integers(results / "labels" / "night.tif").any()
    assert images.integers(results / "labels" / "stained.tif").any()


def test_a_replaced_image_is_predicted_anew_and_an_unchanged_one_kept(
    nuclei: Any, tmp_path: Path, predict: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted: list[str] = []
    real = own.open_image
    monkeypatch.setattr(own, "open_image", lambda path, *rest: predicted.append(path.stem) or real(path, *rest))
    folder = tmp_path / "mon" / "scans"
    first, other = bmp(folder / "a.bmp", 1), bmp(folder / "b.bmp", 2)
    results = place(tmp_path, nuclei, "scans")

    def state() -> dict[str, bytes]:
        return {path.stem: path.read_bytes() for path in sorted((results / "predictions").glob("*.tif"))}

    assert predict(nuclei, folder)[0] == 0
    assert predicted == ["a", "b"]
    before = state()
    with cut_at_the_median(nuclei, results):
        assert predict(nuclei, folder)[0] == 0
        assert predicted == ["a", "b"], "kept"
        assert state() == before
        labels = images.integers(results / "labels" / "a.tif")

        size = first.stat().st_size
        bmp(first, 3)
        assert first.stat().st_size == size, "the same name and size, another image"
        assert predict(nuclei, folder)[0] == 0
        assert predicted == ["a", "b", "a"]
        after = state()
        assert (after["b"] == before["b"], after["a"] == before["a"]) == (True, False)
        assert not np.array_equal(images.integers(results / "labels" / "a.tif"), labels)
        alone = place(tmp_path, nuclei, "alone")
        bmp(tmp_path / "alone" / "a.bmp", 3)
        assert predict(nuclei, tmp_path / "alone")[0] == 0
        for kind in ("labels", "predictions"):
            found, expected = (images.integers(one / kind / "a.tif") for one in (results, alone))
            assert np.array_equal(found, expected), "labels and bands are those of the new image"

    # Another folder of the same name: the same stem, size and even time. It has results of its own.
    tuesday = bmp(tmp_path / "tue" / "scans" / "b.bmp", 4)
    times = other.stat()
    os.utime(tuesday, ns=(times.st_atime_ns, times.st_mtime_ns))
    predicted.clear()
    kept = state()
    code, text = predict(nuclei, tuesday.parent)
    assert (code, predicted) == (0, ["b"])
    assert state() == kept
    (others,) = results.parent.glob("scans-*")
    assert f"{others}: 1 images" in text
    assert (others / "predictions" / "b.tif").read_bytes() != kept["b"]


def test_an_image_that_fails_keeps_nothing_of_yesterday(
    nuclei: Any, tmp_path: Path, predict: Callable[..., tuple[int, str]]
) -> None:
    folder, results = tmp_path / "mine", place(tmp_path, nuclei, "mine")
    broken, later = write(folder / "a.png", noise(1, 64, 64)), write(folder / "b.png", noise(2, 64, 64))
    assert predict(nuclei, folder)[0] == 0
    later.write_bytes(later.read_bytes() + b"\0")  # another file, though still the same picture
    broken.write_bytes(b"no image")
    (folder / "._a.png").write_bytes(b"\0\5\x16\7")
    code, text = predict(nuclei, folder)
    assert (code, "1 of 2 samples failed (a)" in text) == (1, True)
    for kind in ("predictions", "labels", "geojson", "overlays"):
        assert [path.stem for path in (results / kind).iterdir()] == ["b"]


def test_the_plan_of_own_images(nuclei: Any, tmp_path: Path, predict: Callable[..., tuple[int, str]]) -> None:
    folder = tmp_path / "mine"
    write(folder / "a.png", noise(1, 96, 80))
    write(folder / "b.jpg", noise(2, 64, 64))
    code, text = predict(nuclei, folder, "limits.memory=10MB")
    assert code == 1
    assert re.search(r"^predict: memory about \S+ .B of 10 MB, disk about .* of .*, time about", text, re.MULTILINE)
    assert "predict would need memory" in text
    assert "set limits.memory" in text
    assert not (tmp_path / "submissions").exists()
    (folder / "c.tif").write_bytes(b"II*\0")
    code, text = predict(nuclei, folder)
    assert (code, "predict: memory about" in text, "1 of 3 samples failed (c)" in text) == (1, True, True)
    (folder / "c.tif").unlink()
    labels = place(tmp_path, nuclei, "mine") / "labels" / "a.tif"
    before = labels.stat().st_mtime_ns
    code, text = predict(nuclei, folder, "limits.memory=1M")
    assert (code, "predict would need memory" in text) == (1, True), "all are kept, but labels are made again"
    assert labels.stat().st_mtime_ns == before
    assert predict(nuclei, folder)[0] == 0
    assert labels.stat().st_mtime_ns > before


def test_a_folder_without_one_readable_image_says_so(
    nuclei: Any, tmp_path: Path, predict: Callable[..., tuple[int, str]]
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no image")
    code, text = predict(nuclei, tmp_path / "bad")
    assert (code, "1 of 1 samples failed (a)" in text) == (1, True)


def test_labels_of_large_images_are_part_of_the_plan() -> None:
    plan = own.Plan("predict", 1 << 30, 0, 0.0, {"memory": "smaller batches", "time": "patience"})
    slide = own.SampleSize(40_000, 40_000, True)
    wide = own.with_labels(plan, [slide], instances=False)
    assert wide.peak_memory > 10 * 40_000**2
    assert "cut the largest images" in wide.advice["memory"]
    assert wide.advice["time"] == "patience"
    assert own.with_labels(plan, [slide], instances=True).peak_memory > wide.peak_memory
    small = own.with_labels(plan, [own.SampleSize(100, 100)] * 3, instances=True)
    assert small.peak_memory < wide.peak_memory
    assert small.disk == 72_000
    wide = own.with_labels(plan, [slide, own.SampleSize(100, 100)], True, [own.SampleSize(100, 100)])
    assert wide.peak_memory > 40 * 40_000**2, "labels of a slide that is predicted already are made again"
    assert wide.disk == 24_000


def test_shards_share_the_images(nuclei: Any, tmp_path: Path, predict: Callable[..., tuple[int, str]]) -> None:
    folder = tmp_path / "mine"
    for seed in range(3):
        write(folder / f"s{seed}.png", noise(seed, 64, 64))
    results = place(tmp_path, nuclei, "mine")
    for shard, done in (("0/2", ["s0", "s2"]), ("1/2", ["s0", "s1", "s2"])):
        assert predict(nuclei, folder, f"shard={shard}")[0] == 0
        for kind in ("predictions", "labels", "geojson", "overlays"):
            assert sorted(path.stem for path in (results / kind).iterdir()) == done


@pytest.fixture
def few_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """TIFFs of more than 200 × 200 pixels are read as slides."""
    monkeypatch.setattr(own, "LARGE", 200 * 200)


@pytest.fixture
def lower(kidney: Any) -> Iterator[Any]:
    """The slides' world with the threshold at the median of its predictions, so that something is found."""
    with cut_at_the_median(kidney, kidney.submission):
        yield kidney


@pytest.mark.usefixtures("few_are_large")
def test_a_grey_slide_is_predicted_all_over_and_this_is_said(
    lower: Any, tmp_path: Path, predict: Callable[..., tuple[int, str]]
) -> None:
    grey = np.repeat(noise(1, 320, 352)[..., :1], 3, axis=2)
    scale_bar = np.tile(grey, (3, 3, 1))
    scale_bar[8:16, 16:80] = (0, 0, 255)
    folder = tmp_path / "mine"
    paths = [write(folder / "one_channel.tif", grey[..., 0]), write(folder / "scale_bar.tif", scale_bar)]
    assert all(own.is_slide(path) for path in paths)
    code, text = predict(lower, folder)
    assert code == 0
    results = place(tmp_path, lower, "mine")
    for path in paths:
        assert f"{path}: less than 0.5 % of it shows colour" in text
        assert (band(results / "predictions" / path.name) > 0).mean() > 0.9
        labels = images.integers(results / "labels" / path.name)
        assert labels.shape == images.size(path)
        assert labels.any()
    # The same as if nobody had asked for background to be skipped.
    every = tmp_path / "every"
    write(every / "one_channel.tif", grey[..., 0])
    code, text = predict(lower, every, "predict.skip_background=false")
    assert (code, "shows colour" in text) == (0, False)
    expected = band(place(tmp_path, lower, "every") / "predictions" / "one_channel.tif")
    assert np.array_equal(band(results / "predictions" / "one_channel.tif"), expected)


@pytest.mark.usefixtures("few_are_large")
def test_glass_of_a_stained_slide_is_still_left_out(
    lower: Any, tmp_path: Path, predict: Callable[..., tuple[int, str]]
) -> None:
    image = np.full((512, 640, 3), 240, np.uint8)
    image[300:420, 400:520] = (150, 60, 190)
    path = write(tmp_path / "mine" / "a.tif", image)
    code, text = predict(lower, path.parent)
    assert (code, "shows colour" in text) == (0, False)
    codes = band(place(tmp_path, lower, "mine") / "predictions" / "a.tif")
    scale = 512 / codes.shape[0]
    assert (codes[: int(100 / scale), : int(100 / scale)] == 0).all(), "no network was there"
    assert (codes[int(330 / scale) : int(390 / scale), int(430 / scale) : int(490 / scale)] > 0).all()


def test_colour_is_looked_for_only_until_enough_was_found(tmp_path: Path) -> None:
    image = np.full((2048, 256, 3), 255, np.uint8)
    image[:64] = (150, 60, 190)
    with slides.open(write(tmp_path / "a.tif", image)) as slide:
        assert own.is_stained(slide)
    with slides.open(write(tmp_path / "b.tif", np.full((300, 300, 3), 255, np.uint8))) as slide:
        assert not own.is_stained(slide)
