"""One real-sized slide from TIFF to CSV: what each verb takes in time and memory, a process each.

    python tests/bench/bench_gigapixel.py            # 44,066 × 31,299 px: half an hour on two cores, 10 GB of disk
    python tests/bench/bench_gigapixel.py --small    # an eighth of each side: two minutes, to see that it runs
    python tests/bench/bench_gigapixel.py --folder GIGA --only prepare    # a verb by itself, in the order of the verbs

Two slides of the HuBMAP kidney competition in their true sizes, drawn as PAS-like tissue under their true masks where
`HISTOFOLD_DATA` has them (under drawn ones elsewhere), in Kaggle's layout. A U-Net/ResNet-18 is trained for a few
minutes on the larger slide and scored out of fold on the smaller one; then the larger slide, under another name, is the
test set. Everything goes through the command line, as a user would do it. Peak memory is that of the verb's process and
of those that it starts, together.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import process_memory
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from histofold.rle import RunMask

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"2f6ecfcdf": (31_278, 25_794), "8242609fa": (31_299, 44_066)}
LARGE, TEST = "8242609fa", "0000test1"
BAND = 1024
VERBS = ("prepare", "train", "evaluate", "predict", "submit")
SAMPLE = 0.1
"""Seconds from one look at the memory to the next; each costs some milliseconds for a gigabyte."""

Pixels = NDArray[np.uint8]


# ---------------------------------------------------------------------------------------------------------- slides


def texture(base: Sequence[int], cells: Sequence[tuple[float, float]], side: int, seed: int) -> Pixels:
    """Stained tissue (side, side, 3) around a base colour, with `cells` = (size, strength) of its structures."""
    random = np.random.default_rng(seed)
    field = np.zeros((side, side), np.float32)
    for size, strength in cells:
        layer = cv2.GaussianBlur(random.normal(0, 1, (side, side)).astype(np.float32), (0, 0), size)
        field += strength * layer / layer.std()
    pixels = np.asarray(base, np.float32) - field[:, :, None] * np.array([0.6, 1.0, 0.6], np.float32)
    return np.clip(pixels + random.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8)


class Painter:
    """Bands of a slide: an ellipse of tissue on glass, glomeruli of a finer grain where the mask is."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        layers = {
            "glass": texture((240, 238, 242), (), 2048, 0),
            "tissue": texture((205, 150, 195), ((4, 22), (30, 22), (120, 10)), 2048, 1),
            "glomerulus": texture((190, 128, 188), ((6, 34), (12, 10)), 2048, 2),
        }
        columns = -(-width // 2048)
        self.layers = {name: np.tile(layer, (1, columns, 1))[:, :width] for name, layer in layers.items()}

    def band(self, top: int, mask: Pixels) -> Pixels:
        """Rows from `top` on, as many as the mask (rows, width) has."""
        rows = slice(top % 2048, top % 2048 + len(mask))
        y = (np.arange(top, top + len(mask)) / self.height - 0.5)[:, None] / 0.49
        x = (np.arange(self.width) / self.width - 0.5)[None] / 0.49
        inside = ((y**2 + x**2) < 1)[:, :, None]
        out = np.where(inside, self.layers["tissue"][rows], self.layers["glass"][rows])
        return np.where(mask[:, :, None] > 0, self.layers["glomerulus"][rows], out)


def draw(path: Path, mask: RunMask) -> None:
    """Write the slide as tiled, deflated TIFF, band by band."""
    painter = Painter(mask.height, mask.width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", height=mask.height, width=mask.width, count=3, dtype="uint8", tiled=True,
            blockxsize=256, blockysize=256, compress="deflate", zlevel=1, interleave="pixel", photometric="rgb",
            num_threads="all_cpus", BIGTIFF="IF_SAFER",
        ) as target:  # fmt: skip
            for top in range(0, mask.height, BAND):
                rows = min(BAND, mask.height - top)
                band = painter.band(top, mask.window(top, 0, rows, mask.width))
                target.write(band.transpose(2, 0, 1), window=Window(0, top, mask.width, rows))


def drawn_mask(height: int, width: int, seed: int) -> RunMask:
    """Some 150 round glomeruli."""
    random = np.random.default_rng(seed)
    radius = max(6, height // 150)
    mask = np.zeros((height, width), np.uint8)
    for _ in range(150):
        angle, reach = random.uniform(0, 2 * np.pi), 0.45 * np.sqrt(random.random())
        centre = int(width * (0.5 + reach * np.cos(angle))), int(height * (0.5 + reach * np.sin(angle)))
        cv2.circle(mask, centre, int(radius * random.uniform(0.6, 1.3)), 1, -1)
    return RunMask.from_mask(mask)


def masks(small: bool) -> tuple[dict[str, RunMask], str]:
    """Slide → mask, and where the masks come from."""
    table = Path(os.environ.get("HISTOFOLD_DATA", "")) / "hubmap_kidney/kaggle_files/train_2slides.csv"
    if not small and table.is_file():
        csv.field_size_limit(1 << 30)
        with table.open(newline="", encoding="utf-8") as stream:
            rows = {row["id"]: row["encoding"] for row in csv.DictReader(stream)}
        return {name: RunMask(rows[name], size) for name, size in SIZES.items()}, "real masks"
    part = 8 if small else 1
    drawn = {name: drawn_mask(h // part, w // part, seed) for seed, (name, (h, w)) in enumerate(SIZES.items())}
    return drawn, "drawn masks"


def write(path: Path, header: list[str], rows: list[list[object]]) -> None:
    """One CSV."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([header, *rows])


def make_competition(folder: Path, truth: dict[str, RunMask]) -> None:
    """Kaggle's layout: two training slides of two patients, the larger one again as the test."""
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
    for name, mask in truth.items():
        draw(folder / "train" / f"{name}.tiff", mask)
    os.link(folder / "train" / f"{LARGE}.tiff", folder / "test" / f"{TEST}.tiff")
    write(folder / "train.csv", ["id", "encoding"], [[name, mask.text()] for name, mask in truth.items()])
    write(folder / "hidden_truth.csv", ["id", "encoding"], [[TEST, truth[LARGE].text()]])
    write(folder / "sample_submission.csv", ["id", "predicted"], [[TEST, ""]])
    header = ["image_file", "width_pixels", "height_pixels", "patient_number"]
    every = [*truth.items(), (TEST, truth[LARGE])]
    rows: list[list[object]] = [[f"{name}.tiff", m.width, m.height, i] for i, (name, m) in enumerate(every)]
    write(folder / "HuBMAP-20-dataset_information.csv", header, rows)


# ------------------------------------------------------------------------------------------------------------ verbs


def run(verb: str, arguments: Sequence[str], log: Path) -> tuple[float, float]:
    """Seconds and peak memory (GB) of one verb.

    Raises:
        SystemExit: the verb failed; its last lines are shown.
    """
    return watch(verb, [sys.executable, "-m", "histofold", verb, *arguments], log)


def watch(name: str, command: Sequence[str], log: Path) -> tuple[float, float]:
    """Seconds and peak memory (GB) of a command with all processes that it starts.

    Memory is looked at several times a second. The command's own peak is the least that is told, however short it was:
    Linux remembers it.

    Raises:
        SystemExit: it failed; its last lines are shown.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    start = time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
        peak = 0
        while process.poll() is None:
            peak = max(peak, process_memory.in_use(process.pid), process_memory.peak_of(process.pid))
            time.sleep(SAMPLE)
    seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"{name} failed:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:]))
    return seconds, peak / 2**30


def settings(folder: Path, small: bool) -> list[str]:
    """What every verb is called with."""
    paths = [f"paths.{key}={folder / key}" for key in ("input", "prepared", "oof", "submissions")]
    size = ["prepare.scale=1", "prepare.tile=64", "train.crop=64"] if small else ["prepare.scale=4"]
    return ["competition=hubmap_kidney", *paths, *size, "prepare.n_folds=2", "predict.tta=none"]


def main() -> int:
    """Draw, run the verbs, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="an eighth of each side")
    parser.add_argument("--folder", type=Path, default=None, help="kept afterwards, and not drawn again")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--only", nargs="+", choices=VERBS, default=VERBS, help="verbs, those before done in --folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gigapixel-") as temporary:
        folder = options.folder or Path(temporary)
        make(folder, options.small)
        report(folder, measure(folder, settings(folder, options.small), options.epochs, options.only))
    return 0


def make(folder: Path, small: bool) -> None:
    """Draw the competition into `folder` unless it is there, and say what it is."""
    truth, origin = masks(small)
    raw = folder / "input" / "hubmap-kidney-segmentation"
    start = time.perf_counter()
    if not raw.is_dir():
        make_competition(raw, truth)
    size = sum(file.stat().st_size for file in (raw / "train").iterdir()) / 1e9
    sides = ", ".join(f"{mask.width} × {mask.height}" for mask in truth.values())
    print(f"slides of {sides} px, {origin}, {size:.1f} GB, drawn in {time.perf_counter() - start:.0f} s", flush=True)


def measure(folder: Path, common: list[str], epochs: int, verbs: Sequence[str]) -> list[tuple[str, float, float]]:
    """Verb, seconds and peak memory (GB) of each verb."""
    rows = []
    for verb in verbs:
        seconds, peak = run(verb, [*common, *own_settings(verb, folder, epochs)], folder / f"{verb}.log")
        rows.append((verb, seconds, peak))
        print(f"{verb}: {seconds:.0f} s, {peak:.2f} GB", flush=True)
    return rows


def own_settings(verb: str, folder: Path, epochs: int) -> list[str]:
    """What a verb is called with beside what all are; the smaller slide is held out of the training."""
    if verb == "prepare":
        return []
    held_out = fold_of(folder, "2f6ecfcdf")
    return {
        "train": ["model=smp", "run=giga", f"fold={held_out}", f"train.epochs={epochs}",
                  "train.samples_per_epoch=400", "train.validate_every=0"],
        "evaluate": ["runs=[giga]", f"folds=[{held_out}]", "name=giga"],
    }.get(verb, ["name=giga"])  # fmt: skip


def report(folder: Path, rows: list[tuple[str, float, float]]) -> None:
    """Print the table, and what the verbs said of scores and of the file."""
    print(f"\n{'verb':<10}{'seconds':>9}{'peak GB':>9}")
    for verb, seconds, peak in rows:
        print(f"{verb:<10}{seconds:>9.1f}{peak:>9.2f}")
    logs = ((folder / f"{verb}.log").read_text(errors="replace").splitlines() for verb, *_ in rows)
    words = ("OOF score", "known truth", "valid")
    print(*[line for log in logs for line in log if any(word in line for word in words)], sep="\n")


def fold_of(folder: Path, name: str) -> int:
    """The fold of a slide."""
    with (folder / "prepared" / "hubmap_kidney" / "folds.csv").open(newline="", encoding="utf-8") as stream:
        return next(int(row["fold"]) for row in csv.DictReader(stream) if row["sample_id"] == name)


if __name__ == "__main__":
    sys.exit(main())
