"""Slides and images into a store: exact pixels, masks and weights; once, whole, in parallel, in shards."""

from __future__ import annotations

import errno
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from histofold import slides
from histofold.competitions.base import Sample
from histofold.errors import ConfigError, DataError
from histofold.rle import RunMask
from histofold.slides.reduce import reduce_array
from histofold.tiles import arrays, cutting
from histofold.tiles import prepare as prepare_module
from histofold.tiles.prepare import PrepareReport, plan, prepare, work_of
from histofold.tiles.store import COLUMNS, Recipe, Store

HEIGHT, WIDTH = 500, 640


@dataclass
class FakeSlides:
    """Slides in a folder, as a competition gives them: `<id>.tiff`, and the truth as `<id>.npy`."""

    folder: Path
    name: str = "fake"
    kind: str = "slides"
    ids: list[str] = field(default_factory=list)

    def samples(self) -> list[Sample]:
        known = [Sample(key, "train", *self._size(key), key, "slide") for key in self.ids]
        return [*known, Sample("secret", "test", 10, 10, "secret", "slide")]

    def sample(self, sample_id: str) -> Sample:
        return next(sample for sample in self.samples() if sample.sample_id == sample_id)

    def source(self, sample_id: str) -> Path:
        return self.folder / f"{sample_id}.tiff"

    def files(self, sample_id: str) -> list[Path]:
        return [self.source(sample_id)]

    def mask(self, sample_id: str) -> RunMask | None:
        path = self.folder / f"{sample_id}.npy"
        return RunMask.from_mask(np.load(path)) if path.exists() else None

    def anatomy(self, sample_id: str) -> Path | None:
        path = self.folder / f"{sample_id}-anatomical-structure.json"
        return path if path.exists() else None

    def _size(self, sample_id: str) -> tuple[int, int]:
        size: tuple[int, int] = np.load(self.folder / f"{sample_id}.npy", mmap_mode="r").shape
        return size


@dataclass
class FakeImages:
    """Images in a folder: `<id>.npy` and `<id>-labels.npy`; `unknown` has no labels."""

    folder: Path
    name: str = "fake"
    kind: str = "images"

    def samples(self) -> list[Sample]:
        found = sorted(path for path in self.folder.glob("*.npy") if not path.stem.endswith("-labels"))
        return [Sample(path.stem, "train", *np.load(path).shape[:2], path.stem, "x") for path in found]

    def sample(self, sample_id: str) -> Sample:
        return next(sample for sample in self.samples() if sample.sample_id == sample_id)

    def source(self, sample_id: str) -> Path:
        return self.folder / f"{sample_id}.npy"

    def files(self, sample_id: str) -> list[Path]:
        labels = self.folder / f"{sample_id}-labels.npy"
        return [self.source(sample_id), *([labels] if labels.exists() else [])]

    def image(self, sample_id: str) -> NDArray[np.uint8]:
        image: NDArray[np.uint8] = np.load(self.source(sample_id))
        return image

    def labels(self, sample_id: str) -> NDArray[Any] | None:
        path = self.folder / f"{sample_id}-labels.npy"
        return np.load(path) if path.exists() else None


def paint(seed: int, height: int = HEIGHT, width: int = WIDTH) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A slide with glass on its left third, stained tissue, and two round objects in the tissue."""
    random = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 242, np.uint8)
    tissue = picture[:, width // 3 :]
    tissue[:] = (190, 110, 170)
    rows, columns = np.mgrid[:height, :width]
    mask = np.zeros((height, width), np.uint8)
    for y, x in ((height // 4, width // 2), (3 * height // 4, 5 * width // 6)):
        mask[(rows - y) ** 2 + (columns - x) ** 2 < (min(height, width) // 12) ** 2] = 1
    picture[mask > 0] = (120, 40, 110)
    return np.clip(picture + random.integers(-6, 7, picture.shape), 0, 255).astype(np.uint8), mask


def add_slide(folder: Path, sample_id: str, picture: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    height, width = mask.shape
    with rasterio.open(
        folder / f"{sample_id}.tiff", "w", driver="GTiff", height=height, width=width, count=3, dtype="uint8",
        compress="deflate", blockysize=24, interleave="pixel",
    ) as dataset:  # fmt: skip
        dataset.write(picture.transpose(2, 0, 1))
    np.save(folder / f"{sample_id}.npy", mask)


@pytest.fixture
def kidney(tmp_path: Path) -> FakeSlides:
    folder = tmp_path / "raw"
    folder.mkdir()
    for seed, sample_id in enumerate(("alpha", "beta", "gamma")):
        add_slide(folder, sample_id, *paint(seed))
    return FakeSlides(folder, ids=["alpha", "beta", "gamma"])


@pytest.fixture
def nuclei(tmp_path: Path) -> FakeImages:
    folder = tmp_path / "raw"
    folder.mkdir()
    random = np.random.default_rng(0)
    for sample_id, side, count in (("a", 40, 3), ("b", 57, 300), ("c", 33, 70_000)):
        np.save(folder / f"{sample_id}.npy", random.integers(0, 256, (side, side + 5, 3), np.uint8))
        np.save(folder / f"{sample_id}-labels.npy", random.integers(0, count + 1, (side, side + 5), np.int32))
    labels = np.load(folder / "c-labels.npy")
    labels[0, 0] = 70_000
    np.save(folder / "c-labels.npy", labels)
    np.save(folder / "unknown.npy", np.zeros((10, 10, 3), np.uint8))
    return FakeImages(folder)


@pytest.fixture(params=[1.0, 1.5, 2.0, 4.0])
def scale(request: pytest.FixtureRequest) -> float:
    return float(request.param)


def test_tiles_hold_the_slide_s_pixels_and_truth(kidney: FakeSlides, tmp_path: Path, scale: float) -> None:
    recipe = Recipe("tiles", 64, scale, ("grid", "shifted", "centred"), 0.0)
    report = prepare(kidney, recipe, tmp_path / "store", workers=1)
    store = Store.open(tmp_path / "store")
    assert store.recipe == recipe
    assert list(store.tiles.columns) == list(COLUMNS)
    assert store.samples() == ["alpha", "beta", "gamma"]
    assert (report.made, report.kept, report.recall, report.object_recall) == (3, 0, 1.0, 1.0)
    picture, mask = paint(1)
    small = reduce_array(picture, scale)
    truth = reduce_array(np.repeat(mask[:, :, None] * 255, 3, axis=2), scale)[:, :, 0] >= 127.5
    covered = np.zeros(small.shape[:2], bool)
    pixels, masks = store.pixels("beta"), store.masks("beta")
    tiles = store.tiles[store.tiles["sample_id"] == "beta"]
    assert sorted(tiles["index"]) == list(range(len(pixels))) == list(range(len(masks)))
    for tile in tiles.itertuples():
        # A tile may begin within a full-size pixel: its column is then the one before.
        y, x = int(np.ceil(tile.y / scale)), int(np.ceil(tile.x / scale))
        rows, columns = slice(y, y + tile.valid_height), slice(x, x + tile.valid_width)
        np.testing.assert_array_equal(pixels[tile.index, : tile.valid_height, : tile.valid_width], small[rows, columns])
        np.testing.assert_array_equal(masks[tile.index, : tile.valid_height, : tile.valid_width], truth[rows, columns])
        assert tile.foreground == pytest.approx(truth[rows, columns].mean(), abs=1e-6)
        covered[rows, columns] |= tile.kind == "grid"
    assert covered.all()
    assert set(tiles["kind"]) == {"grid", "shifted", "centred"}


def test_a_centred_tile_has_its_object_in_the_middle(kidney: FakeSlides, tmp_path: Path) -> None:
    prepare(kidney, Recipe("tiles", 64, 2.0, ("centred",), 0.5), tmp_path / "store", workers=1)
    store = Store.open(tmp_path / "store")
    assert len(store.tiles) == 6
    tile = store.tiles.iloc[0]
    # A pixel of the tile is two of the slide.
    assert (tile["y"] + 64, tile["x"] + 64) == (pytest.approx(HEIGHT // 4, abs=1), pytest.approx(WIDTH // 2, abs=1))
    assert store.masks("alpha")[0, 32, 32] == 1


def test_shifted_tiles_lie_half_a_tile_later(kidney: FakeSlides, tmp_path: Path) -> None:
    prepare(kidney, Recipe("tiles", 64, 1.0, ("shifted",), 0.0), tmp_path / "store", workers=1)
    tiles = Store.open(tmp_path / "store").tiles
    assert set(tiles["y"] % 64) == set(tiles["x"] % 64) == {32}
    assert (tiles["y"] + 64).max() <= HEIGHT
    assert (tiles["valid_height"] == 64).all()


def test_glass_is_left_out_and_the_recall_of_the_truth_is_told(kidney: FakeSlides, tmp_path: Path) -> None:
    picture, mask = paint(0)
    # An object that lies on glass: the tissue filter loses it, and has to say so.
    mask[10:40, 10:40] = 1
    add_slide(kidney.folder, "alpha", picture, mask)
    report = prepare(kidney, Recipe("tiles", 64, 1.0, ("grid", "shifted"), 0.3), tmp_path / "store", workers=1)
    tiles = Store.open(tmp_path / "store").tiles
    assert (tiles["tissue"] >= 0.3).all()
    assert tiles["x"].min() >= WIDTH // 3 - 64
    area = [paint(seed)[1].sum() for seed in (0, 1, 2)]
    assert report.recall == pytest.approx(sum(area) / (sum(area) + 900))
    assert report.counts["objects"] == 7
    assert report.counts["objects_kept"] == 6
    assert "6 of 7 objects" in str(report)


def test_a_slide_smaller_than_a_tile_is_padded_with_its_edge(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    picture, mask = paint(0, 50, 300)
    add_slide(tmp_path / "raw", "small", picture, mask)
    prepare(FakeSlides(tmp_path / "raw", ids=["small"]), Recipe("tiles", 128, 1.0), tmp_path / "store", workers=1)
    store = Store.open(tmp_path / "store")
    assert store.tiles["x"].tolist() == [0, 128, 172]
    assert (store.tiles["valid_height"] == 50).all()
    assert (store.tiles["height"] == 50).all()
    tile = store.pixels("small")[1]
    np.testing.assert_array_equal(tile[:50], picture[:, 128:256])
    np.testing.assert_array_equal(tile[50:], np.broadcast_to(tile[49], (78, 128, 3)))


def test_anatomical_structures_give_weights(kidney: FakeSlides, tmp_path: Path) -> None:
    def feature(name: str, x0: int, x1: int) -> dict[str, Any]:
        ring = [[x0, 0], [x1, 0], [x1, HEIGHT], [x0, HEIGHT], [x0, 0]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        return {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}}}

    content = [feature("Cortex", 384, 640), feature("Outer Medulla", 192, 320)]
    (kidney.folder / "beta-anatomical-structure.json").write_text(json.dumps(content))
    prepare(kidney, Recipe("tiles", 64, 1.0), tmp_path / "store", workers=1)
    tiles = Store.open(tmp_path / "store").tiles
    assert (tiles.loc[tiles["sample_id"] == "alpha", "weight"] == 1).all()
    beta = tiles[(tiles["sample_id"] == "beta") & (tiles["y"] == 64)].set_index("x")["weight"]
    assert (beta[0], beta[256], beta[512]) == (0.5, 0.25, 1.0)
    (kidney.folder / "beta-anatomical-structure.json").write_text('[{"geometry": {}}]')
    with pytest.raises(DataError, match=r"beta-anatomical-structure.json: not polygons.*other 2 samples"):
        prepare(kidney, Recipe("tiles", 64, 1.0), tmp_path / "store", workers=1)


def test_images_are_stored_whole_in_the_smallest_type(nuclei: FakeImages, tmp_path: Path) -> None:
    report = prepare(nuclei, Recipe(), tmp_path / "store", workers=1)
    store = Store.open(tmp_path / "store")
    assert report.made == 4
    assert store.tiles["tile_id"].tolist() == ["a", "b", "c"]  # `unknown` has no truth
    assert [store.masks(key).dtype for key in "abc"] == [np.uint8, np.uint16, np.uint32]
    for key in "abc":
        np.testing.assert_array_equal(store.pixels(key), nuclei.image(key))
        np.testing.assert_array_equal(store.masks(key), nuclei.labels(key))
    assert isinstance(store.pixels("a"), np.memmap)
    with pytest.raises(DataError, match="not in this store"):
        store.pixels("unknown")


def test_images_can_be_reduced(nuclei: FakeImages, tmp_path: Path) -> None:
    prepare(nuclei, Recipe(scale=2.0), tmp_path / "store", workers=1)
    store = Store.open(tmp_path / "store")
    assert store.recipe.name == "whole_s2"
    np.testing.assert_array_equal(store.pixels("b"), reduce_array(nuclei.image("b"), 2))
    labels = nuclei.labels("b")
    assert labels is not None
    assert store.masks("b").shape == (29, 31)
    np.testing.assert_array_equal(store.masks("b")[:28, :31], labels[1::2, 1::2])


def test_a_second_run_does_nothing_and_says_so(kidney: FakeSlides, tmp_path: Path) -> None:
    recipe, folder = Recipe("tiles", 64, 2.0), tmp_path / "store"
    prepare(kidney, recipe, folder, workers=1)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    report = prepare(kidney, recipe, folder, workers=1)
    assert (report.made, report.kept) == (0, 3)
    assert "nothing to do" in str(report)
    assert report.recall == 1.0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    assert prepare(kidney, recipe, folder, workers=1, force=True).made == 3


def test_a_changed_slide_truth_or_setting_is_noticed(kidney: FakeSlides, tmp_path: Path) -> None:
    folder = tmp_path / "store"

    def run(least: float = 0.0) -> PrepareReport:
        return prepare(kidney, Recipe("tiles", 64, 2.0, ("grid",), least), folder, workers=1)

    run()
    fingerprint = Store.open(folder).fingerprint
    picture, mask = paint(9)
    add_slide(kidney.folder, "beta", picture, mask)
    report = run()
    assert (report.made, report.kept) == (1, 2)
    assert "inputs have changed: beta" in report.note
    changed = Store.open(folder).fingerprint
    assert changed != fingerprint
    np.save(kidney.folder / "gamma.npy", np.roll(mask, 1, axis=0))
    report = run()
    assert "gamma" in report.note
    assert report.made == 1
    report = run(least=0.5)
    assert report.made == 3
    assert "settings of this store have changed" in report.note
    (folder / "pixels" / "alpha.npy").unlink()
    assert run(least=0.5).made == 1


def test_a_sample_that_is_gone_leaves_the_store(kidney: FakeSlides, tmp_path: Path) -> None:
    recipe, folder = Recipe("tiles", 64, 2.0), tmp_path / "store"
    prepare(kidney, recipe, folder, workers=1)
    before = Store.open(folder)
    fewer = FakeSlides(kidney.folder, ids=["alpha", "gamma"])
    first = prepare(fewer, recipe, folder, workers=1, shard=(0, 2))
    assert "no such samples any more, their files stay (prepare.force=true deletes them): beta" in str(first)
    after = Store.open(folder)
    assert after.samples() == ["alpha", "gamma"]
    assert after.fingerprint != before.fingerprint
    assert json.loads((folder / "recipe.json").read_text())["samples"] == 2
    assert "nothing to do" in str(prepare(fewer, recipe, folder, workers=1))
    assert prepare(kidney, recipe, folder, workers=1).made == 0, "another machine has them all"
    forced = prepare(fewer, recipe, folder, workers=1, force=True)
    assert "removed from the store, as there are no such samples any more: beta" in str(forced)
    prepare(fewer, recipe, tmp_path / "fresh", workers=1)
    assert contents(folder) == contents(tmp_path / "fresh"), "no file of it is left"
    # As it is put back, it is made again.
    assert prepare(kidney, recipe, folder, workers=1).made == 1
    assert Store.open(folder).fingerprint == before.fingerprint


def test_a_table_that_is_not_of_the_records_is_written_again(kidney: FakeSlides, tmp_path: Path) -> None:
    recipe, folder = Recipe("tiles", 64, 2.0), tmp_path / "store"
    prepare(kidney, recipe, folder, workers=1)
    whole = contents(folder)
    for damage in ('{"samples": 7}', "no JSON"):
        (folder / "recipe.json").write_text(damage)
        prepare(kidney, recipe, folder, workers=1)
        assert contents(folder) == whole


def test_a_slide_that_asks_for_all_memory_stops_no_other(
    kidney: FakeSlides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = slides.open

    def opened(path: Path, *rest: Any) -> Any:
        if path.stem == "beta":
            raise MemoryError("4 EB")
        return real(path, *rest)

    monkeypatch.setattr(slides, "open", opened)
    recipe, folder = Recipe("tiles", 64, 1.0), tmp_path / "store"
    assert plan(kidney, recipe, 1).peak_memory > 0
    with pytest.raises(DataError, match=r"beta.tiff: reading it asks for more memory.*other 2 samples are finished"):
        prepare(kidney, recipe, folder, workers=1)
    monkeypatch.undo()
    assert prepare(kidney, recipe, folder, workers=1).made == 1


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_processes_and_shards_give_the_same_bytes(kidney: FakeSlides, tmp_path: Path) -> None:
    recipe = Recipe("tiles", 64, 1.5, ("grid", "shifted", "centred"), 0.3)
    prepare(kidney, recipe, tmp_path / "one", workers=1)
    prepare(kidney, recipe, tmp_path / "pool", workers=2)
    first = prepare(kidney, recipe, tmp_path / "shards", workers=1, shard=(0, 2))
    assert (first.made, first.others) == (2, 1)
    assert "not finished" in str(first)
    with pytest.raises(DataError, match="not finished"):
        Store.open(tmp_path / "shards")
    assert prepare(kidney, recipe, tmp_path / "shards", workers=1, shard=(1, 2)).others == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "pool") == contents(tmp_path / "shards")


def test_the_last_of_shards_that_run_side_by_side_writes_the_table(
    kidney: FakeSlides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, make = Recipe("tiles", 64, 2.0), prepare_module._make_all

    def beside(*arguments: Any) -> Any:
        # While shard 0 works, shard 1 begins and ends: neither saw the other's samples finished when it began.
        monkeypatch.setattr(prepare_module, "_make_all", make)
        assert prepare(kidney, recipe, tmp_path / "shards", workers=1, shard=(1, 2)).others > 0
        return make(*arguments)

    monkeypatch.setattr(prepare_module, "_make_all", beside)
    assert prepare(kidney, recipe, tmp_path / "shards", workers=1, shard=(0, 2)).others == 0
    prepare(kidney, recipe, tmp_path / "one", workers=1)
    assert contents(tmp_path / "one") == contents(tmp_path / "shards")


def test_a_bad_slide_is_named_and_the_others_are_kept(kidney: FakeSlides, tmp_path: Path) -> None:
    path = kidney.source("beta")
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    recipe, folder = Recipe("tiles", 64, 1.0), tmp_path / "store"
    with pytest.raises(DataError, match=r"beta.tiff: the TIFF is truncated.*other 2 samples are finished"):
        prepare(kidney, recipe, folder, workers=1)
    with pytest.raises(DataError, match="not finished"):
        Store.open(folder)
    assert not list(folder.rglob("*.partial"))
    path.write_bytes(good)
    report = prepare(kidney, recipe, folder, workers=1)
    assert (report.made, report.kept) == (1, 2)


def test_a_truth_of_another_size_or_none_is_refused(kidney: FakeSlides, nuclei_folder: Path, tmp_path: Path) -> None:
    np.save(kidney.folder / "beta.npy", np.zeros((HEIGHT, WIDTH - 1), np.uint8))
    (kidney.folder / "gamma.npy").rename(kidney.folder / "elsewhere.npy")
    kidney._size = lambda sample_id: (HEIGHT, WIDTH)  # type: ignore[method-assign]
    with pytest.raises(DataError, match=r"2 of 3 samples failed.*500 × 640.*500 × 639.*without truth"):
        prepare(kidney, Recipe("tiles", 64, 1.0), tmp_path / "store", workers=1)
    images = FakeImages(nuclei_folder)
    np.save(nuclei_folder / "a.npy", np.zeros((30, 30, 3), np.uint8))
    np.save(nuclei_folder / "a-labels.npy", np.zeros((30, 31), np.uint8))
    with pytest.raises(DataError, match=r"a.npy: the image has 30 × 30 pixels and its labels 30 × 31"):
        prepare(images, Recipe(), tmp_path / "images", workers=1)


@pytest.fixture
def nuclei_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images_raw"
    folder.mkdir()
    return folder


def test_tiles_of_images_and_whole_slides_are_refused(kidney: FakeSlides, nuclei_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prepare.kind=whole: fake has slides, set prepare.kind=tiles"):
        prepare(kidney, Recipe(), tmp_path / "store")
    with pytest.raises(ConfigError, match=r"prepare.kind=tiles: fake has images"):
        plan(FakeImages(nuclei_folder), Recipe("tiles", 64, 1.0))


def test_a_full_disk_leaves_nothing_half(kidney: FakeSlides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, folder = Recipe("tiles", 64, 1.0), tmp_path / "store"

    class FullDisk(arrays.GrowingArray):
        def append(self, array: NDArray[Any]) -> None:
            if self.count == 3:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().append(array)

    with monkeypatch.context() as patch:
        patch.setattr(arrays, "GrowingArray", FullDisk)
        with pytest.raises(DataError, match="disk is full"):
            prepare(kidney, recipe, folder, workers=1)
    assert not [path for path in folder.rglob("*") if path.is_file()]
    assert prepare(kidney, recipe, folder, workers=1).made == 3


def test_what_breaks_off_between_arrays_and_record_is_made_again(
    kidney: FakeSlides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from histofold.tiles import records

    recipe, folder = Recipe("tiles", 64, 1.0), tmp_path / "store"
    prepare(kidney, recipe, folder, workers=1)
    before = contents(folder)

    def killed(self: records.Record, folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records.Record, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(kidney, recipe, folder, workers=1, force=True)
    with pytest.raises(DataError, match="not finished"):
        Store.open(folder)
    assert prepare(kidney, recipe, folder, workers=1).made == 1
    assert contents(folder) == before


def test_each_slide_is_walked_once_for_three_grids(
    kidney: FakeSlides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks: list[Path] = []
    bands = slides.Slide.bands

    def counted(self: slides.Slide, *arguments: Any) -> Any:
        walks.append(self.path)
        return bands(self, *arguments)

    def never(self: slides.Slide, *arguments: Any) -> None:
        raise AssertionError("a window was read beside the bands")

    monkeypatch.setattr(slides.Slide, "bands", counted)
    monkeypatch.setattr(slides.Slide, "window", never)
    prepare(kidney, Recipe("tiles", 64, 1.0, ("grid", "shifted", "centred"), 0.1), tmp_path / "store", workers=1)
    assert walks == [kidney.source(key) for key in kidney.ids]


def test_rows_that_are_held_are_bounded_by_tile_and_band(kidney: FakeSlides, monkeypatch: pytest.MonkeyPatch) -> None:
    picture, mask = paint(0, 3000, 100)
    add_slide(kidney.folder, "tall", picture, mask)
    held: list[int] = []
    join = np.concatenate

    def watched(parts: list[NDArray[Any]]) -> NDArray[Any]:
        joined: NDArray[Any] = join(parts)
        held.append(len(joined))
        return joined

    runs = RunMask.from_mask(mask)
    with slides.open(kidney.folder / "tall.tiff") as slide:
        cutter = cutting.Cutter(slide, runs, Recipe("tiles", 128, 1.0, ("grid", "shifted"), 0.0))
        monkeypatch.setattr(cutting.np, "concatenate", watched)
        found = [place for place, _ in cutter._tiles()]
    assert found == cutter.places
    assert len(held) > 40
    assert max(held) <= 128 + 64 + 64


def test_the_plan_grows_with_the_work_and_shrinks_with_what_is_done(kidney: FakeSlides, tmp_path: Path) -> None:
    small = plan(kidney, Recipe("tiles", 64, 4.0), workers=1)
    large = plan(kidney, Recipe("tiles", 64, 1.0), workers=1)
    assert large.disk == pytest.approx(16 * small.disk, rel=0.01)
    assert plan(kidney, Recipe("tiles", 64, 1.0), workers=3).peak_memory > large.peak_memory
    recipe, folder = Recipe("tiles", 64, 1.0), tmp_path / "store"
    prepare(kidney, recipe, folder, workers=1)
    stored = sum(path.stat().st_size for path in folder.rglob("*.npy"))
    # The estimate knows no tiles that lie flush with the end.
    assert 0.8 * stored < large.disk < 1.2 * stored
    assert plan(kidney, recipe, 1, work_of(kidney, recipe, folder)).disk == 0


def test_a_shard_plans_its_own_part(kidney: FakeSlides, tmp_path: Path) -> None:
    recipe, folder = Recipe("tiles", 64, 1.0), tmp_path / "store"
    whole = plan(kidney, recipe, 1, work_of(kidney, recipe, folder))
    assert whole == plan(kidney, recipe, 1)
    parts = [work_of(kidney, recipe, folder, (index, 3)) for index in range(3)]
    assert [work.todo for work in parts] == [["alpha"], ["beta"], ["gamma"]]
    for work in parts:
        assert plan(kidney, recipe, 1, work).disk == pytest.approx(whole.disk / 3, rel=0.01)
        assert plan(kidney, recipe, 1, work).seconds == pytest.approx(whole.seconds / 3)


def test_what_is_made_again_is_planned_again(kidney: FakeSlides, tmp_path: Path) -> None:
    recipe, folder = Recipe("tiles", 64, 1.0), tmp_path / "store"
    prepare(kidney, recipe, folder, workers=1)
    whole = plan(kidney, recipe, 1)
    assert plan(kidney, recipe, 1, work_of(kidney, recipe, folder, force=True)) == whole
    other = Recipe("tiles", 64, 1.0, ("grid",), 0.3)
    assert plan(kidney, other, 1, work_of(kidney, other, folder)).disk == plan(kidney, other, 1).disk > 0
    add_slide(kidney.folder, "beta", *paint(9))
    work = work_of(kidney, recipe, folder)
    assert (work.todo, work.states["beta"]) == (["beta"], "inputs")
    assert plan(kidney, recipe, 1, work).disk == pytest.approx(whole.disk / 3, rel=0.01)
    (folder / "masks" / "gamma.npy").unlink()
    assert work_of(kidney, recipe, folder).todo == ["beta", "gamma"]
    assert prepare(kidney, recipe, folder, 1, work=work_of(kidney, recipe, folder)).made == 2


def test_a_slide_that_cannot_be_opened_stops_neither_plan_nor_states(
    kidney: FakeSlides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, folder = Recipe("tiles", 64, 1.0), tmp_path / "store"
    prepare(kidney, recipe, folder, workers=1)
    path, mask = kidney.source("beta"), FakeSlides.mask
    path.write_bytes(path.read_bytes()[:-100])

    def strict(self: FakeSlides, sample_id: str) -> RunMask | None:
        # As the runs of a competition, which are as large as the slide's header says.
        with slides.open(self.source(sample_id)):
            return mask(self, sample_id)

    monkeypatch.setattr(FakeSlides, "mask", strict)
    monkeypatch.setattr(FakeSlides, "_size", lambda self, key: (0, 0) if key == "beta" else (HEIGHT, WIDTH))
    work = work_of(kidney, recipe, folder)
    assert work.states == {"alpha": "true", "beta": "broken", "gamma": "true"}
    alone = plan(kidney, recipe, 1, work)
    assert (alone.disk, alone.seconds) == (0, 0)
    assert alone.peak_memory > 0
    assert plan(kidney, recipe, 1).disk > 0
    with pytest.raises(DataError, match=r"beta.tiff: the TIFF is truncated.*other 2 samples are finished"):
        prepare(kidney, recipe, folder, workers=1)
    assert prepare(kidney, recipe, folder, workers=1, shard=(0, 2)).others == 1, "the part without it is finished"


def test_remarks_about_what_was_made_are_in_the_report(
    kidney: FakeSlides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, folder = Recipe("tiles", 64, 2.0), tmp_path / "store"
    odd = {"alpha": "alpha is odd", "gamma": "gamma, too"}
    monkeypatch.setattr(FakeSlides, "remark", lambda self, key: odd.get(key, ""), raising=False)
    text = str(prepare(kidney, recipe, folder, workers=1))
    assert text.splitlines()[1:] == ["note: alpha is odd", "note: gamma, too"]
    assert prepare(kidney, recipe, folder, workers=1).remarks == [], "they are kept"
    (kidney.folder / "beta.npy").unlink()
    kidney._size = lambda sample_id: (HEIGHT, WIDTH)  # type: ignore[method-assign]
    with pytest.raises(DataError, match=r"without truth.*; note: alpha is odd; note: gamma, too"):
        prepare(kidney, recipe, folder, workers=1, force=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("count", [0, 1, 12])
def test_a_growing_array_is_a_plain_npy_file(tmp_path: Path, dtype: type, count: int) -> None:
    path = tmp_path / "grown.npy"
    parts = [np.full((3, 4), number, dtype) for number in range(count)]
    with arrays.growing(path, (3, 4), dtype) as array:
        for part in parts:
            array.append(part)
    loaded = np.load(path, mmap_mode="r")
    assert loaded.shape == (count, 3, 4)
    assert loaded.dtype == dtype
    np.testing.assert_array_equal(loaded, np.array(parts, dtype).reshape(count, 3, 4))
    with pytest.raises(ValueError, match="shape"), arrays.growing(path, (3, 4), dtype) as array:
        array.append(np.zeros((4, 3), dtype))
    assert np.load(path).shape == (count, 3, 4)


def test_a_head_keeps_its_length_for_any_number_of_tiles() -> None:
    lengths = set()
    for count in (0, 9, 10, 123_456_789):
        array = arrays.GrowingArray(io.BytesIO(), (1024, 1024, 3), np.uint8)
        array.count = count
        lengths.add(len(array._header()))
    assert len(lengths) == 1


def test_the_mask_of_a_tile_is_aligned_at_fractional_scales(kidney: FakeSlides) -> None:
    """A tile that begins within a full-size pixel has the truth of just its cells."""
    picture, mask = paint(4)
    add_slide(kidney.folder, "alpha", picture, mask)
    runs = RunMask.from_mask(mask)
    for scale in (1.5, 1.3, 8 / 3):
        whole = runs.reduced_mask(0, 0, HEIGHT, WIDTH, scale)
        with slides.open(kidney.source("alpha")) as slide:
            cutter = cutting.Cutter(slide, runs, Recipe("tiles", 48, scale, ("grid", "shifted", "centred")))
            for place in cutter.places:
                expected = whole[place.y : place.y + 48, place.x : place.x + 48]
                np.testing.assert_array_equal(cutter._truth(place), expected)
