"""Band files: predictions as uint8 TIFFs that any program opens, written row by row and thresholded again at will.

Tiled, deflate, one plane a band; names are GDAL's band descriptions, `value = offset + scale · code` its scale and
offset tags. The transform maps to pixels of the full-size sample, counted upwards from its lower left corner as
programs for maps expect; without one, rasterio would warn of its absence at each opening.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from histofold.errors import DataError, ResourceError
from histofold.files import atomic
from histofold.slides.gdal import bound_cache
from histofold.targets.base import Band
from histofold.tiles.grid import rational

FORMAT = "1"
BLOCK = 256
"""Side of the TIFF's blocks; whole rows of blocks are written at once, so that each is compressed once."""


class BandFileWriter:
    """Writes a band file row by row under a temporary name; it appears when the `with` block ends well.

    Args:
        path: of the file, ending in .tif.
        bands: what is written, in order.
        height, width: pixels of the prediction.
        scale: its reduction ≥ 1.
        full_height, full_width: pixels of the original; by default those of the prediction.
        fingerprint: of what the values were computed with; whoever resumes compares it.

    Example:
        >>> with BandFileWriter(path, target.bands, 512, 512, 1.0) as writer:
        ...     writer.write_rows(0, codes)  # uint8 (K, 512, 512)
    """

    def __init__(
        self,
        path: Path,
        bands: Sequence[Band],
        height: int,
        width: int,
        scale: float = 1.0,
        full_height: int | None = None,
        full_width: int | None = None,
        fingerprint: str = "",
    ) -> None:
        self.path = path
        self.bands = tuple(bands)
        self.height, self.width = height, width
        self.tags = {
            "HISTOFOLD_FORMAT": FORMAT,
            "HISTOFOLD_SCALE": repr(float(scale)),
            "HISTOFOLD_FULL_HEIGHT": str(full_height or height),
            "HISTOFOLD_FULL_WIDTH": str(full_width or width),
            "HISTOFOLD_FINGERPRINT": fingerprint,
        }
        self.scale = float(scale)
        self.next_row = 0
        self._whole: AbstractContextManager[Path] | None = None
        self._file: Any = None
        self._block = np.zeros((len(self.bands), min(BLOCK, height), width), dtype=np.uint8)
        self._filled = 0

    def __enter__(self) -> BandFileWriter:
        bound_cache()
        self._whole = atomic(self.path)
        temporary = self._whole.__enter__()
        try:
            self._file = self._open(temporary)
        except BaseException as error:
            self._leave(error)
            raise
        self._temporary = temporary
        return self

    def write_rows(self, y: int, rows: NDArray[np.uint8]) -> None:
        """Write rows (K, h, W) from row `y` on; rows come in order, none twice, none left out.

        Raises:
            ValueError: the rows do not go on where the last ended, or have another shape or type.
            ResourceError: the disk is full.
        """
        if y != self.next_row or rows.dtype != np.uint8:
            raise ValueError(f"{self.path}: expected uint8 rows from {self.next_row} on, found {rows.dtype} from {y}")
        if rows.ndim != 3 or (rows.shape[0], rows.shape[2]) != (len(self.bands), self.width):
            raise ValueError(f"{self.path}: expected ({len(self.bands)}, h, {self.width}), found {rows.shape}")
        done = 0
        while done < rows.shape[1]:
            taken = min(self._block.shape[1] - self._filled, rows.shape[1] - done)
            self._block[:, self._filled : self._filled + taken] = rows[:, done : done + taken]
            self._filled += taken
            done += taken
            self.next_row += taken
            if self._filled == self._block.shape[1] or self.next_row == self.height:
                self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        except BaseException as caught:
            self._close_quietly()
            self._leave(caught)
            raise
        if error is not None:
            self._close_quietly()
        self._leave(error)

    def _open(self, temporary: Path) -> Any:
        file = rasterio.open(
            temporary,
            "w",
            driver="GTiff",
            height=self.height,
            width=self.width,
            count=len(self.bands),
            dtype="uint8",
            tiled=True,
            blockxsize=BLOCK,
            blockysize=BLOCK,
            interleave="band",
            compress="deflate",
            # Deflate's fastest level: on probability maps the slowest saves a tenth of the size at many times the cost.
            zlevel=1,
            predictor=2,
            BIGTIFF="IF_SAFER",
            transform=Affine(self.scale, 0, 0, 0, -self.scale, self.scale * self.height),
        )
        for index, band in enumerate(self.bands, 1):
            file.set_band_description(index, band.name)
        file.scales = tuple((band.high - band.low) / 255 for band in self.bands)
        file.offsets = tuple(float(band.low) for band in self.bands)
        file.update_tags(**self.tags)
        return file

    def _flush(self) -> None:
        rows = Window(0, self.next_row - self._filled, self.width, self._filled)
        try:
            self._file.write(self._block[:, : self._filled], window=rows)
        except (RasterioError, OSError) as error:
            raise self._trouble(error) from error
        self._filled = 0

    def _finish(self) -> None:
        if self.next_row != self.height:
            raise ValueError(f"{self.path}: {self.next_row} of {self.height} rows were written")
        file, self._file = self._file, None
        try:
            file.close()
            _check_end(self._temporary)
        except (RasterioError, OSError) as error:
            raise self._trouble(error) from error

    def _close_quietly(self) -> None:
        """Close the file that is thrown away; its own trouble on the way out would hide the cause."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except (RasterioError, OSError):
                return

    def _leave(self, error: BaseException | None) -> None:
        whole, self._whole = self._whole, None
        if whole is None:
            return
        if error is None:
            whole.__exit__(None, None, None)
            return
        try:
            whole.__exit__(type(error), error, error.__traceback__)
        except BaseException as raised:
            if raised is not error:
                raise

    def _trouble(self, error: Exception) -> Exception:
        free = shutil.disk_usage(self.path.parent).free
        return ResourceError(
            f"{self.path}: could not be written ({error}); {free / 1e6:.0f} MB are free there. "
            "Free some space or move paths.* elsewhere; no half-written file is left."
        )


def _check_end(path: Path) -> None:
    """Read the last block of each band: GDAL writes late, and a full disk does not always show before."""
    with rasterio.open(path) as file:
        y, x = file.height - 1, file.width - 1
        file.read(window=Window(x, y, 1, 1))


class BandFile:
    """Reads a band file.

    Attributes:
        bands: names and ranges, in order.
        height, width: pixels of the prediction.
        scale: its reduction ≥ 1.
        full_size: (height, width) of the original.
        fingerprint: as given to the writer.

    Raises:
        DataError: missing, broken, or no band file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise DataError(f"{path}: no such band file; predict or train that fold first")
        bound_cache()
        try:
            self._file = rasterio.open(path)
            tags = self._file.tags()
        except (RasterioError, OSError) as error:
            raise DataError(f"{path}: not readable as a band file ({error}); delete it and predict again") from error
        if tags.get("HISTOFOLD_FORMAT") != FORMAT:
            self._file.close()
            raise DataError(
                f"{path}: expected a band file of format {FORMAT}, found {tags.get('HISTOFOLD_FORMAT', 'another TIFF')}"
            )
        self.height, self.width = int(self._file.height), int(self._file.width)
        self.scale = float(rational(float(tags["HISTOFOLD_SCALE"])))
        self.full_size = (int(tags["HISTOFOLD_FULL_HEIGHT"]), int(tags["HISTOFOLD_FULL_WIDTH"]))
        self.fingerprint = tags.get("HISTOFOLD_FINGERPRINT", "")
        described = zip(self._file.descriptions, self._file.offsets, self._file.scales, strict=True)
        self.bands = tuple(Band(str(name), low, round(low + 255 * gain, 9)) for name, low, gain in described)

    def __enter__(self) -> BandFile:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def rows(self, y0: int, y1: int) -> NDArray[np.uint8]:
        """Codes of rows [y0, y1) of all bands: uint8 (K, y1 - y0, W); multiples of 256 read each block once."""
        return self._read(None, Window(0, y0, self.width, y1 - y0))

    def band_uint8(self, name: str) -> NDArray[np.uint8]:
        """Codes of one band: uint8 (H, W).

        Raises:
            DataError: it has no such band.
        """
        return self._read(self.index(name) + 1, None)

    def read(self) -> dict[str, NDArray[np.float32]]:
        """Values of all bands as decoders read them (`Band.relative`, nothing beyond 1): float32 (H, W) by name."""
        codes = self._read(None, None)
        return {band.name: dequantise(codes[index], band.relative) for index, band in enumerate(self.bands)}

    def index(self, name: str) -> int:
        """Number of a band, 0 for the first.

        Raises:
            DataError: it has no such band.
        """
        names = [band.name for band in self.bands]
        if name not in names:
            raise DataError(f"{self.path}: has no band {name!r}; found {', '.join(names)}")
        return names.index(name)

    def _read(self, index: int | None, window: Window | None) -> NDArray[np.uint8]:
        try:
            return np.asarray(self._file.read(index, window=window), dtype=np.uint8)
        except (RasterioError, OSError) as error:
            raise DataError(f"{self.path}: broken ({error}); delete it and predict again") from error


def dequantise(codes: NDArray[np.uint8], band: Band) -> NDArray[np.float32]:
    """Codes 0..255 of a band to its values, float32."""
    table = band.low + np.arange(256) / 255 * (band.high - band.low)
    return table.astype(np.float32)[codes]


def quantise(values: NDArray[np.floating[Any]], band: Band) -> NDArray[np.uint8]:
    """Values of a band to the nearest codes 0..255; what lies outside of its range is clipped."""
    scaled = (values - band.low) / (band.high - band.low) * 255
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
