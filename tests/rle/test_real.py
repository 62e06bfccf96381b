"""Real rows and submissions of the HuBMAP kidney competition, at the true sizes of its slides."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from histofold import rle
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


def test_the_information_csv_has_a_width_that_the_rows_disprove(kidney: Path, kidney_shapes: Shapes) -> None:
    """c68fe75ea is 49,780 pixels wide; the CSV says 19,780, and a submission for it goes past that end."""
    texts = dict(csv.read(kidney / "real_submissions" / "sdpa_submission_5slides.csv", SENT))
    height, width = kidney_shapes["c68fe75ea"]
    assert (height, width) == (26840, 49780)
    assert rle.RunMask(texts["c68fe75ea"], (height, width)).area > 0
    with pytest.raises(rle.RleError, match="goes past the last pixel"):
        rle.RunMask(texts["c68fe75ea"], (height, 19780))


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
