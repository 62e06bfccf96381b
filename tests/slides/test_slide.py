"""Windows and bands: any size, any overlap, any process, each block decoded once, in bounded memory."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from histofold import slides
from histofold.errors import ConfigError, DataError
from histofold.inference.bandfile import BandFileWriter
from histofold.slides import layout as layout_module
from histofold.slides import slide as slide_module
from histofold.slides.gdal import CACHE_BYTES
from histofold.slides.reduce import reduce_array
from histofold.targets.base import Band
from histofold.tiles.grid import reduced

Picture = NDArray[np.uint8]
SCALES = st.sampled_from([1, 1.25, 1.5, 2, 3, 4, 2.7, 10, 43.03])


@pytest.fixture(scope="module")
def path(picture: Picture, write_gtiff: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slide")
    return write_gtiff(folder / "slide.tiff", picture, compress="lzw", blockysize=8, interleave="pixel")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pieces so small that a small picture is read in many of them by several threads."""
    monkeypatch.setattr(slide_module, "CHUNK_BYTES", 20_000)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), scale=SCALES)
def test_bands_are_the_whole_window_cut_into_rows(
    path: Path, small_chunks: None, data: st.DataObject, scale: float
) -> None:
    with slides.open(path, threads=3) as slide:
        height = data.draw(st.integers(1, reduced(slide.height, scale) + 5))
        overlap = data.draw(st.integers(0, height - 1)) if height < 40 else height // 2
        whole = slide.window(0, 0, slide.height, slide.width, scale)
        end = 0
        for index, (first, rows) in enumerate(slide.bands(height, scale, overlap)):
            assert first == index * (height - overlap)
            assert end < len(whole)  # no band without a new row
            np.testing.assert_array_equal(rows, whole[first : first + height])
            end = first + len(rows)
        assert end == len(whole)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), scale=st.sampled_from([1, 1.5, 2, 3, 2.5, 10]))
def test_a_window_on_the_lattice_is_a_part_of_the_whole(
    path: Path, small_chunks: None, data: st.DataObject, scale: float
) -> None:
    with slides.open(path) as slide:
        whole = slide.window(0, 0, slide.height, slide.width, scale)
        step = 2 if scale % 1 else 1
        row = data.draw(st.integers(0, len(whole) // 2 // step)) * step
        column = data.draw(st.integers(0, whole.shape[1] // 2 // step)) * step
        y, x = int(row * scale), int(column * scale)
        rows, columns = len(whole) - row, whole.shape[1] - column
        window = slide.window(y, x, slide.height - y, slide.width - x, scale)
        np.testing.assert_array_equal(window, whole[row : row + rows, column : column + columns])


@pytest.mark.parametrize("window", [(-1, 0, 5, 5), (0, -1, 5, 5), (297, 0, 5, 5), (0, 413, 5, 5), (0, 0, 0, 5)])
def test_a_window_outside_names_slide_and_size(path: Path, window: tuple[int, int, int, int]) -> None:
    with slides.open(path) as slide, pytest.raises(DataError, match=r"slide.tiff: window .* 301 × 417"):
        slide.window(*window)


@pytest.mark.parametrize(("height", "overlap"), [(0, 0), (5, 5), (5, -1)])
def test_impossible_bands_are_refused(path: Path, height: int, overlap: int) -> None:
    with slides.open(path) as slide, pytest.raises(ConfigError, match="overlap"):
        next(slide.bands(height, 1, overlap))


def test_thumbnail_has_at_most_the_asked_pixels(path: Path, picture: Picture) -> None:
    small, scale = slides.thumbnail(path, 100)
    assert scale == 5
    assert small.shape == (61, 84, 3)
    assert abs(float(small.mean()) - float(picture.mean())) < 2


def test_bands_can_be_left_early_and_begun_again(path: Path, picture: Picture, small_chunks: None) -> None:
    before = threading.active_count()
    with slides.open(path, threads=2) as slide:
        for _ in range(3):
            bands = slide.bands(16)
            np.testing.assert_array_equal(next(bands)[1], picture[:16])
            bands.close()
        assert threading.active_count() == before
        assert sum(len(rows) for _, rows in slide.bands(16)) == 301


def test_many_threads_share_one_slide(path: Path, picture: Picture) -> None:
    faults: list[str] = []
    with slides.open(path) as slide:

        def work(seed: int) -> None:
            random = np.random.default_rng(seed)
            for _ in range(20):
                y, x = int(random.integers(250)), int(random.integers(350))
                if not (slide.window(y, x, 50, 60) == picture[y : y + 50, x : x + 60]).all():
                    faults.append(f"{seed}: {y}, {x}")

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not faults


def test_a_slide_travels_to_a_worker_as_its_path(path: Path, picture: Picture) -> None:
    with slides.open(path, threads=2) as slide:
        slide.window(0, 0, 10, 10)
        assert len(pickle.dumps(slide)) < 1000
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            window = pool.submit(slide.window, 30, 40, 50, 60).result()
    np.testing.assert_array_equal(window, picture[30:80, 40:100])


def test_a_fork_does_not_share_the_parent_s_handles(path: Path, picture: Picture) -> None:
    with slides.open(path) as slide, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads, which is what is tested
        slide.window(0, 0, 10, 10)
        child = os.fork()
        if child == 0:
            same = (slide.window(30, 40, 50, 60) == picture[30:80, 40:100]).all()
            os._exit(0 if same else 1)
        slide.window(100, 100, 50, 50)
        assert os.waitpid(child, 0)[1] == 0


def test_reading_is_silent_and_leaves_others_warnings_alone(path: Path) -> None:
    code = (
        "import warnings, rasterio\n"
        "from histofold import slides\n"
        f"slide = slides.open({str(path)!r}); slide.window(0, 0, 99, 99, 2); list(slide.bands(50))\n"
        "print('ours done', flush=True)\n"
        f"rasterio.open({str(path)!r})\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert result.stdout == "ours done\n"
    # The one warning is that of the last line, which did not go through our reader.
    assert result.stderr.count("NotGeoreferencedWarning") == 1


def read_bytes() -> int:
    """Bytes that this process has read from files so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(lines[0].split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the kernel does not count what a process reads")
@pytest.mark.parametrize(
    "options",
    [
        {"compress": "lzw", "blockysize": 48, "interleave": "pixel"},
        {"compress": "deflate", "tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "pixel"},
        {"compress": "deflate", "tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "band"},
        {"compress": "lzw", "interleave": "pixel", "blockysize": 3000},
        {"compress": "lzw", "interleave": "band", "blockysize": 3000},
    ],
    ids=["strips", "tiles", "planar tiles", "one strip", "one strip a plane"],
)
@pytest.mark.parametrize("scale", [1, 3, 4])
def test_every_block_is_read_once(
    options: dict[str, object], scale: float, write_gtiff: Callable[..., Path], tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3000, 2000, 3), np.uint8)
    path = write_gtiff(tmp_path / "noise.tiff", noise, **options)
    size = path.stat().st_size
    with slides.open(path, threads=2) as slide:
        before = read_bytes()
        # Bands that end in the middle of blocks, and overlap.
        rows = sum(len(rows) for _, rows in slide.bands(170, scale, 13))
        read = read_bytes() - before
    assert rows > 3000 / scale
    assert size <= read < 1.1 * size


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the kernel does not count what a process reads")
@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("scale", [1, 3, 4])
def test_a_tall_strip_is_decoded_once_and_read_in_pieces(
    interleave: str, scale: float, write_gtiff: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3000, 2000, 3), np.uint8)
    path = write_gtiff(tmp_path / "tall.tiff", noise, compress="lzw", blockysize=1100, interleave=interleave)
    # Strips of 6.6 MB and pieces of a sixth of one, while GDAL's cache holds less than a colour of a strip.
    monkeypatch.setattr(layout_module, "TALL_BYTES", 1_000_000)
    monkeypatch.setattr(slide_module, "TALL_BYTES", 1_000_000)
    rasterio.env.set_gdal_config("GDAL_CACHEMAX", 1_000_000)
    try:
        with slides.open(path, threads=4) as slide:
            before = read_bytes()
            rows = np.concatenate([rows for _, rows in slide.bands(170, scale)])
            assert path.stat().st_size <= read_bytes() - before < 1.1 * path.stat().st_size
        np.testing.assert_array_equal(rows, reduce_array(noise, scale))
    finally:
        rasterio.env.set_gdal_config("GDAL_CACHEMAX", CACHE_BYTES)


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_the_plan_of_a_tall_strip_counts_what_decoding_it_takes(
    interleave: str, write_gtiff: Callable[..., Path], tmp_path: Path
) -> None:
    """Two strips of 90 MB: the resident memory of a process with many threads against its plan."""
    noise = np.tile(np.random.default_rng(0).integers(0, 256, (100, 1000, 3), np.uint8), (60, 10, 1))
    path = write_gtiff(tmp_path / "tall.tiff", noise, compress="lzw", blockysize=3000, interleave=interleave)
    code = (
        "import pathlib, sys\n"
        "from histofold import slides\n"
        "def status(name):\n"
        "    return int(pathlib.Path('/proc/self/status').read_text().split(name)[1].split()[0]) << 10\n"
        "list(slides.open(sys.argv[2], threads=8).bands(256, 4))\n"
        "before = status('VmRSS:')\n"
        "slide = slides.open(sys.argv[1], threads=8)\n"
        "for _ in slide.bands(256, 4):\n"
        "    pass\n"
        "print(slide.memory(256), status('VmHWM:') - before)\n"
    )
    small = write_gtiff(tmp_path / "small.tiff", noise[:64], compress="lzw", interleave=interleave)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(path), str(small)]
    output = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout.split()
    planned, grown = map(int, output)
    assert grown < planned < 6 * 90e6


def test_memory_does_not_grow_with_height(write_gtiff: Callable[..., Path], tmp_path: Path) -> None:
    """The highest resident memory of a process that walks a slide and one that walks another four times as high."""
    code = (
        "import pathlib, sys\n"
        "from histofold import slides\n"
        "slide = slides.open(sys.argv[1], threads=2)\n"
        "print(sum(int(rows[0, 0, 0]) * 0 + len(rows) for _, rows in slide.bands(256, 4)))\n"
        "print(pathlib.Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    peaks = []
    for height in (3000, 12000):
        picture = np.zeros((height, 4000, 3), np.uint8)
        picture[::7] = 200
        path = write_gtiff(tmp_path / f"{height}.tiff", picture, compress="deflate", blockysize=64, interleave="pixel")
        command = [sys.executable, "-c", code, str(path)]
        output = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout.split()
        assert int(output[0]) == height // 4
        peaks.append(int(output[1]))
    # The slides are 36 and 144 MB; the peaks differ by less than 10.
    assert peaks[1] - peaks[0] < 10_000


@pytest.mark.parametrize("kind", ["slide", "bands"])
def test_the_cache_of_gdal_is_bounded(kind: str, path: Path, tmp_path: Path) -> None:
    read = {
        "slide": "from histofold import slides; slides.open(sys.argv[1]).window(0, 0, 9, 9)\n",
        "bands": "from histofold.inference.bandfile import BandFile; BandFile(pathlib.Path(sys.argv[2])).rows(0, 9)\n",
    }
    with BandFileWriter(tmp_path / "bands.tif", [Band("foreground")], 20, 30, 1.0) as writer:
        writer.write_rows(0, np.zeros((1, 20, 30), np.uint8))
    code = (
        f"import pathlib, sys\n{read[kind]}"
        "from rasterio.env import get_gdal_config\n"
        "print(get_gdal_config('GDAL_CACHEMAX'))\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "GDAL_CACHEMAX"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "bands.tif")]
    output = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    assert int(output) == 16 << 20


@pytest.mark.slow
def test_a_sparse_slide_of_three_gigapixels(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tiff"
    options = {"driver": "GTiff", "dtype": "uint8", "tiled": True, "blockxsize": 512, "blockysize": 512}
    with rasterio.open(
        path, "w", height=60_000, width=50_000, count=3, compress="deflate", sparse_ok="true", interleave="pixel",
        bigtiff="yes", **options,
    ) as dataset:  # fmt: skip
        spot = np.full((3, 512, 512), 255, np.uint8)
        dataset.write(spot, window=rasterio.windows.Window(49_664, 59_392, 336, 512))
    assert path.stat().st_size < 5e6
    with slides.open(path) as slide:
        assert (slide.height, slide.width) == (60_000, 50_000)
        total = 0
        for first, rows in slide.bands(512, 8):
            total += int(rows.sum(dtype=np.int64))
            last = first + len(rows)
        assert last == 7500
        assert total == 3 * 255 * 42 * 64
