"""The search for an ensemble: ten members' out-of-fold band files of 465 images in the sizes of DSB 2018.

    python tests/bench/bench_ensemble.py            # ten minutes on two cores and 1 GB of disk
    python tests/bench/bench_ensemble.py --small    # 3 members, 60 images: a minute, to see that it runs

Images, labels and members are drawn; then `evaluate evaluate.search=best` runs as a user would run it. The floor is
what no search can do without: read each band file once, decode it once, match it with the truth once.
Processor seconds of all processes stand beside the clock: on a machine that is busy only they mean something.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from histofold import instances, metrics, parallel
from histofold.competitions import Sample
from histofold.inference.bandfile import BandFile, BandFileWriter
from histofold.targets import build
from histofold.tiles import folds

ROOT = Path(__file__).resolve().parents[2]
NAME = "bench_ensemble"
SIZES = ((256, 256, 0.5), (256, 320, 0.17), (520, 696, 0.14), (360, 360, 0.14), (1024, 1024, 0.025), (512, 640, 0.025))
"""Heights, widths and shares of the training images of DSB 2018."""
LIMIT = 600.0
"""Seconds of the clock on two cores."""

Labels = NDArray[np.int32]


def sizes(count: int) -> list[tuple[int, int]]:
    """Sizes of `count` images, mixed."""
    kinds = [(height, width) for height, width, share in SIZES for _ in range(round(1000 * share))]
    return [kinds[(number * 617) % len(kinds)] for number in range(count)]


def nuclei(height: int, width: int, seed: int) -> Labels:
    """Discs of 5 to 14 pixels' radius, some of them touching; a nucleus in each 2,200 pixels as in DSB."""
    random = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.int32)
    for label in range(1, height * width // 2200 + 1):
        y, x, radius = random.integers(0, height), random.integers(0, width), random.integers(5, 15)
        disc = np.zeros((height, width), np.uint8)
        cv2.circle(disc, (int(x), int(y)), int(radius), 1, -1)
        labels[(disc > 0) & (labels == 0)] = label
    return labels


def bands_of(labels: Labels, member: int, seed: int) -> NDArray[np.uint8]:
    """What a network would say (2, H, W): some nuclei missed, outlines soft and shifted, noise; each member its own."""
    random = np.random.default_rng((seed, member))
    found = np.where(random.random(labels.max() + 1) < 0.9 - 0.02 * member, np.arange(labels.max() + 1), 0)
    shifted = np.roll(found[labels], random.integers(-1, 2, 2), (0, 1))
    maps = build("border").encode(shifted)
    soft = np.stack([cv2.GaussianBlur(plane, (0, 0), 1.0 + 0.2 * member) for plane in maps])
    noise = cv2.GaussianBlur(random.normal(0, 1, labels.shape).astype(np.float32), (0, 0), 2)
    return np.clip(255 * (soft + 0.25 * noise / noise.std() * soft * (1 - soft) * 4), 0, 255).astype(np.uint8)


class Bench:
    """A drawn competition with members below a folder."""

    def __init__(self, root: Path, members: int, images: int) -> None:
        self.root, self.members = root, members
        shapes = sizes(images)
        self.samples = [Sample(f"i{k:03}", "train", *shapes[k], f"g{k // 2}", "") for k in range(images)]
        self.table = folds.make(self.samples, 5, 0)
        self._folds = dict(zip(self.table["sample_id"].astype(str), self.table["fold"].astype(int), strict=True))

    @property
    def input(self) -> Path:
        """The images and labels."""
        return self.root / "input" / NAME

    def draw(self) -> None:
        """Write images, labels, folds and the members' runs."""
        for name in ("images", "labels"):
            (self.input / name).mkdir(parents=True)
        index = ["id,group"]
        for number, sample in enumerate(self.samples):
            labels = nuclei(sample.height, sample.width, number)
            image = np.full((sample.height, sample.width, 3), 30, np.uint8)
            cv2.imwrite(str(self.input / "images" / f"{sample.sample_id}.png"), image)
            cv2.imwrite(str(self.input / "labels" / f"{sample.sample_id}.png"), labels.astype(np.uint16))
            index.append(f"{sample.sample_id},{sample.group}")
            self._predict(number, sample, labels)
        (self.input / "index.csv").write_text("\n".join(index) + "\n")
        place = self.root / "prepared" / NAME / "folds.csv"
        place.parent.mkdir(parents=True)
        folds.write(place, self.table)
        for member in range(self.members):
            self._run(member)

    def place(self, member: int, sample_id: str) -> Path:
        """Band file of a sample."""
        return self.fold(member, self._folds[sample_id]) / "predictions" / f"{sample_id}.tif"

    def fold(self, member: int, fold: int) -> Path:
        """Folder of a member's fold."""
        return self.root / "oof" / NAME / f"m{member}" / f"fold{fold}"

    def _predict(self, number: int, sample: Sample, labels: Labels) -> None:
        bands = build("border").bands
        for member in range(self.members):
            with BandFileWriter(self.place(member, sample.sample_id), bands, sample.height, sample.width) as writer:
                writer.write_rows(0, bands_of(labels, member, number))

    def _run(self, member: int) -> None:
        """What training leaves beside the predictions; the networks themselves are never looked at here."""
        for fold in sorted(set(self._folds.values())):
            part = self.table[self.table["fold"] == fold]
            folder = self.fold(member, fold)
            scores = part[["sample_id", "fold", "stratum", "group", "height", "width"]].assign(score=0.5)
            scores.to_csv(folder / "scores.csv", index=False)
            config = {"model": {"name": "unet"}, "seed": member, "run": f"m{member}", "folds": "default"}
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
            (folder / "model.ckpt").write_bytes(b"stands for the weights")

    def search(self, strategy: str) -> tuple[float, float, str]:
        """Run `evaluate`; seconds of the clock, of the processors, and what it printed."""
        places = [f"paths.{name}={self.root / name}" for name in ("input", "prepared", "oof", "submissions")]
        runs = ",".join(f"m{member}" for member in range(self.members))
        command = [sys.executable, str(ROOT / "src" / "evaluate.py"), "competition=folders", *places]
        command += [f"competition.name={NAME}", f"runs=[{runs}]", "folds=all", f"name={strategy}"]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run([*command, f"evaluate.search={strategy}"], stdout=subprocess.PIPE, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return time.perf_counter() - start, used, done.stdout

    def floor(self) -> float:
        """Processor seconds that reading, decoding and matching everything once takes, in one thread."""
        decoder = instances.build("watershed")
        score = metrics.named_score("dsb")
        score(metrics.contingency(np.eye(64, dtype=np.int32), decoder(_blank())))  # compiles
        start = time.process_time()
        for sample in self.samples:
            truth = np.asarray(cv2.imread(str(self.input / "labels" / f"{sample.sample_id}.png"), cv2.IMREAD_UNCHANGED))
            for member in range(self.members):
                with BandFile(self.place(member, sample.sample_id)) as file:
                    bands = file.read()
                score(metrics.contingency(truth, decoder(bands)))
        return time.process_time() - start


def _blank() -> dict[str, NDArray[np.float32]]:
    return {name: np.zeros((64, 64), np.float32) for name in ("foreground", "border")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, search, print; 0 when it is fast enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="3 members, 60 images, no verdict")
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--images", type=int, default=465)
    parser.add_argument("--search", default="best", help="equal, greedy, optimise or best")
    chosen = parser.parse_args(arguments)
    members, images = (3, 60) if chosen.small else (chosen.members, chosen.images)
    cores = parallel.cores()
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(Path(temporary), members, images)
        start = time.perf_counter()
        bench.draw()
        print(f"{members} members × {images} images drawn in {time.perf_counter() - start:.0f} s", flush=True)
        floor = bench.floor()
        wall, used, output = bench.search(chosen.search)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(output)
    table = {
        "cores": f"{cores}",
        "search, seconds": f"{wall:.0f}",
        "search, processor seconds": f"{used:.0f}",
        "floor, processor seconds": f"{floor:.0f}",
        "ratio": f"{used / floor:.1f}",
        "largest process": f"{peak:.2f} GiB",
    }
    print(pd.Series(table).to_string())
    full = members >= 10 and images >= 465
    expected = used / 2
    print(f"on two idle cores about {expected:.0f} s; to reach: {LIMIT:.0f} s" if full else "no verdict on a small set")
    return int(full and min(wall, expected) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
