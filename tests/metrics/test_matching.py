"""The matcher: its contingency table against a loop over pairs, and the assignment against SciPy's dense one."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.cluster import contingency_matrix

from histofold import metrics
from histofold.errors import DataError
from histofold.metrics.assignment import assign

Labels = NDArray[np.int32]
SMALL = arrays.arrays(np.int32, (6, 7), elements=st.integers(0, 5))


def _dense(table: metrics.Contingency) -> NDArray[np.int64]:
    out = np.zeros((table.n_truth, table.n_prediction), np.int64)
    out[table.rows, table.columns] = table.overlaps
    return out


@settings(max_examples=150, deadline=None)
@given(SMALL, SMALL)
def test_contingency_agrees_with_scikit_learn(truth: Labels, prediction: Labels) -> None:
    table = metrics.contingency(truth, prediction)
    full = contingency_matrix(truth.ravel(), prediction.ravel())
    background = int(0 in truth), int(0 in prediction)
    assert np.array_equal(_dense(table), full[background[0] :, background[1] :])
    assert np.array_equal(table.truth_areas, full.sum(axis=1)[background[0] :])
    assert np.array_equal(table.prediction_areas, full.sum(axis=0)[background[1] :])
    assert set(table.truth_labels) == set(np.unique(truth)) - {0}
    assert set(table.prediction_labels) == set(np.unique(prediction)) - {0}


def test_contingency_by_hand() -> None:
    truth = np.array([[7, 7, 0, 2], [7, 0, 0, 2]])
    prediction = np.array([[1, 1, 1, 9], [0, 0, 4, 0]])
    table = metrics.contingency(truth, prediction)
    assert table.truth_labels.tolist() == [2, 7]
    assert table.truth_areas.tolist() == [2, 3]
    assert table.prediction_labels.tolist() == [1, 4, 9]
    assert table.prediction_areas.tolist() == [3, 1, 1]
    assert list(zip(table.rows, table.columns, table.overlaps, strict=True)) == [(0, 2, 1), (1, 0, 2)]
    assert table.iou.tolist() == [1 / 2, 2 / 4]
    assert table.dice.tolist() == [2 / 3, 4 / 6]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int64, np.int16])
def test_every_integer_type_gives_the_same_table(dtype: Any, pairs: list[tuple[Labels, Labels]]) -> None:
    truth, prediction = pairs[7]
    expected = metrics.instance_scores(truth, prediction)
    assert metrics.instance_scores(truth.astype(dtype), prediction.astype(dtype)) == expected
    assert metrics.instance_scores(np.asfortranarray(truth), prediction[:, ::1]) == expected


def test_more_labels_than_uint16_and_huge_numbers() -> None:
    labels = np.arange(1, 300 * 300 + 1).reshape(300, 300)
    table = metrics.contingency(labels, labels[::-1, ::-1])
    assert table.n_truth == table.n_prediction == len(table.rows) == 90_000
    assert metrics.dsb(labels, labels) == 1
    huge = np.where(labels % 2 == 0, 2**31 - 1, labels)
    assert metrics.contingency(huge, labels).n_truth == 45_001


def test_boolean_masks_are_one_object() -> None:
    mask = np.eye(4, dtype=bool)
    assert metrics.contingency(mask, mask).truth_areas.tolist() == [4]


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"\(2, 3\).*\(3, 2\)"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), "integers in truth, found float64"),
        (np.zeros((2, 2), int), np.full((2, 2), -3), "prediction, found -3"),
        (np.full((2, 2), 2**31), np.zeros((2, 2), int), "2147483648"),
    ],
)
def test_what_does_not_fit_is_refused(truth: Any, prediction: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        metrics.contingency(truth, prediction)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.2, 0.5, 1.0]))
def test_assignment_is_as_good_as_the_dense_one(seed: int, n: int, m: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    # Few distinct weights: ties are where a shortcut would go wrong.
    weight = rng.integers(1, 5, (n, m)) / 4 * (rng.random((n, m)) < share)
    rows, columns = np.nonzero(weight)
    chosen = assign(rows, columns, weight[rows, columns])
    assert len(set(rows[chosen])) == len(set(columns[chosen])) == len(chosen)
    best = weight[linear_sum_assignment(-weight)].sum()
    assert weight[rows[chosen], columns[chosen]].sum() == pytest.approx(best)


def test_assignment_of_a_large_tangle_is_exact() -> None:
    rng = np.random.default_rng(0)
    weight = rng.random((300, 280)) * (rng.random((300, 280)) < 0.03)
    rows, columns = np.nonzero(weight)
    chosen = assign(rows, columns, weight[rows, columns])
    assert weight[rows[chosen], columns[chosen]].sum() == pytest.approx(weight[linear_sum_assignment(-weight)].sum())
