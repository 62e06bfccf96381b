"""Real rows and submissions of the HuBMAP kidney competition, at the true sizes of its slides."""

from __future__ import annotations

from csv import DictReader
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from histofold import rle
from histofold.competitions.rows import RowIndex
from histofold.kaggle import csv
from histofold.kaggle.csv import CsvFormat
from histofold.kaggle.validate import validate
from histofold.rle.text import read as read_runs
from histofold.rle.text import write as write_runs

Shapes = dict[str, tuple[int, int]]
TRAIN, SENT = CsvFormat("id", "encoding"), CsvFormat("id", "predicted")
FILES = [
    ("kaggle_files/train_2slides.csv", TRAIN),
    ("real_submissions/sdpa_submission_5slides.csv", SENT),
    ("polygons_optimox/train_format_from_polygons.csv", TRAIN),
]


@pytest.mark.parametrize(("name", "form"), FILES)
def test_every_row_comes_back_as_it_was(name: str, form: CsvFormat, kidney: Path, kidney_shapes: Shapes) -> None:
    rows = csv.read(kidney / name, form)
    assert rows
    for sample_id, text in rows:
        runs = rle.RunMask(text, kidney_shapes[sample_id])
        numbers = np.array(text.split(), np.int64)
        assert runs.area == numbers[1::2].sum()
        assert runs.boxes()[:, 4].sum() == runs.area
        again = runs.text()
        starts, lengths = rle.RunMask(again, kidney_shapes[sample_id]).runs
        assert np.array_equal(np.cumsum(lengths)[-1:], [runs.area])
        # Runs that touch are joined; in files without such runs the text is the same to the byte.
        touching = np.any(numbers[2::2] == numbers[:-2:2] + numbers[1:-2:2])
        assert (again == text) != touching
        assert np.all(starts[1:] > starts[:-1] + lengths[:-1])


@pytest.mark.parametrize(("name", "form"), FILES)
def test_real_files_are_valid(name: str, form: CsvFormat, kidney: Path, kidney_shapes: Shapes) -> None:
    ids = [sample_id for sample_id, _ in csv.read(kidney / name, form)]
    assert validate(kidney / name, form, ids, kidney_shapes) == []


def test_the_largest_real_mask_through_pixels(kidney: Path, kidney_shapes: Shapes) -> None:
    """44,066 × 31,299 pixels and 161,083 runs: decoded, encoded, streamed, and read by windows."""
    texts = dict(csv.read(kidney / "kaggle_files" / "train_2slides.csv", TRAIN))
    text, shape = texts["8242609fa"], kidney_shapes["8242609fa"]
    mask = rle.decode(text, shape)
    assert int(mask.sum(dtype=np.int64)) == 32_572_435
    assert rle.encode(mask) == text
    encoder = rle.RowStreamEncoder(*shape)
    for y in range(0, shape[0], 2048):
        encoder.push(mask[y : y + 2048])
    assert encoder.finish() == text
    runs = rle.RunMask(text, shape)
    y, x = (int(v) for v in runs.boxes()[100, :2])
    assert np.array_equal(runs.window(y - 50, x - 50, 700, 900), mask[y - 50 : y + 650, x - 50 : x + 850])
    cells = mask[: 16 * 1956, : 16 * 2754].reshape(1956, 16, 2754, 16).sum(axis=(1, 3), dtype=np.int64)
    assert np.array_equal(runs.reduced_window(0, 0, 16 * 1956, 16 * 2754, 16), (cells / 256).astype(np.float32))


# pycocotools uses a form of numpy's API that numpy means to take away.
@pytest.mark.filterwarnings("ignore:.*__array__.*:DeprecationWarning")
@pytest.mark.parametrize(("sample_id", "area"), [("2f6ecfcdf", 8_030_180), ("8242609fa", 32_572_435)])
def test_real_rows_are_to_pycocotools_what_they_are_to_us(
    sample_id: str, area: int, kidney: Path, kidney_shapes: Shapes
) -> None:
    """Their pixels of the row are ours (looked at in parts, so that memory holds one mask), and give the row again."""
    shape = kidney_shapes[sample_id]
    text = dict(csv.read(kidney / "kaggle_files" / "train_2slides.csv", TRAIN))[sample_id]
    numbers = np.array(text.split(), np.int64)
    starts, lengths = numbers[::2] - 1, numbers[1::2]
    counts = np.zeros(2 * len(starts) + 1, np.int64)  # zeros, ones, zeros, …
    counts[1::2] = lengths
    counts[:-1:2] = starts - np.append(0, (starts + lengths)[:-1])
    counts[-1] = shape[0] * shape[1] - counts.sum()
    theirs = coco.frPyObjects({"counts": counts.tolist(), "size": list(shape)}, *shape)
    runs = rle.RunMask(text, shape)
    assert int(coco.area(theirs)) == runs.area == area
    boxes = runs.boxes()
    (y, x), (bottom, right) = boxes[:, :2].min(0), (boxes[:, :2] + boxes[:, 2:4]).max(0)
    assert coco.toBbox(theirs).tolist() == [x, y, right - x, bottom - y]
    mask = coco.decode(theirs)
    assert rle.encode(mask) == text
    for left in range(0, shape[1], 8000):  # columns lie together in theirs
        part = mask[:, left : left + 500]
        assert np.array_equal(runs.window(0, left, *part.shape), part)


def test_tiles_that_somebody_else_cut_have_the_rows_pixels(kidney: Path, kidney_shapes: Shapes) -> None:
    """Tile n of a grid of 4096 pixels around the slide's middle; its mask is every 16th pixel, not their average."""
    texts = dict(csv.read(kidney / "kaggle_files" / "train_2slides.csv", TRAIN))
    paths = sorted((kidney / "tiles_256_red16" / "masks").glob("*.png"))
    assert len(paths) == 12
    foreground = 0
    for path in paths:
        sample_id, number = path.stem.removesuffix("red16").split("_")
        shape = kidney_shapes[sample_id]
        pads = [4096 - side % 4096 for side in shape]
        row, column = divmod(int(number), (shape[1] + pads[1]) // 4096)
        runs = rle.RunMask(texts[sample_id], shape)
        tile = runs.window(row * 4096 - pads[0] // 2, column * 4096 - pads[1] // 2, 4096, 4096)[::16, ::16]
        assert np.array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED) > 0, tile > 0), path.name
        foreground += int(tile.sum())
    assert foreground == 8774


def test_the_information_csv_has_a_width_that_the_rows_disprove(kidney: Path, kidney_shapes: Shapes) -> None:
    """c68fe75ea is 49,780 pixels wide; the CSV says 19,780, and a submission for it goes past that end."""
    with (kidney / "kaggle_files" / "HuBMAP-20-dataset_information.csv").open(encoding="utf-8-sig") as stream:
        told = {
            Path(row["image_file"]).stem: (int(row["height_pixels"]), int(row["width_pixels"]))
            for row in DictReader(stream)
        }
    assert len(told) == 13
    wrong = {sample_id: size for sample_id, size in told.items() if size != kidney_shapes[sample_id]}
    assert wrong == {"c68fe75ea": (26840, 19780)}
    assert kidney_shapes["c68fe75ea"] == (26840, 49780)
    texts = dict(csv.read(kidney / "real_submissions" / "sdpa_submission_5slides.csv", SENT))
    assert rle.RunMask(texts["c68fe75ea"], kidney_shapes["c68fe75ea"]).area > 0
    with pytest.raises(rle.RleError, match="goes past the last pixel"):
        rle.RunMask(texts["c68fe75ea"], wrong["c68fe75ea"])


@pytest.mark.parametrize("name", ["sample_submission_2020-11.csv", "sample_submission_2021-final.csv"])
def test_sample_submissions_are_valid_and_empty(name: str, kidney: Path, kidney_shapes: Shapes) -> None:
    path = kidney / "kaggle_files" / name
    rows = csv.read(path, SENT)
    assert len(rows) == 5
    assert validate(path, SENT, [sample_id for sample_id, _ in rows], kidney_shapes) == []
    for sample_id, text in rows:
        runs = rle.RunMask(text, kidney_shapes[sample_id])
        assert (runs.area, runs.text()) == (0, text)


def test_rows_of_outlines_come_back_and_are_the_sum_of_their_kinds(kidney: Path) -> None:
    """All outlines of a slide, and those of each kind (G, FC), with the counts that stand beside them."""
    index = RowIndex.of(kidney / "polygons_optimox" / "rle_from_polygons.csv", ["id", "encoding"])
    alone = dict(csv.read(kidney / "polygons_optimox" / "train_format_from_polygons.csv", TRAIN))
    assert sorted(index.ids()) == sorted(alone)
    seen = 0
    for sample_id, text in alone.items():
        masks: dict[str, rle.RunMask] = {}
        for row in index.rows(sample_id):
            runs = rle.RunMask(row["encoding"], (int(row["height"]), int(row["width"])))
            assert runs.text() == row["encoding"]
            assert (len(runs.runs[0]), runs.area) == (int(row["n_runs"]), int(row["n_px"]))
            masks[row["which"]] = runs
        whole = masks.pop("all")
        assert whole.text() == text
        assert sum(runs.area for runs in masks.values()) >= whole.area
        assert all(runs.intersection(whole) == runs.area for runs in masks.values())
        seen += 1 + len(masks)
    assert seen == 27


def test_submissions_for_images_of_unknown_size(kidney: Path) -> None:
    path = kidney / "real_submissions" / "deepflash2_colon_2images.csv"
    rows = csv.read(path, SENT)
    assert len(rows) == 2
    assert validate(path, SENT, [sample_id for sample_id, _ in rows], {}) == []
    for _, text in rows:
        starts, lengths = read_runs(text, 1 << 40, rle.DIALECTS["columns"])
        assert write_runs(starts, lengths, rle.DIALECTS["columns"]) == text


def test_rows_of_the_2022_competition_are_their_masks(kidney: Path) -> None:
    """The masks beside these rows were decoded by somebody else's program."""
    folder = kidney.parent / "hubmap_hpa_2022"
    texts = dict(csv.read(folder / "train.csv", CsvFormat("id", "rle")))
    paths = sorted((folder / "masks").glob("*.png"))[:8]
    assert len(paths) == 8
    for path in paths:
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(rle.decode(texts[path.stem], mask.shape), mask > 0)
        assert rle.encode(mask) == texts[path.stem]
