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

from histofold.competitions.rows import nfc
from histofold.errors import DataError
from histofold.files import reading

TIFF = (".tif", ".tiff")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", *TIFF)
"""Endings of files that count as images, in lower case."""
JPEG = ("JPEG", "MPO")
"""What JPEG is called by what reads it; the second is that of some cameras."""
ARCHIVE_REST = "__MACOSX"
"""Folder that macOS puts into its archives, with a hidden file `._NAME` for each file NAME."""


def hidden(path: Path, root: Path) -> bool:
    """Whether a path below `root` is no data: a hidden file, or what macOS leaves beside data, or in a folder of such.

    Only what lies below `root` counts, which may itself be in a hidden folder.
    """
    return any(part.startswith(".") or part == ARCHIVE_REST for part in path.relative_to(root).parts)


def listed(folder: Path) -> dict[str, Path]:
    """Images directly in `folder`, by stem as `nfc` gives it, sorted; hidden files are ignored.

    Raises:
        DataError: two files share a stem, so that an id would mean two images.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix.lower() not in SUFFIXES or hidden(path, folder):
            continue
        key = nfc(path.stem)
        if key in found:
            raise DataError(f"{folder}: {found[key].name} and {path.name} have the same id; keep one of them")
        found[key] = path
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
        with reading(path):
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
    """Pixels (H, W, 3) uint8; an alpha channel is dropped, grey is repeated.

    Of 16 bits the lowest 8, 12 or 16 are scaled to 8, as many as the largest sample needs unless the file says how many
    there are: see `histofold.slides.depth`. PNG and TIFF give the same.

    Raises:
        DataError: missing, cut short, or not an image.
    """
    if path.suffix.lower() in TIFF:
        from histofold import slides

        with slides.open(path) as slide:
            if slide.kind == "uint16":
                return _scaled(*slide.samples())
            return np.asarray(slide.window(0, 0, slide.height, slide.width), dtype=np.uint8)
    with _opened(path) as image:
        if _is_deep(image):
            image.load()  # Only Pillow tells a PNG that was cut short.
            return _scaled(_deep(path))
        return np.ascontiguousarray(image.convert("RGB"))


def _is_deep(image: PIL.Image.Image) -> bool:
    """Whether a file that is not decoded yet has samples of 16 bits, which Pillow gives in full for grey alone."""
    raw = [entry[3] for entry in getattr(image, "tile", [])]
    modes = [mode[0] if isinstance(mode, tuple) else mode for mode in raw]
    return image.mode.startswith("I") or any(str(mode).endswith(";16B") for mode in modes)


def _deep(path: Path) -> NDArray[np.uint16]:
    """Samples (H, W, 3) of a 16-bit file, RGB without alpha."""
    samples = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None or samples.dtype != np.uint16:
        raise DataError(f"{path}: expected 16 bits a sample; save it as an RGB image of 8 or 16 bits")
    if samples.ndim == 2:
        return np.asarray(np.repeat(samples[..., None], 3, axis=2), np.uint16)
    return np.asarray(samples[..., 2::-1], np.uint16)


def _scaled(samples: NDArray[Any], ceiling: int = 65535) -> NDArray[np.uint8]:
    """Samples of 16 bits as bytes; a `ceiling` below 65535 is what the file says that full intensity is."""
    from histofold.slides import depth

    said = ceiling < 65535
    return depth.to_bytes(samples, ceiling if said else depth.ceiling_of(int(samples.max(initial=0))))


def integers(path: Path, single: bool = False, exact: bool = False) -> NDArray[np.integer[Any]]:
    """Integers (H, W) of a label or mask file as they are stored, without alpha; of colours the largest value counts.

    Args:
        path: the file.
        single: there is one number a pixel: refuse colours, of which two may have the same largest value.
        exact: each number counts: refuse JPEG, which changes them, and leaves some around every object.

    Raises:
        DataError: missing, cut short, not an image, several pages or numbers that are not whole, or in colour or JPEG
            where that is refused.
    """
    if exact and is_jpeg(path):
        raise DataError(
            f"{path}: is compressed as JPEG, which changes label numbers; save the labels anew as PNG, or as TIFF "
            "without JPEG (in this file they are lost), or put binary masks into masks/"
        )
    values = _tiff_integers(path) if path.suffix.lower() in TIFF else _plain_integers(path)
    values = values.astype(np.uint8) if values.dtype == bool else values
    if values.ndim == 2:
        return values
    if single and (values != values[..., :1]).any():
        raise DataError(
            f"{path}: its colours are no numbers of objects; expected one number a pixel, 0 for background and 1..n "
            "for objects (grey of 8 or 16 bits, or a palette); save it so, or put binary masks into masks/"
        )
    return np.asarray(values.max(axis=2))


def is_jpeg(path: Path) -> bool:
    """Whether the pixels of an image are compressed as JPEG, whatever its ending says.

    Raises:
        DataError: missing or not an image.
    """
    if path.suffix.lower() in TIFF:
        with _dataset(path) as source:
            names = (source.driver, source.profile.get("compress"))
    else:
        with _opened(path) as image:
            names = (image.format, None)
    return any(str(name).upper() in JPEG for name in names)


def _plain_integers(path: Path) -> NDArray[np.integer[Any]]:
    """Numbers (H, W) or (H, W, channels) of what is no TIFF, without alpha."""
    with _opened(path) as image:
        if _is_deep(image) and not image.mode.startswith("I"):
            image.load()  # As in `rgb`: Pillow would give the upper byte alone.
            return _deep(path)
        # Palette labels (GlaS-like BMP) keep their indices: np.asarray of mode P gives them, convert() would not.
        return np.asarray(image.convert("RGB") if image.mode in ("RGBA", "LA", "PA") else image)


def _tiff_integers(path: Path) -> NDArray[np.integer[Any]]:
    """Numbers (H, W, channels) of a TIFF, without alpha.

    Raises:
        DataError: missing, broken, several pages of one size, or numbers that are not whole.
    """
    from rasterio.enums import ColorInterp

    with _dataset(path) as source:
        _require_one_page(path, source)
        kinds = zip(source.indexes, source.colorinterp, strict=True)
        bands = [band for band, kind in kinds if kind != ColorInterp.alpha]
        values = np.asarray(source.read(bands or source.indexes))
    if values.dtype.kind == "f":
        odd = values[~(np.isfinite(values) & (values == np.rint(values)))]
        if odd.size:
            raise DataError(
                f"{path}: holds {odd[0]:g}, expected whole numbers, 0 for background; save it with integers of 8 or 16 "
                "bits"
            )
        values = values.astype(np.int64)
    return values.transpose(1, 2, 0)


def _require_one_page(path: Path, source: Any) -> None:
    """Raise DataError where a TIFF has several pages of the size of its first: which one is the truth?

    Smaller ones are thumbnails or a pyramid.
    """
    import rasterio

    count = 0
    for page in source.subdatasets:
        with rasterio.open(page) as other:
            count += other.shape == source.shape
    if count > 1:
        raise DataError(
            f"{path}: {count} pages of {source.height} × {source.width} pixels, expected one; save all objects as one "
            "page, or each page as a file with an image of its own"
        )


@contextmanager
def _dataset(path: Path) -> Iterator[Any]:
    """A TIFF as rasterio opens it, with its errors as ours."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as source:
                yield source
    except RasterioError as error:
        raise DataError(f"{path}: not a whole TIFF ({_line(error)}); copy or download it again") from error


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
