"""The second level: candidates of several settings, scored by how good trees expect them to be, the best kept.

Every candidate of an image is described by its shape, its intensities, the bands below it and how far the other
settings agree on it. The band `spread`, where there is one, says how far test-time views and members disagree there.
Trees that learned out of fold (`evaluation.secondlevel`) give the IoU that is expected of each candidate; the best ones
that do not overlap are kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histofold import instances
from histofold.errors import DataError
from histofold.files import read_json, write_text
from histofold.instances.base import Bands, Decoder, select
from histofold.instances.candidates import Candidates, find
from histofold.instances.cleanup import Labels
from histofold.instances.trees import Trees
from histofold.slides.reduce import reduce_array

FORMAT = 1

FREE = 0.9
"""Share of a candidate's pixels that nothing better may have taken."""


def keep(candidates: Candidates, scores: NDArray[np.float64], least: float) -> tuple[Labels, NDArray[np.float64]]:
    """Paint candidates (best score first) of at least `least` where nearly all of their pixels are free.

    Of equals the larger one comes first. Pixels that a better one has stay with it, so no two instances overlap; of
    what is left of a candidate the largest connected part is painted.

    Returns:
        Labels (H, W) int32 and the scores of labels 1..n, descending: those up to any number are what a higher `least`
        would have kept.
    """
    labels = np.zeros(candidates.shape, np.int32)
    areas = [int(mask.sum()) for mask in candidates.masks]
    kept: list[float] = []
    for at in sorted(range(len(candidates)), key=lambda index: (-scores[index], -areas[index])):
        if scores[at] < least:
            break
        top, left, bottom, right = candidates.boxes[at]
        place = labels[top:bottom, left:right]
        free = candidates.masks[at] & (place == 0)
        left_over = int(free.sum())
        if left_over >= FREE * areas[at]:
            kept.append(float(scores[at]))
            place[free if left_over == areas[at] else _largest(free)] = len(kept)
    return labels, np.array(kept)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected part of a mask that is not empty, diagonal neighbours included."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return np.asarray(parts == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])))


@dataclass(frozen=True)
class SecondLevel:
    """A trained second level, kept as JSON beside the ensemble's file.

    Attributes:
        decoders: `name` and options of each setting that gives candidates.
        bands: names of the bands that are measured, in this order.
        level: expected IoU below which a candidate is dropped.
        trees: features of a candidate → expected IoU.
    """

    decoders: tuple[dict[str, Any], ...]
    bands: tuple[str, ...]
    level: float
    trees: Trees

    @cached_property
    def built(self) -> tuple[Decoder, ...]:
        """The decoders themselves."""
        return tuple(
            instances.build(str(item["name"]), **{key: value for key, value in item.items() if key != "name"})
            for item in self.decoders
        )

    def candidates(self, image: NDArray[np.uint8], bands: Bands) -> Candidates:
        """Candidates of an image (H, W, 3) at the size of its bands.

        Raises:
            DataError: a band is missing, or sizes differ.
        """
        return find(image, select(bands, self.bands), self.built)

    def __call__(self, image: NDArray[np.uint8], bands: Bands) -> Labels:
        """Labels (H, W) int32 of an image (H, W, 3) and its bands (H, W).

        Raises:
            DataError: a band is missing, or sizes differ.
        """
        found = self.candidates(image, bands)
        scores = self.trees(found.features) if len(found) else np.zeros(0)
        return keep(found, scores, self.level)[0]

    def write(self, path: Path) -> None:
        """Write the file, atomically."""
        values = {"decoders": list(self.decoders), "bands": list(self.bands), "level": self.level}
        # On one line: thousands of nodes are nothing to read.
        write_text(path, json.dumps({"format": FORMAT, **values, "trees": self.trees.to_dict()}, allow_nan=False))

    @classmethod
    def read(cls, path: Path) -> SecondLevel:
        """Read a file that `write` wrote.

        Raises:
            DataError: no such file, of another format, or damaged.
        """
        values = read_json(path)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise DataError(f"{path}: expected a second level of format {FORMAT}; run evaluate again")
        try:
            decoders = tuple({str(key): option for key, option in item.items()} for item in values["decoders"])
            bands, level = tuple(str(name) for name in values["bands"]), float(values["level"])
            if any(item.get("top", 1) != 1 for item in decoders):
                raise DataError(f"{path}: its trees know the distance as 0..255, which is 0..1 now; run evaluate again")
            return cls(decoders, bands, level, Trees.from_dict(values["trees"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: damaged ({error!r}); run evaluate again") from error


@lru_cache(maxsize=4)
def opened(path: Path, stamp: int) -> SecondLevel:
    """A second level that a process reads once; `stamp` is the file's time of change."""
    return SecondLevel.read(path)


def decode(
    bands: Bands,
    setting: dict[str, Any],
    second: Path | None,
    image: Callable[[], NDArray[np.uint8]],
    scale: float,
) -> Labels:
    """Labels (H, W) of bands (H, W) by a decoder's `name` and options, or by a second level where there is one.

    Args:
        image: gives the image (3 channels, full size), asked for by a second level only.
        scale: the bands' reduction.

    Raises:
        DataError: bands, image or the second level's file cannot be used.
    """
    if second is None:
        options = {key: value for key, value in setting.items() if key != "name"}
        return instances.build(str(setting["name"]), **options)(bands)
    if not second.is_file():
        raise DataError(f"{second}: the ensemble's second level is not there; run evaluate again")
    return opened(second, second.stat().st_mtime_ns)(at_scale(image(), scale), bands)


def at_scale(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """An image (H, W, 3) reduced as its predictions are."""
    return image if scale == 1 else reduce_array(image, scale)


def settings_of(decoders: Sequence[Decoder]) -> tuple[dict[str, Any], ...]:
    """Decoders as `name` and options."""
    return tuple({"name": decoder.name, **decoder.options()} for decoder in decoders)
