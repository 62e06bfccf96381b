"""The directories of a TIFF, read without decoding: is the file whole? GDAL finds out only when it gets there."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from histofold.errors import DataError

STRIPS, STRIP_BYTES, TILES, TILE_BYTES = 273, 279, 324, 325
_WANTED = {STRIPS, STRIP_BYTES, TILES, TILE_BYTES}
_TYPES = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
MOST_DIRECTORIES = 4096
"""More pages than any slide has: the chain of a damaged file may run in circles."""


def require_whole(path: Path) -> None:
    """Look whether a TIFF holds all pages and pixels that its directories point to.

    Raises:
        DataError: the file ends before a directory, or before pixels that one points to.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        try:
            end = max(_Reader(stream, size).ends(), default=0)
        except (struct.error, ValueError, OverflowError) as error:
            raise DataError(
                f"{path}: the TIFF is truncated or damaged, a directory of its pages is not in the file of {size:,} "
                "bytes; copy or download it again"
            ) from error
    if end > size:
        raise DataError(
            f"{path}: the TIFF is truncated, its pixels end at byte {end:,} and the file at {size:,}; "
            "copy or download it again"
        )


class _Reader:
    """Numbers of a TIFF of `size` bytes in its byte order, classic or BigTIFF."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream = stream
        self.size = size
        head = stream.read(16)
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        magic = struct.unpack(self.order + "H", head[2:4])[0] if self.order else 0
        if magic not in (42, 43):
            raise ValueError("not a TIFF")
        self.big = magic == 43
        self.first = struct.unpack(self.order + ("Q" if self.big else "I"), head[8:16] if self.big else head[4:8])[0]

    def ends(self) -> list[int]:
        """One past the last byte of pixels of each page, from the first page on."""
        found: list[int] = []
        offset, seen = self.first, set[int]()
        while offset:
            if offset in seen or len(seen) >= MOST_DIRECTORIES:
                raise ValueError("a circle of directories")
            seen.add(offset)
            end, offset = self.directory(offset)
            found.append(end)
        return found

    def directory(self, offset: int) -> tuple[int, int]:
        """One past the last byte of the pixels of the directory at `offset`, and the next one, 0 after the last."""
        self.stream.seek(offset)
        count = self._number("Q" if self.big else "H")
        entry = 20 if self.big else 12
        body = self._read(count * entry)
        following = self._number("Q" if self.big else "I")
        values: dict[int, NDArray[np.int64]] = {}
        for index in range(count):
            tag, numbers = self._entry(body[index * entry : (index + 1) * entry])
            if numbers is not None:
                values[tag] = numbers
        nothing = np.zeros(0, np.int64)
        end = 0
        for starts, sizes in ((STRIPS, STRIP_BYTES), (TILES, TILE_BYTES)):
            first, length = values.get(starts, nothing), values.get(sizes, nothing)
            # A block of no bytes is a sparse one: GDAL reads it as zeros.
            if len(first) == len(length) and length.any():
                end = max(end, int((first + length)[length > 0].max()))
        return end, following

    def _entry(self, entry: bytes) -> tuple[int, NDArray[np.int64] | None]:
        tag, kind, count = struct.unpack(self.order + ("HHQ" if self.big else "HHI"), entry[: 12 if self.big else 8])
        if tag not in _WANTED or kind not in _TYPES:
            return tag, None
        dtype = np.dtype(self.order + _TYPES[kind])
        inline = entry[12:] if self.big else entry[8:]
        length = count * dtype.itemsize
        if length > len(inline):
            self.stream.seek(struct.unpack(self.order + ("Q" if self.big else "I"), inline)[0])
            inline = self._read(length)
        return tag, np.frombuffer(inline[:length], dtype, count).astype(np.int64)

    def _read(self, length: int) -> bytes:
        """Read as many bytes as the file says, but never more than it has: that would only ask for the memory."""
        if length > self.size:
            raise ValueError(f"{length} bytes in a file of {self.size}")
        return self.stream.read(length)

    def _number(self, kind: str) -> int:
        size = struct.calcsize(kind)
        return int(struct.unpack(self.order + kind, self.stream.read(size))[0])
