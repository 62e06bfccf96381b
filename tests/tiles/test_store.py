"""Recipes and opening of a store."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from histofold import given
from histofold.compose import compose, load
from histofold.errors import ConfigError, DataError
from histofold.tiles.store import COLUMNS, VERSION, Recipe, Store
from histofold.workspace import Workspace


def test_a_recipe_is_named_by_what_it_is() -> None:
    assert Recipe("tiles", 256, 4.0).name == "t256_s4"
    assert Recipe("tiles", 1024, 1.5, ("grid", "shifted")).name == "t1024_s1.5"
    assert Recipe().name == "whole"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "parts"}, "prepare.kind=parts"),
        ({"kind": "tiles", "grids": ("grid", "shiftet")}, "prepare.grids="),
        ({"kind": "tiles", "grids": ()}, "prepare.grids="),
        ({"kind": "tiles", "tile": 8}, "prepare.tile=8"),
        ({"scale": 0.5}, "scale=0.5"),
        ({"min_tissue": 1.5}, "prepare.min_tissue=1.5"),
    ],
)
def test_an_impossible_recipe_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe(**values)


@pytest.mark.parametrize(
    "recipe", [Recipe(), Recipe(scale=2.0), Recipe("tiles", 512, 3.0, ("shifted", "centred"), 0.2)]
)
def test_a_recipe_survives_its_file(recipe: Recipe) -> None:
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_the_order_of_grids_does_not_matter_for_the_file() -> None:
    first, second = (Recipe("tiles", 64, 1.0, grids) for grids in (("grid", "centred"), ("centred", "grid")))
    assert first.to_dict() == second.to_dict()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pixels").mkdir()
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "pixels" / "one.npy", np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    np.save(tmp_path / "masks" / "one.npy", np.eye(4, dtype=np.uint16))
    pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()}).to_parquet(tmp_path / "tiles.parquet")
    content = {"version": VERSION, "settings": Recipe().to_dict(), "fingerprint": "abc", "samples": 1}
    (tmp_path / "recipe.json").write_text(json.dumps(content))
    return tmp_path


def test_a_store_maps_its_arrays_and_pickles_without_them(folder: Path) -> None:
    store = Store.open(folder)
    assert isinstance(store.pixels("one"), np.memmap)
    assert store.pixels("one") is store.pixels("one")
    assert store.masks("one").dtype == np.uint16
    again = pickle.loads(pickle.dumps(store))
    assert again._open == {}
    np.testing.assert_array_equal(again.masks("one"), np.eye(4))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "tiles.parquet").unlink(), "does not exist"),
        (lambda folder: ((folder / "tiles.parquet").unlink(), (folder / "records").mkdir()), "is not finished"),
        (lambda folder: (folder / "recipe.json").write_text("{"), "not readable as JSON"),
        (lambda folder: (folder / "recipe.json").write_text('{"version": 0}'), "not a store of version"),
    ],
)
def test_a_store_that_is_not_whole_is_named(folder: Path, damage: Any, message: str) -> None:
    damage(folder)
    with pytest.raises(DataError, match=message):
        Store.open(folder)


def test_an_array_that_is_missing_or_cut_is_named(folder: Path) -> None:
    store = Store.open(folder)
    with pytest.raises(DataError, match=r"two.npy: sample two is not in this store"):
        store.pixels("two")
    path = folder / "pixels" / "one.npy"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"one.npy: not a whole array"):
        store.pixels("one")


def test_what_to_do_about_a_store_can_be_pasted(
    folder: Path, tmp_path: Path, advised: Callable[[str, str], list[str]]
) -> None:
    """For the competition that the folder is called after, and with both settings where they differ."""
    place = tmp_path / "prepared" / "dsb2018" / "whole"
    shutil.copytree(folder, place, ignore=shutil.ignore_patterns("prepared"))
    with pytest.raises(DataError, match=r"run `\./run\.sh prepare competition=dsb2018` again"):
        Store.open(place).pixels("two")
    (place / "recipe.json").write_text('{"version": 0}')
    with pytest.raises(DataError, match=r"run `\./run\.sh prepare competition=dsb2018 prepare\.force=true`"):
        Store.open(place)
    typed = ["competition=hubmap_kidney", f"paths.prepared={tmp_path / 'prepared'}", "prepare.grids=[grid,shifted]"]
    workspace = Workspace(load(compose(typed)))
    shutil.copytree(place, workspace.store_path)
    made = {**workspace.recipe.to_dict(), "grids": ["grid"]}
    content = {"version": VERSION, "settings": made, "fingerprint": "abc"}
    (workspace.store_path / "recipe.json").write_text(json.dumps(content))
    with given.command([*typed, "fold=1"]), pytest.raises(DataError) as found:
        workspace.store()
    assert "` to" in str(found.value)
    assert advised(str(found.value), "prepare") == typed
    assert str(found.value).endswith("or give prepare.grids=[grid] to this command, too")
