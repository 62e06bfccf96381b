from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from histofold import rle
from histofold.cli import main
from histofold.errors import DataError
from histofold.evaluation import extents
from histofold.evaluation.extents import Extent
from histofold.kaggle import csv, likeness
from histofold.kaggle.csv import CsvFormat

NUCLEI = CsvFormat("ImageId", "EncodedPixels", per_instance=True)
SLIDES = CsvFormat("id", "predicted")


def population(count: int, seed: int, empty: float = 0.03) -> list[Extent]:
    """Samples of 65,536 pixels with areas and counts that spread widely, as in microscopy."""
    rng = np.random.default_rng(seed)
    extents = []
    for number in range(count):
        instances = 0 if rng.random() < empty else int(np.ceil(rng.lognormal(3, 1)))
        area = int(sum(rng.integers(50, 300, instances)))
        extents.append(Extent(f"s{number}", 65_536, min(area, 60_000), instances))
    return extents


def uncounted(extents: list[Extent]) -> list[Extent]:
    return [replace(extent, instances=None) for extent in extents]


def warned(submission: list[Extent], reference: list[Extent]) -> list[str]:
    """What a submission is warned of beside one reference."""
    return likeness.warnings(submission, {likeness.TRUTH: reference})


def test_areas_and_counts_of_a_file(tmp_path: Path) -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[2:5, 2:8], labels[5:9, 2:8], labels[15:, 20:] = 1, 2, 3
    rows = [("x", text) for text in rle.encode_labels(labels).values()]
    csv.write(tmp_path / "n.csv", NUCLEI, [*rows, ("none", ""), ("unknown", "1 1")])
    shapes = {"x": (20, 30), "none": (7, 7)}
    found = likeness.area_statistics(tmp_path / "n.csv", NUCLEI, shapes)
    assert found == [Extent("x", 600, 92, 3), Extent("none", 49, 0, 0)]
    assert found[0] == likeness.of_labels("x", labels)
    # One mask a sample: objects that touch are one.
    csv.write(tmp_path / "s.csv", SLIDES, [("x", rle.encode(labels))])
    expected = Extent("x", 600, 92, 2)
    assert likeness.area_statistics(tmp_path / "s.csv", SLIDES, shapes) == [expected]
    assert likeness.of_mask("x", rle.RunMask.from_mask(labels)) == expected
    assert likeness.of_labels("x", labels, truth="mask") == expected
    assert expected.share == pytest.approx(92 / 600)


def test_a_faulty_row_is_named(tmp_path: Path) -> None:
    csv.write(tmp_path / "s.csv", SLIDES, [("x", ""), ("y", "9 9")])
    with pytest.raises(DataError, match=r"s\.csv, line 3, sample 'y': run 1 of 1"):
        likeness.area_statistics(tmp_path / "s.csv", SLIDES, {"x": (3, 3), "y": (3, 3)})


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [5, 65, 300])
def test_samples_of_the_same_kind_are_alike(seed: int, count: int) -> None:
    assert warned(population(count, seed), population(400, 1000 + seed)) == []


@pytest.mark.parametrize("count", [65, 300])
def test_what_went_wrong_is_noticed(count: int) -> None:
    reference, fine = population(400, 1), population(count, 2)

    def changed(**change: object) -> list[str]:
        new = [Extent(e.sample_id, e.pixels, *(f(e) for f in change.values())) for e in fine]  # type: ignore[operator]
        return warned(new, reference)

    nothing = changed(area=lambda e: 0, instances=lambda e: 0)
    assert len(nothing) == 3
    assert nothing[0].startswith("share of samples without foreground: 1, training truth 0.0")
    assert nothing[0].endswith("UNLIKE the training truth")
    (larger,) = changed(area=lambda e: min(4 * e.area, e.pixels), instances=lambda e: e.instances)
    assert larger.startswith("foreground share of a sample, median")
    (noise,) = changed(area=lambda e: e.area, instances=lambda e: 10 * e.instances)
    assert noise.startswith("instances in a sample, median")
    half = changed(
        area=lambda e: e.area * (int(e.sample_id[1:]) % 2), instances=lambda e: e.instances * (int(e.sample_id[1:]) % 2)
    )
    assert any(line.startswith("share of samples without") for line in half)


def test_truth_and_predictions_are_told_apart() -> None:
    """Networks that find half of what is there: a submission of theirs is like their OOF predictions, not the truth."""
    truth = population(400, 1)
    found = [replace(one, area=one.area // 4, instances=one.instances) for one in population(400, 5)]
    mine = [replace(one, area=one.area // 4, instances=one.instances) for one in population(300, 2)]
    lines = likeness.warnings(mine, {likeness.TRUTH: truth, likeness.OOF: found})
    assert [line.split(": ")[-1] for line in lines] == ["UNLIKE the training truth"]
    assert len(likeness.compare_all(mine, {likeness.TRUTH: truth, likeness.OOF: found})) == 6
    # Where OOF objects were not counted, nothing is said of them.
    quantities = [one.quantity for one in likeness.compare(mine, uncounted(found), likeness.OOF)]
    assert quantities == ["share of samples without foreground", "foreground share of a sample, median"]


def test_extents_are_kept_as_they_are(tmp_path: Path) -> None:
    kept = [Extent("007", 600, 92, 3), Extent("NA", 49, 0, 0), Extent("x", 1_379_254_246, 9, None)]
    extents.write(tmp_path / "new" / "a.csv", kept)
    assert extents.read(tmp_path / "new" / "a.csv") == kept
    assert extents.read(tmp_path / "none.csv") is None
    (tmp_path / "broken.csv").write_text("sample_id,pixels,area\nx,5,much\n")
    with pytest.raises(DataError, match=r"broken\.csv: damaged .*; run evaluate again"):
        extents.read(tmp_path / "broken.csv")


def test_extents_of_a_histogram_are_those_of_its_mask() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (20, 30))
    truth = codes > 200
    counts = np.stack([np.bincount(codes[truth == value], minlength=256) for value in (False, True)])
    assert extents.of_histogram("x", counts, 77) == Extent("x", 600, int((codes >= 77).sum()), None)


def test_nothing_to_compare() -> None:
    with pytest.raises(DataError, match="submission: no sample"):
        likeness.compare([], population(3, 0))
    with pytest.raises(DataError, match="training truth: no sample"):
        likeness.compare(population(3, 0), [])


@pytest.mark.parametrize("submission", [population(65, 3), [Extent("a", 100, 0, 0)]])
@pytest.mark.parametrize("oof", [None, population(90, 4), uncounted(population(90, 4))])
def test_the_picture(submission: list[Extent], oof: list[Extent] | None, tmp_path: Path) -> None:
    references = {likeness.TRUTH: population(400, 1)} | ({} if oof is None else {likeness.OOF: oof})
    path = likeness.picture(submission, references, tmp_path / "new" / "likeness.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000


def test_the_wrong_order_of_pixels_is_noticed(tmp_path: Path) -> None:
    """Row-major texts pass every rule of a column-major competition; only their fragments give them away."""
    rng = np.random.default_rng(0)
    shapes, right, wrong = {}, [], []
    for number in range(8):
        mask = np.zeros((300, 400), np.uint8)
        for _ in range(12):
            y, x, r = rng.integers(20, 280), rng.integers(20, 380), rng.integers(8, 18)
            yy, xx = np.ogrid[:300, :400]
            mask |= ((yy - y) ** 2 + (xx - x) ** 2 < r * r).astype(np.uint8)
        shapes[f"s{number}"] = mask.shape
        right.append((f"s{number}", rle.encode(mask, "columns")))
        wrong.append((f"s{number}", rle.encode(mask, "rows")))
    found = []
    for rows in (right, wrong):
        csv.write(tmp_path / "s.csv", SLIDES, rows)
        found.append(likeness.area_statistics(tmp_path / "s.csv", SLIDES, shapes))
    assert warned(found[0], found[0]) == []
    assert [line.split(":")[0] for line in warned(found[1], found[0])] == ["instances in a sample, median"]


def test_the_command_compares_any_file_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "input" / "data-science-bowl-2018"
    ids = [("stage1_train", f"a{k}") for k in range(6)] + [("stage1_test", f"t{k}") for k in range(4)]
    for stage, name in ids:
        path = root / stage / name / "images" / f"{name}.png"
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), np.full((40, 40, 3), 60, np.uint8))
        if stage == "stage1_train":
            (root / stage / name / "masks").mkdir()
            for number in range(4):
                mask = np.zeros((40, 40), np.uint8)
                mask[9 * number : 9 * number + 7, 3:20] = 255
                cv2.imwrite(str(root / stage / name / "masks" / f"{number}.png"), mask)
    tests = [name for stage, name in ids if stage == "stage1_test"]
    (root / "stage1_sample_submission.csv").write_text("ImageId,EncodedPixels\n" + "".join(f"{t},\n" for t in tests))
    places = [f"paths.{key}={tmp_path / key}" for key in ("input", "submissions", "prepared", "oof")]
    places += ["prepare.workers=1"]

    def run(text: str, *more: str) -> str:
        (tmp_path / "own.csv").write_text("ImageId,EncodedPixels\n" + text)
        assert main("validate", ["competition=dsb2018", f"file={tmp_path}/own.csv", *places, *more]) == 0
        picture = tmp_path / "submissions" / "dsb2018" / "likeness-own.png"
        assert picture.read_bytes().startswith(b"\x89PNG")
        picture.unlink()
        return capsys.readouterr().out

    good = run("".join(f"{t},{200 * k + 1} 119\n" for t in tests for k in range(4)))
    assert good.count("as in the training truth") == 3
    assert "not compared with out-of-fold predictions: name=NAME takes those of an ensemble" in good
    bad = run("".join(f"{t},\n" for t in tests))
    assert "keeps all rules" in bad
    assert bad.count("UNLIKE the training truth") == 3
    # With an ensemble's name, its OOF predictions are a second thing to compare with.
    rows = "".join(f"{t},{200 * k + 1} 119\n" for t in tests for k in range(4))
    assert re.search(r"this writes it: \S+run.sh evaluate .*name=ours", run(rows, "name=ours"))
    oof = extents.place(tmp_path / "oof", "dsb2018", "ours")
    extents.write(oof, [Extent(f"a{k}", 1600, 476 // 4, 4) for k in range(6)])
    both = run(rows, "name=ours")
    assert both.count("as in the training truth") == 3
    assert both.count("as in the out-of-fold predictions") == 2
    assert both.count("UNLIKE the out-of-fold predictions") == 1
    # A submission's own folder names the ensemble.
    own = tmp_path / "submissions" / "dsb2018" / "ours" / "submission.csv"
    own.parent.mkdir(parents=True)
    own.write_text((tmp_path / "own.csv").read_text())
    assert main("validate", ["competition=dsb2018", *places]) == 0
    assert capsys.readouterr().out.count("the out-of-fold predictions\n") == 3
    assert (own.parent / "likeness.png").is_file()
