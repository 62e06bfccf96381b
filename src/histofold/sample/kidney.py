"""The embedded sample of HuBMAP 2020: eight small slides in Kaggle's layout, drawn by `tissue`."""

from __future__ import annotations

import csv
import functools
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from histofold import files, parallel, rle
from histofold.sample import texture, tissue

SEED = 20201116
INFORMATION = "HuBMAP-20-dataset_information.csv"


@dataclass(frozen=True)
class Plan:
    """What one slide is to be: its id, patient, split, size, TIFF layout and number of glomeruli."""

    slide: str
    patient: int
    split: str
    height: int
    width: int
    layout: str
    glomeruli: int


PLANS = (
    Plan("0a1d4e6b2", 67001, "train", 2048, 2560, "interleaved", 13),
    Plan("1c97b03f5", 67001, "train", 2304, 2048, "planar", 11),
    Plan("2be850d17", 67002, "train", 2100, 2500, "bands", 12),
    Plan("3f06c9a84", 67002, "train", 2000, 2200, "interleaved", 0),
    Plan("5d42e7f90", 67003, "train", 2432, 2176, "planar", 12),
    Plan("7e813ab6c", 67004, "train", 2250, 2350, "bands", 13),
    Plan("a96f10d3e", 67005, "test", 2200, 2304, "interleaved", 12),
    Plan("c4705eb8d", 67006, "test", 2333, 2111, "bands", 10),
)
"""Sizes that are and are not multiples of a tile; the slide without glomeruli shares its patient with another."""

BATCHES = {67002: 67004, 67004: 67002}
"""Staining batch of a patient where it is not named like the patient. Pale and strong stains meet in each of the two
folds: four patients in folds of one kind each would make the CV a lottery."""

PAS = np.array([0.30, 1.00, 0.42], np.float32)
HAEM = np.array([1.00, 0.92, 0.38], np.float32)


def draw(folder: Path) -> None:
    """Draw the sample into `folder`; train.csv is written last, so where it is the sample is whole.

    Raises:
        ResourceError: the disk is full.
    """
    masks: dict[str, str] = {}
    draw_one = functools.partial(_draw_slide, folder)
    for plan, text in parallel.each(draw_one, PLANS, text="drawing kidney slides", unit="slide"):
        if isinstance(text, Exception):
            raise text
        masks[plan.slide] = text
    _tables(folder, masks)


def _draw_slide(folder: Path, plan: Plan) -> str:
    """Write one slide with its JSON files; gives the runs of its glomeruli."""
    image, outlines = slide(plan)
    path = folder / plan.split / f"{plan.slide}.tiff"
    with files.atomic(path) as temporary:
        write_tiff(temporary, image, plan.layout)
    # The outlines of test slides are truth too; as on Kaggle, nobody gets them beside the slides.
    beside = path if plan.split == "train" else folder / "hidden" / path.name
    beside.parent.mkdir(exist_ok=True)
    files.write_json(beside.with_suffix(".json"), [_feature(points, "glomerulus") for points in outlines])
    anatomy = path.with_name(f"{plan.slide}-anatomical-structure.json")
    files.write_json(anatomy, [_feature(_frame(plan), "Cortex" if outlines else "Medulla")])
    return _encoded(plan, outlines)


def slide(plan: Plan) -> tuple[NDArray[np.uint8], list[texture.Points]]:
    """Pixels (H, W, 3) of one slide and the outlines of its glomeruli (n, 2) x, y."""
    rng = np.random.default_rng([SEED, PLANS.index(plan)])
    drawn = tissue.draw(rng, plan.height, plan.width, plan.glomeruli)
    # The stain belongs to the patient's batch, the lamp to the slide.
    return _stained(drawn, np.random.default_rng([SEED, BATCHES.get(plan.patient, plan.patient)]), rng), drawn.glomeruli


def _stained(drawn: tissue.Tissue, batch: np.random.Generator, rng: np.random.Generator) -> NDArray[np.uint8]:
    height, width = drawn.shape
    strength, tint = batch.uniform(0.75, 1.35), batch.uniform(-0.14, 0.14, (2, 3)).astype(np.float32)
    pas, haem = np.maximum(PAS + tint[0], 0.05), np.maximum(HAEM + tint[1], 0.05)
    paleness = batch.uniform(0.75, 1.2)
    lamp = rng.uniform(218, 246) * np.array([1, rng.uniform(0.96, 1.0), rng.uniform(0.95, 1.01)])
    light = 1 + 0.05 * texture.clouds(rng, height, width, 900)
    noise = texture.grain(rng, height, width, 1.6)
    dust = texture.stamp((height, width), texture.scattered(rng, height, width, 420, 0.5), 3)
    image = np.empty((height, width, 3), np.uint8)
    for channel in range(3):
        density = strength * (pas[channel] * drawn.pas + paleness * haem[channel] * drawn.haem)
        grey = np.float32(lamp[channel]) * light * np.exp(-density) + noise
        grey[dust & ~drawn.inside] *= 0.75
        image[..., channel] = np.clip(np.rint(grey), 0, 255)
    return image


def write_tiff(path: Path, image: NDArray[np.uint8], layout: str) -> None:
    """Write (H, W, 3) as `interleaved` (one page, pixel by pixel), `planar` (one page, band by band) or `bands`.

    `bands` is one page a band, which readers see as three sub-datasets.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    height, width = image.shape[:2]
    common = {"driver": "GTiff", "height": height, "width": width, "dtype": "uint8", "compress": "deflate", "zlevel": 1}
    planes = np.moveaxis(image, 2, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        if layout == "bands":
            for index, plane in enumerate(planes):
                with rasterio.open(path, "w", count=1, append_subdataset=bool(index), **common) as target:
                    target.write(plane, 1)
            return
        mode = {"interleave": "pixel", "tiled": True} if layout == "interleaved" else {"interleave": "band"}
        with rasterio.open(path, "w", count=3, photometric="rgb", **common, **mode) as target:
            target.write(planes)


def _frame(plan: Plan) -> texture.Points:
    corners = [(0, 0), (plan.width - 1, 0), (plan.width - 1, plan.height - 1), (0, plan.height - 1)]
    return np.array(corners, np.int32)


def _feature(points: texture.Points, name: str) -> dict[str, object]:
    ring = points.tolist()
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        "properties": {"classification": {"name": name}},
    }


def _encoded(plan: Plan, outlines: list[texture.Points]) -> str:
    mask = np.zeros((plan.height, plan.width), np.uint8)
    cv2.fillPoly(mask, outlines, 1)
    return rle.encode(mask)


def _tables(folder: Path, masks: dict[str, str]) -> None:
    test = [plan.slide for plan in PLANS if plan.split == "test"]
    train = [plan.slide for plan in PLANS if plan.split == "train"]
    _table(folder / "hidden_truth.csv", ["id", "encoding"], [[key, masks[key]] for key in test])
    _table(folder / "sample_submission.csv", ["id", "predicted"], [[key, ""] for key in test])
    header = ["image_file", "width_pixels", "height_pixels", "anatomical_structures_segmention_file"]
    header += ["glomerulus_segmentation_file", "patient_number"]
    rows = [
        [f"{p.slide}.tiff", p.width, p.height, f"{p.slide}-anatomical-structure.json", f"{p.slide}.json", p.patient]
        for p in PLANS
    ]
    _table(folder / INFORMATION, header, rows)
    _table(folder / "train.csv", ["id", "encoding"], [[key, masks[key]] for key in train])


def _table(path: Path, header: list[str], rows: list[list[object]]) -> None:
    with files.atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
