"""The one run-length codec: Kaggle's texts, masks, label images, run-only masks and streams of row bands.

Everything here works on the outline of a mask, not on its pixels: an image is scanned once for the places where its
rows change (`lines.scan`), these are re-ordered to columns without touching a pixel (`lines.transpose`), and a text is
parsed straight into them. Example::

    text = encode(mask)                      # "1 3 10 2": 1-indexed, column-major
    mask = decode(text, shape=(4, 5))        # uint8, 0 and 1
    texts = encode_labels(labels)            # {1: "…", 2: "…"} in one pass over the image
"""

from __future__ import annotations

from histofold.rle.codec import decode, decode_labels, encode, encode_labels
from histofold.rle.dialects import DIALECTS, Dialect, RleError
from histofold.rle.runmask import RunMask
from histofold.rle.stream import RowStreamEncoder
from histofold.rle.upsample import encode_upsampled, upsample_bands

__all__ = [
    "DIALECTS",
    "Dialect",
    "RleError",
    "RowStreamEncoder",
    "RunMask",
    "decode",
    "decode_labels",
    "encode",
    "encode_labels",
    "encode_upsampled",
    "upsample_bands",
]
