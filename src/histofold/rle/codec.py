"""Masks and label images to texts and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from histofold.rle import lines, text
from histofold.rle.arrays import Ints, Longs, Pixels
from histofold.rle.dialects import Dialect, RleError, find


def encode(mask: Pixels, dialect: str | Dialect = "columns") -> str:
    """Encode an (H, W) mask, boolean or integer; all but 0 is foreground, the mask is neither copied nor changed.

    Raises:
        RleError: the mask has not two axes, or is of floats.
    """
    way = find(dialect)
    starts, lengths, _ = lines.flatten(ordered(mask, way, binary=True))
    return text.write(starts, lengths, way)


def decode(rle: str, shape: tuple[int, int], dialect: str | Dialect = "columns") -> NDArray[np.uint8]:
    """Decode a text to an (H, W) uint8 mask of 0 and 1.

    Raises:
        RleError: the text breaks a rule of the dialect (the message says which run), or goes past the shape.
    """
    return lines.paint(parsed_rows(rle, shape, find(dialect)))


def encode_labels(labels: Pixels, dialect: str | Dialect = "columns") -> dict[int, str]:
    """Encode each label but 0 of an (H, W) integer image, all in one pass over its pixels; keys ascend.

    Raises:
        RleError: labels are negative or above 2³¹-1, or the image has not two axes or is of floats.
    """
    way = find(dialect)
    starts, lengths, values = lines.flatten(ordered(labels, way, binary=False))
    order = np.argsort(values, kind="stable")
    found, first = np.unique(values[order], return_index=True)
    groups = np.append(first, values.size).astype(np.int64)
    return dict(zip(found.tolist(), text.write_groups(starts[order], lengths[order], groups, way), strict=True))


def decode_labels(rles: Sequence[str], shape: tuple[int, int], dialect: str | Dialect = "columns") -> NDArray[np.int32]:
    """Decode one text an instance to an (H, W) int32 image; the first text gives label 1, empty texts give none.

    Raises:
        RleError: a text breaks a rule (the message says which text), or two instances share a pixel.
    """
    way = find(dialect)
    runs = [_labelled(rle, number, shape, way) for number, rle in enumerate(rles, start=1)]
    starts, lengths, values = (np.concatenate(column) for column in zip(_NOTHING, *runs, strict=True))
    order = np.argsort(starts, kind="stable")
    starts, lengths, values = starts[order], lengths[order], values[order]
    over = np.flatnonzero(starts[1:] < starts[:-1] + lengths[:-1])
    if over.size:
        one, two = sorted((values[over[0]], values[over[0] + 1]))
        pixel = starts[over[0] + 1] + way.base
        raise RleError(f"texts {one} and {two} share the pixel {pixel}; instances may not overlap")
    return lines.paint(_as_rows(starts, lengths, values, shape, way), np.int32)


_NOTHING = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int32))


def _labelled(rle: str, number: int, shape: tuple[int, int], way: Dialect) -> tuple[Longs, Longs, Ints]:
    try:
        starts, lengths = text.read(rle, shape[0] * shape[1], way)
    except RleError as error:
        raise RleError(f"text {number}: {error}") from None
    return starts, lengths, np.full(starts.size, number, np.int32)


def ordered(image: Pixels, way: Dialect, *, binary: bool) -> lines.Lines:
    """The image's lines in the order of the dialect, scanned along whichever axis is contiguous in memory."""
    image = np.asarray(image)
    down = image.ndim == 2 and image.flags.f_contiguous and not image.flags.c_contiguous
    found = lines.scan(image.T if down else image, binary=binary)
    return found if down == (way.order == "columns") else lines.transpose(found)


def parsed_rows(rle: str, shape: tuple[int, int], way: Dialect) -> lines.Lines:
    """The rows of a text's mask, without painting it."""
    starts, lengths = text.read(rle, shape[0] * shape[1], way)
    return _as_rows(starts, lengths, np.ones(starts.size, np.int32), shape, way)


def _as_rows(starts: Longs, lengths: Longs, values: Ints, shape: tuple[int, int], way: Dialect) -> lines.Lines:
    height, width = shape
    if way.order == "rows":
        return lines.split(starts, lengths, values, height, width)
    return lines.transpose(lines.split(starts, lengths, values, width, height))
