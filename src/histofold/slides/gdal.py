"""Datasets of GDAL as this package wants them: quiet, with a bounded cache, one handle a thread, errors in one line."""

from __future__ import annotations

import os
import threading
import warnings
from pathlib import Path
from typing import Any

import rasterio
from rasterio.env import set_gdal_config
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from histofold.errors import DataError

CACHE_BYTES = 16 << 20
"""GDAL's cache of decoded blocks. Bands read whole blocks once, so a small cache that stays in the CPU's is fastest."""

_lock = threading.Lock()
_bounded_in = -1


def open_dataset(path: Path, name: str, overview: int = -1) -> Any:
    """Open the file `path` or one of its pages (GDAL's `name`) with rasterio, or one level of its pyramid.

    Raises:
        DataError: not there, not a TIFF, or broken.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    options: dict[str, Any] = {} if overview < 0 else {"overview_level": overview}
    try:
        # Filters of warnings are shared by all threads, so only one may change them at a time.
        with _lock, warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            bound_cache()
            # A handle of its own each time: threads must not share one.
            return rasterio.open(name, driver="GTiff", sharing=False, **options)
    except RasterioError as error:
        raise _unreadable(path, error) from error


def bound_cache() -> None:
    """Bound GDAL's cache once in each process, unless GDAL_CACHEMAX says otherwise."""
    global _bounded_in
    if _bounded_in != os.getpid() and "GDAL_CACHEMAX" not in os.environ:
        set_gdal_config("GDAL_CACHEMAX", CACHE_BYTES)
    _bounded_in = os.getpid()


def reason(error: Exception) -> str:
    """What GDAL said, in one line."""
    return " ".join(str(error.__cause__ or error).split())[:200]


def _unreadable(path: Path, error: Exception) -> DataError:
    with path.open("rb") as stream:
        magic = stream.read(4)
    if not magic:
        return DataError(f"{path}: the file is empty, expected a TIFF; copy or download it again")
    if magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return DataError(f"{path}: the TIFF is truncated or damaged ({reason(error)}); copy or download it again")
    return DataError(f"{path}: not a TIFF, it begins with {magic!r}; convert it to TIFF")
