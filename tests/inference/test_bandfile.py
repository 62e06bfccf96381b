"""Band files: what is written comes back, by any program; half of one never appears."""

from __future__ import annotations

import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from histofold.errors import DataError
from histofold.inference.bandfile import BandFile, BandFileWriter, dequantise, quantise
from histofold.targets.base import Band

BANDS = (Band("foreground"), Band("flow_y", -1.0, 1.0), Band("distance", 0.0, 12.5))


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 600), width=st.integers(1, 300), cuts=st.lists(st.integers(1, 300), max_size=4))
def test_rows_in_any_pieces_come_back(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("bands") / "a.tif"
    codes = np.random.default_rng(height).integers(0, 256, (3, height, width), dtype=np.uint8)
    edges = sorted({0, height, *(cut for cut in cuts if cut < height)})
    with BandFileWriter(path, BANDS, height, width, 4.0, height * 4 - 1, width * 4 - 3, "abc") as writer:
        for first, last in pairwise(edges):
            writer.write_rows(first, codes[:, first:last])
    with BandFile(path) as file:
        assert file.bands == BANDS
        assert (file.height, file.width, file.scale) == (height, width, 4.0)
        assert file.full_size == (height * 4 - 1, width * 4 - 3)
        assert file.fingerprint == "abc"
        np.testing.assert_array_equal(file.rows(0, height), codes)
        np.testing.assert_array_equal(file.rows(height // 3, height), codes[:, height // 3 :])
        np.testing.assert_array_equal(file.band_uint8("flow_y"), codes[1])
        values = file.read()
        assert list(values) == [band.name for band in BANDS]
        np.testing.assert_allclose(values["flow_y"], -1 + codes[1] / 255 * 2, atol=1e-6)
        # Decoders read nothing beyond 1, whatever units a target has.
        np.testing.assert_allclose(values["distance"], codes[2] / 255, atol=1e-6)
    assert [item.name for item in path.parent.iterdir()] == ["a.tif"]


def test_any_program_reads_names_scale_and_offset(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with BandFileWriter(path, BANDS, 300, 280, 4.0) as writer:
        writer.write_rows(0, np.full((3, 300, 280), 51, dtype=np.uint8))
    with rasterio.open(path) as file:
        assert file.descriptions == ("foreground", "flow_y", "distance")
        assert file.scales == pytest.approx((1 / 255, 2 / 255, 12.5 / 255))
        assert file.offsets == (0.0, -1.0, 0.0)
        assert file.profile["compress"] == "deflate"
        assert file.profile["tiled"]
        assert file.transform.a == 4.0
        assert file.read(1).dtype == np.uint8


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_no_remarks_on_georeference(tmp_path: Path, scale: float) -> None:
    """rasterio warns of files without a transform; ours have one, so nothing needs to be silenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with BandFileWriter(tmp_path / "a.tif", BANDS[:1], 8, 9, scale) as writer:
            writer.write_rows(0, np.zeros((1, 8, 9), dtype=np.uint8))
        with rasterio.open(tmp_path / "a.tif") as file:
            file.read()


def test_codes_and_values() -> None:
    band = Band("flow_x", -1.0, 1.0)
    codes = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(quantise(dequantise(codes, band).astype(np.float64), band), codes)
    np.testing.assert_array_equal(quantise(np.array([-9.0, -1.0, 1.0, 9.0]), band), [0, 0, 255, 255])


@pytest.mark.parametrize("error", [RuntimeError("reader broke"), KeyboardInterrupt()])
def test_an_error_inside_leaves_nothing_and_keeps_the_old(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.tif"
    rows = np.zeros((1, 10, 20), dtype=np.uint8)

    def interrupted() -> None:
        with BandFileWriter(path, BANDS[:1], 20, 20) as writer:
            writer.write_rows(0, rows)
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with BandFileWriter(path, BANDS[:1], 10, 20) as writer:
        writer.write_rows(0, rows + 7)
    with pytest.raises(type(error)):
        interrupted()
    assert [item.name for item in tmp_path.iterdir()] == ["a.tif"]
    with BandFile(path) as file:
        assert (file.rows(0, 10) == 7).all()


def test_missing_rows_are_no_file(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="10 of 20 rows"),
        BandFileWriter(tmp_path / "a.tif", BANDS[:1], 20, 20) as writer,
    ):
        writer.write_rows(0, np.zeros((1, 10, 20), dtype=np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("y", "shape", "dtype"), [(1, (1, 5, 20), np.uint8), (0, (1, 5, 20), np.float32), (0, (2, 5, 20), np.uint8)]
)
def test_rows_that_do_not_fit(tmp_path: Path, y: int, shape: tuple[int, ...], dtype: type) -> None:
    with (
        pytest.raises(ValueError, match="expected"),
        BandFileWriter(tmp_path / "a.tif", BANDS[:1], 20, 20) as writer,
    ):
        writer.write_rows(y, np.zeros(shape, dtype=dtype))


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from histofold.errors import ResourceError
from histofold.inference.bandfile import BandFileWriter
from histofold.targets.base import Band
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
noise = np.random.default_rng(0).integers(0, 256, (1, 1024, 512), dtype=np.uint8)
try:
    with BandFileWriter(Path(sys.argv[1]), [Band("foreground")], 1024, 512) as writer:
        writer.write_rows(0, noise)
except ResourceError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("room", [100_000, 500_000])
def test_a_disk_that_fills_up(kit: Any, tmp_path: Path, room: int) -> None:
    """The system refuses to let the file grow, early or only when GDAL flushes at the end."""
    path = tmp_path / "a.tif"
    done = kit.run_python(FULL_DISK, str(path), str(room))
    assert done.stdout.startswith("refused:"), done.stdout + done.stderr
    assert "no half-written file is left" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_broken_files(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with pytest.raises(DataError, match="no such band file"):
        BandFile(path)
    path.write_bytes(b"II*\0 nothing")
    with pytest.raises(DataError, match="not readable as a band file"):
        BandFile(path)
    path.unlink()
    noise = np.random.default_rng(0).integers(0, 256, (1, 512, 512), dtype=np.uint8)
    with BandFileWriter(path, BANDS[:1], 512, 512) as writer:
        writer.write_rows(0, noise)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(DataError, match="delete it and predict again"), BandFile(path) as file:
        file.rows(0, 512)


def test_another_tiff_is_no_band_file(tmp_path: Path) -> None:
    path = tmp_path / "photo.tif"
    with rasterio.open(path, "w", driver="GTiff", height=4, width=4, count=1, dtype="uint8") as file:
        file.write(np.zeros((1, 4, 4), dtype=np.uint8))
    with pytest.raises(DataError, match="expected a band file of format 1, found another TIFF"):
        BandFile(path)


def test_unknown_band_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with BandFileWriter(path, BANDS, 8, 8) as writer:
        writer.write_rows(0, np.zeros((3, 8, 8), dtype=np.uint8))
    with (
        BandFile(path) as file,
        pytest.raises(DataError, match=r"no band 'border'; found foreground, flow_y, distance"),
    ):
        file.band_uint8("border")
