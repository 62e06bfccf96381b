"""Training examples from the store: a crop of a tile or image, augmented, with what the target makes of its labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from histofold.losses.varce import inside_components
from histofold.options import AugmentOptions
from histofold.preprocess import Preprocess
from histofold.tiles.augment import ColourAugment, beyond, draw_crop, warp
from histofold.tiles.mixing import Crop, mosaic, paste, seams
from histofold.tiles.sampler import epoch_rows, even_out, weights_of
from histofold.tiles.store import Store

KEPT = 256 << 20
"""Bytes of enhanced images that a loader process keeps: 85 images of 1,024², or 5 of 4,000²."""

WeightMap = Callable[[NDArray[np.int32]], NDArray[np.float32]]


class CropDataset(Dataset[dict[str, torch.Tensor]]):
    """Crops drawn for keys (epoch, index); the same key gives the same example in any process and at any time.

    Args:
        store: the prepared store.
        rows: rows of `store.tiles` to draw from (the training folds).
        target: what is made of the labels (histofold.targets).
        crop: side of a crop in pixels of the store's scale.
        count: examples in an epoch.
        needs: extras that the loss asks for: `instances` adds component labels.
        weight_map: labels (crop, crop) → weights, multiplied into `weight`.
        strata: stratum of each row, so that nuclei are pasted from images of their own kind.
        even_strata: how far rare strata are raised, from 0 (not at all) to 1 (all are drawn equally often).
        instances: whether labels number instances, which are kept in one part each, or are a mask of 0 and 1.
    """

    def __init__(
        self,
        store: Store,
        rows: pd.DataFrame,
        target: Any,
        preprocess: Preprocess,
        options: AugmentOptions,
        *,
        crop: int,
        count: int,
        bins: int,
        seed: int,
        needs: frozenset[str] = frozenset(),
        weight_map: WeightMap | None = None,
        strata: Sequence[str] | None = None,
        even_strata: float = 0.0,
        instances: bool = True,
    ) -> None:
        self.store = store
        self.rows = rows.reset_index(drop=True)
        self.target = target
        self.preprocess = preprocess
        self.options = options
        self.colour = ColourAugment(options)
        self.crop = crop
        self.count = count
        self.seed = seed
        self.needs = needs
        self.weight_map = weight_map
        self.instances = instances
        self.strata = None if strata is None else np.asarray(strata, np.str_)
        self.weights = weights_of(self.rows, bins, crop)
        if strata is not None and even_strata > 0:
            self.weights = even_out(self.weights, strata, even_strata)
        self._plan: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))
        self._enhanced: dict[tuple[str, int], NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        """Examples in an epoch."""
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        """Draw the example `index` of `epoch`: image (3, c, c) uint8, truth, weight (1, c, c), extras."""
        epoch, index = key
        random = np.random.default_rng([self.seed, epoch, index])
        row = int(self._rows_of(epoch)[index])
        found = self._crop(row, random)
        if self.options.mosaic > 0 and random.random() < self.options.mosaic:
            others = [self._crop(self._drawn(random), random) for _ in range(3)]
            found = mosaic([found, *others], seams(random, self.crop))
        if self.options.copy_paste > 0 and random.random() < self.options.copy_paste:
            found = paste(found, self._crop(self._drawn(random, row), random), random)
        pixels = self.colour(found.pixels, int(random.integers(2**31)))
        return self._tensors(found._replace(pixels=pixels))

    def _crop(self, row: int, random: np.random.Generator) -> Crop:
        image, labels = self._pixels(row)
        matrix = draw_crop(self.options, random, image.shape[0], image.shape[1], self.crop)
        warped = warp(image, labels, matrix, self.crop, instances=self.instances)
        return Crop(*warped, beyond(labels, matrix, self.crop))

    def _drawn(self, random: np.random.Generator, like: int | None = None) -> int:
        """A row drawn by its weight, as those of an epoch are; of the stratum of `like` where strata are known."""
        weights = self.weights
        if like is not None and self.strata is not None:
            weights = weights * (self.strata == self.strata[like])
        return int(random.choice(len(weights), p=weights / weights.sum()))

    def _rows_of(self, epoch: int) -> NDArray[np.int64]:
        if self._plan[0] != epoch:
            self._plan = (epoch, epoch_rows(self.weights, self.count, self.seed, epoch))
        return self._plan[1]

    def _pixels(self, row: int) -> tuple[NDArray[np.uint8], NDArray[np.unsignedinteger]]:
        tile = self.rows.iloc[row]
        image, labels = self.store.pixels(tile.sample_id), self.store.masks(tile.sample_id)
        position = -1
        if tile.kind != "whole":
            position = int(tile["index"])
            image = image[position, : tile.valid_height, : tile.valid_width]
            labels = labels[position, : tile.valid_height, : tile.valid_width]
        return self._enhance(image, str(tile.sample_id), position), np.ascontiguousarray(labels)

    def _enhance(self, image: NDArray[np.uint8], sample_id: str, position: int) -> NDArray[np.uint8]:
        """CLAHE of a whole image (or tile): it depends on context, so it comes before the crop, as in inference."""
        if not self.preprocess.enhances:
            return np.ascontiguousarray(image)
        key = (sample_id, position)
        if key not in self._enhanced:
            while self._enhanced and sum(kept.nbytes for kept in self._enhanced.values()) + image.nbytes > KEPT:
                self._enhanced.pop(next(iter(self._enhanced)))
            self._enhanced[key] = self.preprocess.pixels(np.ascontiguousarray(image))
        return self._enhanced[key]

    def _tensors(self, crop: Crop) -> dict[str, torch.Tensor]:
        pixels, labels, valid, mirrored = crop
        weight = valid.astype(np.float32)
        if self.weight_map is not None:
            # Mirrored labels go on beyond the image, as in the truth: its edge is no outline, wherever the crop ends.
            weight *= self.weight_map(labels + mirrored)
        truth = np.ascontiguousarray(self.target.encode_crop(labels, mirrored))
        example = {
            "image": torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
            "truth": torch.from_numpy(truth),
            "weight": torch.from_numpy(weight[None]),
        }
        if "instances" in self.needs:
            # Of the crop as it is learned: a nucleus that the crop cuts in two varies within each part.
            example["instances"] = torch.from_numpy(inside_components(np.where(valid, truth, 0)))
        return example
