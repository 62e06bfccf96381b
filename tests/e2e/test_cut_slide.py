"""A slide that was cut off in a copy or download: it is named, and the others are prepared, predicted and submitted."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Said = Callable[[], str]
TRAIN, TEST = "2be850d17", "c4705eb8d"
"""The slides that are cut; both are one page a colour, where the first page is whole."""


class Copy:
    """Folders of its own with the slides of a finished world, and the verbs on them."""

    def __init__(self, world: Any, root: Path, said: Said) -> None:
        self.world, self.root, self.said = world, root, said
        self.input, self.prepared = root / "input", root / "prepared" / world.competition
        shutil.copytree(world.root / "input", self.input)

    def run(self, verb: str, *more: str) -> tuple[int, str]:
        """The exit code of a verb and what it said."""
        self.said()
        places = [f"paths.{name}={self.root / name}" for name in ("input", "prepared", "submissions")]
        return self.world.run(verb, *places, *more), self.said()

    def slide(self, split: str, name: str) -> Path:
        """Where a slide is."""
        return self.input / self.world.competition / split / f"{name}.tiff"

    def folds(self) -> list[dict[str, str]]:
        """The rows of folds.csv."""
        with (self.prepared / "folds.csv").open(newline="") as stream:
            return list(csv.DictReader(stream))

    def records(self) -> set[str]:
        """Ids of the slides that are finished."""
        return {path.stem for path in self.prepared.glob("*/records/*.json")}


@pytest.fixture
def copy(kidney: Any, tmp_path: Path, said: Said) -> Copy:
    return Copy(kidney, tmp_path, said)


def cut(path: Path) -> bytes:
    """Take the last third of a file; gives what it was."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    return whole


def test_a_cut_training_slide_stops_no_other(copy: Copy) -> None:
    path = copy.slide("train", TRAIN)
    whole = cut(path)
    code, text = copy.run("prepare")
    assert code == 1
    assert text.count(f"{TRAIN}.tiff: the TIFF is truncated") == 1
    assert "the other 5 samples are finished and kept" in text
    assert len(copy.records()) == 5
    rows = copy.folds()
    sizes = {row["sample_id"]: (int(row["height"]), int(row["width"])) for row in rows}
    assert len(sizes) == 8
    assert [key for key, size in sizes.items() if 0 in size] == [TRAIN]

    code, text = copy.run("prepare")
    assert (code, f"{TRAIN}.tiff" in text) == (1, True)
    # Folds that were edited in the meantime stay so, a column of one's own included.
    table = copy.prepared / "folds.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([f"{lines[0]},remark", *(f"{line},007" for line in lines[1:])]) + "\n")
    assert copy.run("prepare", "shard=0/2")[0] in (0, 1)
    path.write_bytes(whole)
    code, text = copy.run("prepare")
    assert (code, "1 made, 5 kept" in text) == (0, True)
    original = (copy.world.prepared / "folds.csv").read_text().splitlines()
    assert table.read_text().splitlines() == [f"{original[0]},remark", *(f"{line},007" for line in original[1:])]


def test_a_prepared_slide_that_is_cut_later_is_named(copy: Copy) -> None:
    shutil.copytree(copy.world.prepared, copy.prepared)
    whole = cut(copy.slide("train", TRAIN))
    code, text = copy.run("prepare")
    assert code == 1
    assert f"{TRAIN}.tiff: the TIFF is truncated" in text
    assert len(copy.records()) == 5
    before = (copy.world.prepared / "folds.csv").read_bytes()
    assert (copy.prepared / "folds.csv").read_bytes() == before, "a size that was known is kept"
    copy.slide("train", TRAIN).write_bytes(whole)
    assert "1 made, 5 kept" in copy.run("prepare")[1]


def test_a_cut_test_slide_stops_no_other_and_is_not_submitted(copy: Copy) -> None:
    path = copy.slide("test", TEST)
    shutil.copytree(copy.world.prepared, copy.prepared)
    whole = cut(path)
    code, text = copy.run("prepare")
    assert code == 0, "the store holds training slides only"
    assert f"note: {TEST} cannot be predicted like this: {path}: the TIFF is truncated" in text
    assert "0 made" in text

    code, text = copy.run("predict", "name=both")
    assert code == 1
    assert f"{TEST}.tiff: the TIFF is truncated" in text
    place = copy.root / "submissions" / copy.world.competition / "both"
    (made,) = sorted((place / "predictions").glob("*.tif"))
    assert made.read_bytes() == (copy.world.submission / "predictions" / made.name).read_bytes()

    code, text = copy.run("submit", "name=both")
    assert (code, f"1 of 2 samples have no prediction ({TEST})" in text) == (1, True)
    assert not (place / "submission.csv").exists()

    code, text = copy.run("predict", "name=both")
    assert (code, f"{TEST}.tiff: the TIFF is truncated" in text) == (1, True), "only the cut one is left to do"

    path.write_bytes(whole)
    code, text = copy.run("predict", "name=both")
    assert (code, "1 predicted, 1 kept" in text) == (0, True)
    assert copy.run("submit", "name=both")[0] == 0
    assert (place / "submission.csv").read_bytes() == (copy.world.submission / "submission.csv").read_bytes()

    cut(path)
    code, text = copy.run("submit", "name=both")
    assert (code, f"{path}: cannot be read, so the size of its mask is not known" in text) == (1, True)
    (copy.prepared / "folds.csv").unlink()
    assert copy.run("prepare")[0] == 0
    assert copy.run("validate", "name=both")[0] == 0, "folds.csv has no size of it, and the rest is checked"
    path.write_bytes(whole)
    assert copy.run("validate", "name=both")[0] == 0


def test_a_shard_is_planned_alone_and_what_is_made_anew_is_planned(copy: Copy) -> None:
    def disk(*more: str) -> float:
        text = copy.run("prepare", *more)[1]
        (line,) = [line for line in text.splitlines() if line.startswith("prepare: memory about")]
        value, unit = line.split("disk about ")[1].split()[:2]
        return float(value) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]

    first = disk("shard=0/3")
    second = disk()
    assert 0 < first < second, "a third, and then the two others"
    assert disk() == 0
    assert disk("prepare.force=true") == pytest.approx(first + second, rel=0.02)
    assert disk("prepare.force=true", "shard=0/3") == pytest.approx(first, rel=0.02)


def test_polygons_that_differ_from_the_runs_are_a_note(copy: Copy) -> None:
    path = copy.slide("train", TRAIN).with_suffix(".json")
    features = json.loads(path.read_text())
    path.write_text(json.dumps(features[1:]))
    code, text = copy.run("prepare")
    assert code == 0
    (note,) = [line for line in text.splitlines() if line.startswith("note: ")]
    assert note.startswith(f"note: {TRAIN}: the polygons of {path} and its runs in train.csv have a Dice of 0.9")
    assert "note: " not in copy.run("prepare")[1], "it was said when the slide was made"
