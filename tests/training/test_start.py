"""Which weights have seen what a fold holds out."""

from __future__ import annotations

import pandas as pd
import pytest

from histofold.training.start import leaked, names, samples_seen

ROWS = [
    ("a1", "train", "A", 0),
    ("a2", "train", "A", 0),
    ("b1", "train", "B", 1),
    ("b2", "test", "B", -1),  # a test image of a group that is trained on: DSB's derived groups have such
    ("c1", "train", "C", 1),
    ("d1", "train", "D", -1),  # left out
    ("d2", "train", "A", -1),  # left out, of a group that is held out
    ("t1", "testA", "T", -1),
]


@pytest.fixture
def table() -> pd.DataFrame:
    frame = pd.DataFrame(ROWS, columns=["sample_id", "split", "group", "fold"])
    return frame.assign(height=64, width=48)


def seen(table: pd.DataFrame, *ids: str) -> list[str]:
    return names(table[table["sample_id"].isin(ids)]).tolist()


def test_the_same_fold_of_a_run_is_always_fine(table: pd.DataFrame) -> None:
    cv = table[(table["split"] == "train") & (table["fold"] >= 0)]
    for fold in (0, 1):
        assert leaked(table, fold, samples_seen(cv, fold, None)).empty
    assert samples_seen(cv, 0, None) == ["b1 64x48", "c1 64x48"]


@pytest.mark.parametrize(
    ("ids", "wrong"),
    [
        (("a1",), ["a1", "a2"]),  # held out, and what shares its group
        (("d2",), ["a1", "a2"]),  # not held out itself, but of that group
        (("d1",), []),  # neither held out nor of such a group
        (("b2",), ["b2"]),  # a test image
        (("t1",), ["t1"]),  # a test image of a split with a name of its own
    ],
)
def test_what_is_scored_and_its_groups_may_not_be_seen(
    table: pd.DataFrame, ids: tuple[str, ...], wrong: list[str]
) -> None:
    assert leaked(table, 0, seen(table, *ids)).sample_id.tolist() == wrong


def test_an_id_of_another_size_is_another_image(table: pd.DataFrame) -> None:
    assert leaked(table, 0, ["a1 64x64", "a1 128x48"]).empty
