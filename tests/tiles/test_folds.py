"""folds.csv: groups never split, strata spread, the same on every machine, and edits that are checked."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histofold import competitions
from histofold.cli import main
from histofold.competitions.base import UNREADABLE, Sample
from histofold.config import CompetitionConfig
from histofold.errors import ConfigError, DataError
from histofold.tiles import folds
from histofold.tiles.run import update


def sample(number: int, group: int | str, stratum: str = "s", split: str = "train") -> Sample:
    return Sample(f"{number:05d}", split, 10, 20, str(group), stratum)


@pytest.fixture
def samples() -> list[Sample]:
    """Forty training samples in twenty groups of two strata, and samples of other splits."""
    train = [sample(n, n // 2, "dark" if n < 30 else "pink") for n in range(40)]
    return [*train, sample(90, 3, "dark", "test"), sample(91, "x", "dark", "testA")]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abc")), min_size=12, max_size=60),
    st.integers(2, 5),
    st.integers(0, 3),
)
def test_groups_are_whole_and_every_fold_is_used(pairs: list[tuple[int, str]], n_folds: int, seed: int) -> None:
    # A group of its own for each fold, so that there are always enough.
    extra = [(100 + n, "a") for n in range(n_folds)]
    made = folds.make([sample(n, *pair) for n, pair in enumerate([*pairs, *extra])], n_folds, seed)
    assert len(made.drop_duplicates(["group", "fold"])) == made.group.nunique()
    assert set(made.fold) == set(range(n_folds))
    assert made.sample_id.is_monotonic_increasing


def test_strata_are_spread(samples: list[Sample]) -> None:
    made = folds.make(samples, 5, 0)
    sizes = made[made.split == "train"].groupby(["stratum", "fold"]).size()
    assert sizes["dark"].tolist() == [6] * 5
    assert sizes["pink"].tolist() == [2] * 5


def test_other_splits_have_no_fold(samples: list[Sample]) -> None:
    made = folds.make(samples, 2, 0).set_index("sample_id")
    assert made.loc["00090", "fold"] == -1  # though its group is in training
    assert made.loc["00091", ["split", "fold"]].tolist() == ["testA", -1]


def test_seed_and_order(samples: list[Sample]) -> None:
    assert folds.make(samples, 5, 0).equals(folds.make(samples[::-1], 5, 0))
    assert not folds.make(samples, 5, 0).equals(folds.make(samples, 5, 1))


def test_rare_strata_are_merged() -> None:
    train = [sample(n, n, "dark") for n in range(20)]
    train += [sample(100 + n, 100 + n, f"odd{n % 3}") for n in range(6)]
    merged = folds.merged_strata(train, 5)
    assert set(merged) == {"dark", "rare"}
    made = folds.make(train, 5, 0)
    per_fold = made[made.stratum.str.startswith("odd")].groupby("fold").size()
    assert len(per_fold) == 5
    assert set(made.stratum) == {"dark", "odd0", "odd1", "odd2"}


def test_too_few_rare_groups_join_the_largest_stratum() -> None:
    train = [sample(n, n, "dark") for n in range(20)] + [sample(50, 50, "odd"), sample(51, 50, "odd")]
    assert set(folds.merged_strata(train, 5)) == {"dark"}
    assert set(folds.merged_strata(train[-2:], 5)) == {"rare"}


@pytest.mark.parametrize(("n_folds", "message"), [(21, "only 20 groups.*prepare.n_folds=20"), (1, "at least 2")])
def test_impossible_numbers(samples: list[Sample], n_folds: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        folds.make(samples, n_folds, 0)


def test_duplicate_samples(samples: list[Sample]) -> None:
    with pytest.raises(DataError, match="'00000' is there twice"):
        folds.make([*samples, samples[0]], 2, 0)


@pytest.fixture
def written(samples: list[Sample], tmp_path: Path) -> Path:
    path = tmp_path / "folds.csv"
    folds.write(path, folds.make(samples, 5, 0))
    return path


def edit(path: Path, **changes: object) -> None:
    """Change cells, given as `_00003_fold=2`."""
    table = pd.read_csv(path, dtype=str)
    for key, value in changes.items():
        _, sample_id, column = key.split("_", 2)
        table.loc[table.sample_id == sample_id, column] = str(value)
    table.to_csv(path, index=False)


def test_round_trip_keeps_texts(written: Path, samples: list[Sample]) -> None:
    assert folds.read(written, samples).equals(folds.make(samples, 5, 0))
    assert written.read_text().splitlines()[0] == "sample_id,split,height,width,group,stratum,fold"
    assert folds.read(written).sample_id[0] == "00000"  # an id, not a number


def test_an_edit_that_moves_a_whole_group(written: Path, samples: list[Sample]) -> None:
    edit(written, _00000_fold=3, _00001_fold=3)
    assert folds.read(written, samples).fold[:2].tolist() == [3, 3]


def test_a_sample_may_be_left_out(written: Path, samples: list[Sample]) -> None:
    edit(written, _00000_fold=-1)
    table = folds.read(written, samples)
    assert table.fold[0] == -1
    assert "00000" not in set(folds.in_cv(table).sample_id)
    assert set(folds.in_cv(table).split) == {"train"}


def test_an_edit_that_splits_a_group(written: Path, samples: list[Sample]) -> None:
    was = folds.read(written).fold[1]
    edit(written, _00000_fold=(was + 1) % 5)
    with pytest.raises(DataError, match=rf"group '0' is split over folds \(00000 in {(was + 1) % 5}, 00001 in {was}\)"):
        folds.read(written, samples)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_00002_fold": "two"}, "line 4: fold is 'two', expected a whole number"),
        ({"_00002_fold": "1.5"}, "line 4: fold is '1.5', expected a whole number"),
        ({"_00002_fold": -2}, "'00002' has fold -2"),
        ({"_00090_fold": 1}, "'00090' has fold 1; expected -1, because its split is not train"),
        ({"_00002_fold": 9, "_00003_fold": 9}, "folds 0, 1, 2, 3, 4, 9; expected .* without a gap"),
        ({"_00002_sample_id": "new"}, "'new' is not in the data"),
        ({"_00002_sample_id": "00003"}, "line 5: '00003' is there twice"),
    ],
)
def test_bad_edits(written: Path, samples: list[Sample], changes: dict[str, object], message: str) -> None:
    edit(written, **changes)
    with pytest.raises(DataError, match=message):
        folds.read(written, samples)


def test_missing_rows_columns_and_files(written: Path, samples: list[Sample]) -> None:
    table = pd.read_csv(written, dtype=str)
    table[table.sample_id != "00004"].to_csv(written, index=False)
    with pytest.raises(DataError, match="'00004' is in the data but has no row"):
        folds.read(written, samples)
    table.drop(columns="group").to_csv(written, index=False)
    with pytest.raises(DataError, match="no column 'group'; expected sample_id, split"):
        folds.read(written, samples)
    table.to_csv(written, index=False, sep=";")
    with pytest.raises(DataError, match=r"separated by semicolons \('sample_id;split;.*expected commas"):
        folds.read(written, samples)
    written.write_text("")
    with pytest.raises(DataError, match="not readable as CSV"):
        folds.read(written, samples)
    written.unlink()
    with pytest.raises(DataError, match=r"no such file; make it with `\./run\.sh prepare`"):
        folds.read(written, samples)


def test_samples_outside_training_come_and_go_without_losing_edits(written: Path, samples: list[Sample]) -> None:
    table = pd.read_csv(written, dtype=str).assign(remark="mine, really")
    table = pd.concat([table[table.columns[::-1]].iloc[5:], table.iloc[:5]])  # another order of rows and columns
    table.to_csv(written, index=False)
    others = [one for one in samples if one.sample_id != "00090"] + [sample(95, "y", "pink", "test")]
    before = written.read_text().splitlines()
    said = update(written, others)
    assert said == "\nnote: rows of samples that are not trained on: 1 added, 1 dropped"
    added = dict(zip(before[0].split(","), written.read_text().splitlines()[-1].split(","), strict=True))
    assert added == {
        **{"sample_id": "00095", "split": "test", "height": "10", "width": "20", "group": "y", "stratum": "pink"},
        **{"fold": "-1", "remark": ""},
    }
    assert written.read_text().splitlines()[:-1] == [line for line in before if "00090" not in line]
    assert len(folds.read(written, others)) == len(samples)
    assert update(written, others) == "", "once is enough"


def test_folds_with_accents_of_a_mac_go_on_with_the_samples(written: Path, samples: list[Sample]) -> None:
    named = [replace(one, sample_id=f"M\u00fcller {one.sample_id}") for one in samples]
    table = pd.read_csv(written, dtype=str)
    table.assign(sample_id="Mu\u0308ller " + table["sample_id"]).to_csv(written, index=False)
    assert update(written, named) == ""
    assert len(folds.read(written, named)) == len(samples)


def test_training_samples_never_come_or_go_by_themselves(written: Path, samples: list[Sample]) -> None:
    before = written.read_bytes()
    outside = sample(95, "y", "pink", "test")
    with pytest.raises(DataError, match="'00000' is not in the data; delete its row"):
        update(written, [*samples[1:], outside])
    with pytest.raises(DataError, match="'00050' is in the data but has no row; add it"):
        update(written, [*samples, sample(50, "y"), outside])
    with pytest.raises(DataError, match="'00095' is there twice"):
        update(written, [*samples, outside, replace(outside, split="testA")])
    assert written.read_bytes() == before


@pytest.mark.parametrize(("name", "more"), [("folds.csv", ""), ("folds-two.csv", " folds=two")])
def test_rows_that_prepare_adds_or_drops_are_left_to_it(
    samples: list[Sample], tmp_path: Path, name: str, more: str
) -> None:
    path = tmp_path / "dsb2018" / name
    path.parent.mkdir()
    folds.write(path, folds.make(samples, 5, 0))
    how = rf"run `\./run\.sh prepare competition=dsb2018{more}`"
    with pytest.raises(DataError, match=rf"'00095', which is not trained on, is in the data but has no row.*{how}"):
        folds.read(path, [*samples, sample(95, "y", "pink", "test")])
    with pytest.raises(DataError, match=rf"'00091', which is not trained on, is not in the data.*{how}"):
        folds.read(path, samples[:-1])


def test_prepare_keeps_edited_folds_when_a_test_image_comes(
    discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tests = tmp_path / "tests" / "images"
    tests.mkdir(parents=True)
    shutil.copy(discs / "custom" / "images" / "0.png", tests / "old.png")
    places = [f"paths.input={discs}", f"paths.prepared={tmp_path}", f"competition.options.test={tests.parent}"]
    command = ["competition=folders", "prepare.n_folds=2", "prepare.workers=1", *places]
    assert main("prepare", command) == 0
    table = tmp_path / "custom" / "folds.csv"
    edited = table.read_text().replace("\n", ",\n").replace(",\n", ",remark\n", 1)
    table.write_text(edited)
    shutil.copy(tests / "old.png", tests / "new.png")
    capsys.readouterr()
    assert main("prepare", command) == 0
    assert "note: rows of samples that are not trained on: 1 added, 0 dropped" in capsys.readouterr().out
    assert table.read_text().startswith(edited)
    assert [line.split(",")[:2] for line in table.read_text()[len(edited) :].splitlines()] == [["new", "test"]]


def test_one_group_is_no_cross_validation_and_the_splits_are_named() -> None:
    alone = [sample(1, "p"), sample(2, "p"), sample(3, "q", split="validation"), sample(4, "r", split="testA")]
    with pytest.raises(DataError, match=r"images of 1 groups.*splits found are train 2, testA 1, validation 1"):
        folds.make(alone, 2, 0)


def unread(number: int) -> Sample:
    return Sample(f"{number:05d}", "train", 0, 0, f"{number:05d}", UNREADABLE)


def test_an_unreadable_image_is_left_out_until_it_can_be_read(samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "folds.csv"
    broken = [unread(2) if one.sample_id == "00002" else one for one in samples]
    made = folds.make(broken, 5, 0)
    assert folds.left_out(made) == ["00002"]
    assert made.set_index("sample_id").loc["00002", "fold"] == -1
    assert "00002" not in set(folds.in_cv(made).sample_id)
    folds.write(path, made)
    before = made.set_index("sample_id")
    was = path.stat()
    update(path, broken)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (was.st_ino, was.st_mtime_ns), "nothing to write"
    update(path, samples)
    after = folds.read(path, samples).set_index("sample_id")
    assert after.loc["00002"].tolist() == ["train", 10, 20, "1", "dark", before.loc["00003", "fold"]]
    assert after.drop("00002").equals(before.drop("00002")), "nothing else changes"


def test_a_mended_image_of_a_new_group_goes_to_the_smallest_fold(samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "folds.csv"
    folds.write(path, folds.make([*samples, unread(70)], 5, 0))
    edit(path, _00000_fold=-1, _00001_fold=-1)
    smallest = folds.in_cv(folds.read(path)).groupby("fold").size().idxmin()
    update(path, [*samples, sample(70, "new", "pink")])
    found = folds.read(path).set_index("sample_id").loc["00070"]
    assert found.tolist() == ["train", 10, 20, "new", "pink", smallest]


def test_a_mended_image_that_joins_two_groups(samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "folds.csv"
    folds.write(path, folds.make([*samples, unread(70)], 2, 0))
    table = folds.read(path).set_index("sample_id")
    one, *others = (f"{2 * n:05d}" for n in range(20))
    same = next(key for key in others if table.fold[key] == table.fold[one])
    apart = next(key for key in others if table.fold[key] != table.fold[one])

    def joined(other: str) -> list[Sample]:
        groups = {table.group[one], table.group[other]}
        fresh = [replace(each, group="0") if each.group in groups else each for each in samples]
        return [*fresh, sample(70, "0", "pink")]

    before = path.read_bytes()
    with pytest.raises(DataError, match=r"'00070' can be read now.* in fold 0 and .* in fold 1; prepare\.force=true"):
        update(path, joined(apart))
    assert path.read_bytes() == before
    update(path, joined(same))
    after = folds.read(path).set_index("sample_id")
    assert after.loc["00070", "fold"] == table.fold[one]
    assert after.group["00070"] == after.group[one] == after.group[same]


def test_a_seed_that_kept_folds_do_not_come_from_is_told(
    discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [f"paths.input={discs}", f"paths.prepared={tmp_path}"]
    command = ["competition=folders", "prepare.n_folds=2", "prepare.workers=1", *places]

    def said(*more: str) -> str:
        assert main("prepare", [*command, *more]) == 0
        return capsys.readouterr().out

    table, noted = tmp_path / "custom" / "folds.csv", "was not applied; folds=NAME makes another set with it"
    said("prepare.fold_seed=3")
    kept = table.read_bytes()
    other = next(seed for seed in range(9) if folds.parts(drawn(discs, seed)) != folds.parts(folds.read(table)))
    assert noted not in said("prepare.fold_seed=3"), "the same command again"
    assert noted not in said(), "the default is nothing that was asked for"
    assert f"note: prepare.fold_seed={other} {noted}" in said(f"prepare.fold_seed={other}")
    assert table.read_bytes() == kept


def drawn(discs: Path, seed: int) -> pd.DataFrame:
    competition = competitions.open(CompetitionConfig("custom", "folders"), discs)
    return folds.make(competition.samples(), 2, seed)
