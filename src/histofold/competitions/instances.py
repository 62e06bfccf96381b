"""Instance label images from what competitions ship: one mask file a nucleus, or one run-length text a nucleus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histofold import rle
from histofold.competitions import images
from histofold.errors import DataError

Labels = NDArray[np.integer[Any]]

LOOKED_AT = 16
"""Label files of a folder that are read to see whether they are binary masks."""
BINARY = 0.9
"""Share of those with objects from which on they are taken to be: a few images have one object in several parts."""

ENOUGH_IMAGES, ENOUGH_OBJECTS = 3, 100
"""Of images with objects, and of objects in all of them, some touch where each was drawn for itself."""


def smallest(count: int) -> type[np.integer[Any]]:
    """The smallest unsigned type that holds labels 0..count."""
    return np.uint8 if count < 2**8 else np.uint16 if count < 2**16 else np.uint32


def merge(masks: Iterable[tuple[str, NDArray[Any]]], shape: tuple[int, int]) -> Labels:
    """One label image (H, W), labels 1..n in the order of `masks`, from named masks (H, W) of one nucleus each.

    Where masks overlap the smaller nucleus keeps the pixel, of equals the earlier: painted over by a large neighbour
    a small nucleus could vanish, while the large one loses little. A mask without a pixel gives no label.

    Raises:
        DataError: a mask of another size than `shape`.
    """
    kept: list[NDArray[np.int64]] = []
    for name, mask in masks:
        if mask.shape != shape:
            raise DataError(f"{name}: this mask is {_size(mask.shape)}, its image {_size(shape)}; they must agree")
        pixels = np.flatnonzero(mask)
        if len(pixels):
            kept.append(pixels)
    labels = np.zeros(shape[0] * shape[1], dtype=smallest(len(kept)))
    # Stable by falling size, later first among equals: what is painted last stays.
    for index in sorted(range(len(kept)), key=lambda index: (-len(kept[index]), -index)):
        labels[kept[index]] = index + 1
    return _consecutive(labels.reshape(shape), len(kept))


def from_files(paths: Sequence[Path], shape: tuple[int, int]) -> Labels:
    """Merge one mask file a nucleus, any non-zero pixel is nucleus; see `merge`.

    Raises:
        DataError: a broken file, or one of another size.
    """
    return merge(((str(path), images.integers(path) != 0) for path in paths), shape)


def from_runs(texts: Sequence[str], shape: tuple[int, int], where: str) -> Labels:
    """Merge one run-length text (1-indexed, column-major) a nucleus; empty texts are no nucleus; see `merge`.

    Raises:
        DataError: a text that breaks the dialect; `where` says which file and image.
    """
    return merge(_decoded(texts, shape, where), shape)


def checked(labels: Labels, shape: tuple[int, int], path: Path, image: Path) -> Labels:
    """The same labels in a small unsigned type, numbered 1..n in their order where a number exceeds that of the pixels.

    Tables indexed by label then stay small, and int32 holds every label.

    Raises:
        DataError: another size than the image, or a negative label.
    """
    if labels.shape != shape:
        raise DataError(f"{path}: this mask is {_size(labels.shape)}, its image {image.name} {_size(shape)}")
    if labels.size and int(labels.min()) < 0:
        raise DataError(f"{path}: negative labels; expected 0 for background and 1..n for objects")
    if labels.max(initial=0) > labels.size:
        values, places = np.unique(labels, return_inverse=True)
        labels = places.reshape(shape) + int(values[0] != 0)
    return labels.astype(smallest(int(labels.max(initial=0))), copy=False)


def looks_binary(folder: Path, paths: list[Path]) -> str:
    """What to do about label files that hold one value each, in several parts; empty where they do not.

    A file that cannot be read is told when its turn comes.
    """
    count = min(LOOKED_AT, len(paths))
    verdicts = [_is_binary(paths[index * len(paths) // count]) for index in range(count)]
    known = [verdict for verdict in verdicts if verdict is not None]
    if not known or sum(known) < BINARY * len(known):
        return ""
    return (
        f"{folder}: {sum(known)} of {len(known)} label files looked at hold one value in several parts, as binary "
        f"masks do, so that each image is one object; rename {folder.name}/ to masks/, whose parts are objects, set "
        "competition.options.truth=mask where only foreground counts"
    )


def contacts(labels: NDArray[Any]) -> dict[str, int]:
    """`instances`: how many labels there are in (H, W); `touching`: 1 where two of them lie side by side, else 0.

    Objects that share a corner only do not touch: components of a binary mask may do so, where those who made them
    went on by sides alone.
    """
    pairs = ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1]))
    touching = any(bool(np.any((one != other) & (one > 0) & (other > 0))) for one, other in pairs)
    return {"instances": len(np.unique(labels[labels > 0])), "touching": int(touching)}


def looks_merged(folder: Path, counts: Sequence[Mapping[str, int]]) -> str:
    """What to do about labels that may be components of a binary mask, as none touch; empty where some do.

    Args:
        folder: of the label files.
        counts: `contacts` of each; without them nothing is said of the folder.
    """
    if not all("instances" in one for one in counts) or any(one["touching"] for one in counts):
        return ""
    numbers = [one["instances"] for one in counts if one["instances"]]
    if len(numbers) < ENOUGH_IMAGES or sum(numbers) < ENOUGH_OBJECTS:
        return ""
    return (
        f"{folder}: no two of {sum(numbers)} objects in {len(numbers)} label images touch, so these labels may be "
        "components of a binary mask, in which touching objects are one; if they are, set "
        "competition.options.merged=true (ranked by pixel then, and instance scores are marked); if the objects simply "
        "do not touch, all is well"
    )


def _is_binary(path: Path) -> bool | None:
    """Whether all objects of a label file have one value and lie apart; None without objects."""
    try:
        values = images.integers(path)
    except (DataError, OSError):
        return None
    if not values.any():
        return None
    one = len(np.unique(values[values != 0])) == 1
    return one and cv2.connectedComponents((values != 0).astype(np.uint8), connectivity=8)[0] > 2


def _decoded(texts: Sequence[str], shape: tuple[int, int], where: str) -> Iterable[tuple[str, NDArray[Any]]]:
    for number, text in enumerate(texts, start=1):
        if text.strip():
            try:
                yield where, rle.decode(text, shape)
            except DataError as error:
                raise DataError(f"{where}: nucleus {number}: {error}") from error


def _consecutive(labels: Labels, count: int) -> Labels:
    present = np.bincount(labels.ravel(), minlength=count + 1) > 0
    present[0] = False
    if present[1:].all():
        return labels
    return (np.cumsum(present) * present).astype(labels.dtype)[labels]  # a nucleus wholly covered by smaller ones


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) + " (height × width)"
