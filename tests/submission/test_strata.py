"""Settings of strata from evaluate to submit: kept where they are better, and used for the images of their stratum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from histofold import instances, metrics
from histofold.competitions import images
from histofold.errors import DataError
from histofold.files import read_json, write_json
from histofold.inference.bandfile import BandFile
from histofold.inference.ensemble import Ensemble


@pytest.fixture(scope="module")
def world(draw: Callable[..., Any]) -> Any:
    return draw(20)


def _decoded(settings: dict[str, Any], path: Any) -> NDArray[np.int32]:
    options = {key: value for key, value in settings.items() if key != "name"}
    with BandFile(path) as file:
        return instances.build(settings["name"], **options)(file.read())


def test_a_stratum_is_submitted_with_its_own_setting(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run("evaluate", "runs=[run]", "evaluate.per_stratum=never") == 0
    one = Ensemble.read(world.oof / "ensembles" / "one.json")
    assert not one.strata
    assert world.run("evaluate", "runs=[run]") == 0
    said = capsys.readouterr().out
    assert "a setting for each of 2 strata: +" in said
    assert "where the other folds want it, kept" in said
    own = Ensemble.read(world.oof / "ensembles" / "one.json")
    assert set(own.strata) == {"dark", "light"}
    assert own.strata["dark"]["threshold"] > own.strata["light"]["threshold"]
    # With two folds no third one is left to say whether the other wants it: what is reported stays that of one for all.
    assert own.score["cross_fitted"] == one.score["cross_fitted"]
    assert own.score["optimistic"] > one.score["optimistic"] + 0.02
    assert world.run("submit") == 0
    for sample_id, stratum in (("dark20", "dark"), ("light21", "light")):
        path = world.submission / "predictions" / f"{sample_id}.tif"
        written = images.integers(world.submission / "labels" / f"{sample_id}.tif")
        other = {"dark": "light", "light": "dark"}[stratum]
        assert np.array_equal(written, _decoded(own.strata[stratum], path))
        assert not np.array_equal(written, _decoded(own.strata[other], path))
        assert metrics.dsb(world.truth(sample_id), written) > 0.9


def test_the_ensembles_file_keeps_strata_and_reads_without_them(world: Any) -> None:
    assert world.run("evaluate", "runs=[run]", "evaluate.per_stratum=always") == 0
    path = world.oof / "ensembles" / "one.json"
    ensemble = Ensemble.read(path)
    assert ensemble.decoder("dark") == ensemble.strata["dark"]
    assert ensemble.decoder("unseen") == ensemble.decoder() == ensemble.instances
    values = read_json(path)
    del values["strata"]
    older = path.with_name("older.json")
    write_json(older, values)
    assert Ensemble.read(older).strata == {}
    del values["bands"]
    write_json(older, values)
    with pytest.raises(DataError, match="bands"):
        Ensemble.read(older)
    older.unlink()


def test_what_is_no_choice_is_refused(world: Any) -> None:
    assert world.run("evaluate", "runs=[run]", "evaluate.per_stratum=sometimes") == 2
