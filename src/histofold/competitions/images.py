"""Reading image and label files strictly: RGB uint8 whatever the file holds, an error where it is not whole."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from histofold.errors import DataError

TIFF = (".tif", ".tiff")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", *TIFF)
"""Endings of files that count as images, in lower case."""


def listed(folder: Path) -> dict[str, Path]:
    """Images directly in `folder`, by stem, sorted; hidden files are ignored.

    Raises:
        DataError: two files share a stem, so that an id would mean two images.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            raise DataError(f"{folder}: {found[path.stem].name} and {path.name} have the same id; keep one of them")
        found[path.stem] = path
    return found


def size(path: Path) -> tuple[int, int]:
    """(height, width) of an image file from its header.

    Raises:
        DataError: missing or not an image.
    """
    if path.suffix.lower() in TIFF:
        from histofold import slides

        with slides.open(path) as slide:
            return slide.height, slide.width
    with _opened(path) as image:
        return image.height, image.width


def size_or_zero(path: Path) -> tuple[int, int]:
    """As `size`, and (0, 0) for a file that cannot be read, for listings that one broken file shall not stop.

    Whoever then reads the file gets the error, at the turn of that sample.
    """
    try:
        return size(path)
    except (DataError, OSError):
        return 0, 0


def enlarged(image: NDArray[np.uint8], zoom: int) -> NDArray[np.uint8]:
    """Pixels (H·zoom, W·zoom, 3), interpolated linearly."""
    if zoom == 1:
        return image
    height, width = image.shape[:2]
    return np.asarray(cv2.resize(image, (width * zoom, height * zoom), interpolation=cv2.INTER_LINEAR), np.uint8)


def rgb(path: Path) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) uint8; an alpha channel is dropped, grey is repeated, 16 bits are scaled to 8.

    Raises:
        DataError: missing, cut short, or not an image.
    """
    if path.suffix.lower() in TIFF:
        from histofold import slides

        with slides.open(path) as slide:
            return np.asarray(slide.window(0, 0, slide.height, slide.width), dtype=np.uint8)
    with _opened(path) as image:
        if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255
            grey = np.asarray(image)
            return np.repeat((grey // 257).astype(np.uint8)[..., None], 3, axis=2)
        return np.ascontiguousarray(image.convert("RGB"))


def integers(path: Path) -> NDArray[np.integer[Any]]:
    """Integers (H, W) of a label or mask file as they are stored; of several channels the largest value counts.

    Raises:
        DataError: missing, cut short, or not an image.
    """
    if path.suffix.lower() in TIFF:
        return _tiff_integers(path)
    with _opened(path) as image:
        # Palette labels (GlaS-like BMP) keep their indices: np.asarray of mode P gives them, convert() would not.
        values = np.asarray(image.convert("RGB") if image.mode in ("RGBA", "LA", "PA") else image)
    values = values.astype(np.uint8) if values.dtype == bool else values
    return np.asarray(values.max(axis=2) if values.ndim == 3 else values)


def _tiff_integers(path: Path) -> NDArray[np.integer[Any]]:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as source:
                values = np.asarray(source.read())
    except RasterioError as error:
        raise DataError(f"{path}: not a whole TIFF ({_line(error)}); copy or download it again") from error
    if values.dtype.kind == "f":
        values = values.astype(np.int64)
    return np.asarray(values.max(axis=0))


@contextmanager
def _opened(path: Path) -> Iterator[PIL.Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path) as image:
                yield image
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except PIL.Image.DecompressionBombError as error:
        raise DataError(f"{path}: too large to read whole; save it as a tiled TIFF") from error
    except (OSError, SyntaxError, ValueError) as error:
        # Pillow reports a broken PNG as SyntaxError and a short one as OSError.
        raise DataError(f"{path}: not a whole image ({_line(error)}); copy or download it again") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
