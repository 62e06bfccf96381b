"""Targets, decoders and metrics beside what they have to keep up with; everything is measured in one run.

    python tests/bench/bench_instances.py            # about two minutes and 2 GB
    python tests/bench/bench_instances.py --small    # a sixteenth of the pixels, to see that it runs

Targets are compared with the augmentation that precedes them in training, decoders with a time limit and with
scikit-image's watershed, metrics with a loop over pairs of masks and with StarDist's matching.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histofold import instances, metrics, targets

Labels = NDArray[np.int32]
Row = tuple[str, float, str, float, float]
"""What, seconds, peer or limit, its seconds, least ratio."""


def seconds(function: Callable[[], Any], repeats: int = 3) -> float:
    """Least processor time of some runs, after one that is not counted (it compiles, and warms the caches).

    All threads are added up: a quiet machine needs no more than this by the clock, and a busy one tells the same.
    """
    function()
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def nuclei(size: int, count: int, jitter: float, seed: int = 0) -> Labels:
    """Crowded discs on a jittered lattice, two thirds of the area; another `jitter` moves them a little."""
    rng, moved = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    side = int(np.ceil(count**0.5))
    cell = size / side
    labels = np.zeros((size, size), np.int32)
    for label in range(1, count + 1):
        row, column = divmod(label - 1, side)
        centre = (np.array([row, column]) + 0.5) * cell + rng.uniform(-3, 3, 2) + jitter * moved.uniform(-1, 1, 2)
        radius = rng.uniform(0.34, 0.6) * cell
        top, left = np.maximum(0, (centre - radius).astype(int))
        window = labels[top : int(centre[0] + radius) + 2, left : int(centre[1] + radius) + 2]
        y, x = np.indices(window.shape)
        disc = (y + top - centre[0]) ** 2 + (x + left - centre[1]) ** 2 <= radius**2
        window[disc & (window == 0)] = label
    return labels


def augmentation() -> Callable[[NDArray[np.uint8], Labels], Any]:
    """The eight operations that stand for an ordinary pipeline, each of them applied."""
    import albumentations

    names = ("CLAHE", "Rotate", "HorizontalFlip", "VerticalFlip", "GaussNoise", "HueSaturationValue", "RandomGamma",
             "RandomBrightnessContrast")  # fmt: skip
    pipeline = albumentations.Compose([getattr(albumentations, name)(p=1) for name in names])
    return lambda image, labels: pipeline(image=image, mask=labels)


def bands_of(target: targets.Target, labels: Labels) -> dict[str, NDArray[np.float32]]:
    """Blurred and noisy bands, as a network gives them."""
    rng = np.random.default_rng(0)
    encoded = target.encode(labels)
    maps = np.stack([encoded > 0, encoded == 1, encoded == 2]) if target.activation == "softmax" else encoded
    names = [band.name for band in target.bands][-len(maps) :]
    named = dict(zip(names, maps.astype(np.float32), strict=True)) | {"foreground": (labels > 0).astype(np.float32)}
    return {
        name: np.clip(cv2.GaussianBlur(value, (0, 0), 1) + rng.normal(0, 0.03, value.shape), 0, 1).astype(np.float32)
        for name, value in named.items()
    }


def loop_over_pairs(truth: Labels, prediction: Labels, objects: int) -> float:
    """Seconds that comparing every true with every predicted mask takes, from the first `objects` true ones."""
    predicted = np.unique(prediction)[1:]
    start = time.process_time()
    for label in np.unique(truth)[1 : objects + 1]:
        mask = truth == label
        for other in predicted[:objects]:
            np.count_nonzero(mask & (prediction == other))
    spent = time.process_time() - start
    return spent * (truth.max() / objects) * (len(predicted) / objects)


def stardist_seconds(truth: Labels, prediction: Labels) -> float:
    """StarDist's matching at the ten thresholds of the Data Science Bowl."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from stardist.matching import matching
    return seconds(lambda: matching(truth, prediction, thresh=tuple(np.arange(10, 20) / 20)), 1)


def target_rows(labels: Labels) -> list[Row]:
    """Encoding of a 512² crop against its augmentation."""
    crop = labels[:512, :512].copy()
    image = np.random.default_rng(0).integers(0, 255, (*crop.shape, 3), dtype=np.uint8)
    pipeline = augmentation()
    peer = seconds(lambda: pipeline(image, crop), 5)
    variants: list[tuple[str, dict[str, Any]]] = [
        ("foreground", {}), ("ternary", {}), ("ternary", {"form": "fullnet"}), ("border", {}),
        ("distance", {}), ("distance", {"scale": "image"}), ("border_distance", {}), ("flow", {}),
    ]  # fmt: skip
    rows: list[Row] = []
    for name, options in variants:
        encode = targets.build(name, **options).encode
        title = " ".join(["target", name, *map(str, options.values())])
        rows.append((title, seconds(partial(encode, crop), 5), "8 albumentations", peer, 1.0))
    return rows


def decoder_rows(labels: Labels, limit: float) -> list[Row]:
    """Decoding of a whole image against the limit, and the watershed's flood against scikit-image's."""
    from skimage.segmentation import watershed

    from histofold.instances.cleanup import components
    from histofold.instances.flood import flood, levels

    pairs = (
        ("foreground", "threshold"), ("ternary", "components"), ("ternary", "watershed_inside"),
        ("border", "watershed"), ("distance", "watershed_distance"), ("distance", "hminima"), ("flow", "flow"),
    )  # fmt: skip
    rows: list[Row] = []
    for target, name in pairs:
        bands = bands_of(targets.build(target), labels)
        rows.append((f"decoder {name}", seconds(partial(instances.build(name), bands), 1), "limit", limit, 1.0))
    bands = bands_of(targets.build("border"), labels)
    height = bands["foreground"] - bands["border"]
    markers, mask, surface = components(height >= 0.5), bands["foreground"] >= 0.5, 255 - levels(height)
    theirs = seconds(lambda: watershed(surface, markers, mask=mask), 1)
    rows.append(("flood", seconds(lambda: flood(surface, markers, mask)), "scikit-image", theirs, 1.0))
    return rows


def metric_rows(truth: Labels, prediction: Labels, limit: float) -> list[Row]:
    """All metrics but Hausdorff against a limit, a loop over pairs (extrapolated) and StarDist."""
    ours = seconds(lambda: metrics.instance_scores(truth, prediction))
    dsb = seconds(lambda: metrics.dsb(truth, prediction))
    hausdorff = seconds(lambda: metrics.object_hausdorff(truth, prediction), 1)
    return [
        ("all metrics", ours, "limit", limit, 1.0),
        ("all metrics", ours, "loop over pairs", loop_over_pairs(truth, prediction, 10), 50.0),
        ("dsb alone", dsb, "stardist", stardist_seconds(truth, prediction), 1.0),
        ("object Hausdorff", hausdorff, "limit", 10 * limit, 1.0),
    ]


def main() -> int:
    """Print the table; 1 when a line misses its ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a sixteenth of the pixels")
    small = parser.parse_args().small
    size, count = (512, 320) if small else (2000, 5000)
    truth, prediction = nuclei(size, count, 0), nuclei(size, count, 2)
    print(f"{size} x {size} pixels, {truth.max()} true and {prediction.max()} predicted objects")
    rows = target_rows(truth) + decoder_rows(truth, 2.0) + metric_rows(truth, prediction, 0.3)
    print(f"{'what':32} {'ms':>9}   {'beside':18} {'ms':>12} {'ratio':>9} {'least':>6}")
    missed = 0
    for what, ours, peer, theirs, least in rows:
        ratio = theirs / ours
        missed += ratio < least
        word = "" if ratio >= least else "  NOT reached"
        print(f"{what:32} {1e3 * ours:9.1f}   {peer:18} {1e3 * theirs:12.1f} {ratio:9.1f} {least:6.0f}{word}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
