"""Trees as numbers: they say what scikit-learn's say, before and after JSON, and a damaged table is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor

from histofold.errors import DataError
from histofold.instances.trees import Trees


@pytest.fixture(scope="module")
def learned() -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    rows = random.normal(size=(600, 5))
    rows[random.random(rows.shape) < 0.1] = np.nan
    rows[:, 4] = np.where(random.random(600) < 0.5, np.nan, 1.0)
    target = np.nan_to_num(rows[:, 0]) ** 2 + np.isnan(rows[:, 1]) + 3 * np.isnan(rows[:, 4])
    model = HistGradientBoostingRegressor(max_iter=40, max_leaf_nodes=9, early_stopping=False, random_state=0)
    return model.fit(rows, target), rows


def test_they_say_what_the_regressor_says(learned: tuple[Any, Any]) -> None:
    model, rows = learned
    trees = Trees.of(model)
    random = np.random.default_rng(1)
    other = np.where(random.random((300, 5)) < 0.2, np.nan, random.normal(size=(300, 5)) * 3)
    for part in (rows, other):
        assert trees(part) == pytest.approx(model.predict(part), abs=1e-12)
    assert np.std(trees(rows)) > 0.5
    again = Trees.from_dict(json.loads(json.dumps(trees.to_dict(), allow_nan=False)))
    assert np.array_equal(again(other), trees(other))
    assert trees(np.zeros((0, 5))).shape == (0,)


@pytest.mark.parametrize("harm", ["features", "loop", "length", "key", "text"])
def test_a_damaged_table_is_refused(learned: tuple[Any, Any], harm: str) -> None:
    values = Trees.of(learned[0]).to_dict()
    inner = next(at for at, feature in enumerate(values["feature"]) if feature >= 0)
    if harm == "features":
        values["feature"][inner] = 5
    elif harm == "loop":
        values["left"][inner] = inner
    elif harm == "length":
        values["value"].pop()
    elif harm == "key":
        del values["right"]
    else:
        values["threshold"] = "import os"
    with pytest.raises(DataError, match="second level"):
        Trees.from_dict(values)


def test_other_features_than_learned_are_refused(learned: tuple[Any, Any]) -> None:
    with pytest.raises(DataError, match="5 features, found 4"):
        Trees.of(learned[0])(np.zeros((2, 4)))
