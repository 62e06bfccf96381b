"""Arrays on disk that grow: a slide's tiles are written as they are cut, before anyone knows how many there will be."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

from histofold import files


class GrowingArray:
    """Writes arrays of one shape behind each other into one .npy file of shape (N, *shape)."""

    def __init__(self, stream: BinaryIO, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._stream = stream
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self.count = 0
        stream.write(self._header())

    def append(self, array: NDArray[Any]) -> None:
        """Write one more array."""
        if array.shape != self._shape:
            raise ValueError(f"expected an array of shape {self._shape}, found {array.shape}")
        self._stream.write(np.ascontiguousarray(array, self._dtype).data)
        self.count += 1

    def finish(self) -> None:
        """Write the final number of arrays into the head of the file."""
        self._stream.seek(0)
        self._stream.write(self._header())

    def _header(self) -> bytes:
        # numpy leaves room in the head for a first axis that grows, so its length does not depend on the count.
        head = io.BytesIO()
        shape = (self.count, *self._shape)
        npy.write_array_header_1_0(
            head, {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        )
        return head.getvalue()


@contextmanager
def growing(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> Iterator[GrowingArray]:
    """A growing array that appears at `path` when the block ends well, and not at all otherwise."""
    with files.atomic(path) as temporary, temporary.open("wb") as stream:
        array = GrowingArray(stream, shape, dtype)
        yield array
        array.finish()


def save(path: Path, array: NDArray[Any]) -> None:
    """Write a whole array to a .npy file, atomically."""
    with files.atomic(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, array)


def smallest(labels: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
    """Labels (H, W) in the smallest of uint8, uint16 and uint32 that holds them."""
    highest = int(labels.max(initial=0))
    return labels.astype(np.uint8 if highest < 1 << 8 else np.uint16 if highest < 1 << 16 else np.uint32)
