"""Settings of strata from evaluate to submit: kept where they are better, and used for the images of their stratum."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from histofold import instances, metrics
from histofold.competitions import fields, images
from histofold.config import SubmitConfig
from histofold.errors import DataError
from histofold.files import read_json, write_json
from histofold.inference.bandfile import BandFile
from histofold.inference.ensemble import Ensemble
from histofold.submission import own


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


PLAIN = SubmitConfig(send=False, message=None, min_area=0, max_hole=0)


@pytest.fixture
def mine(world: Any, tmp_path: Path) -> tuple[list[Path], Path]:
    """A dark image and a coloured one, predicted alike; gives the images and the place of results."""
    place, paths = tmp_path / "results", []
    (place / "predictions").mkdir(parents=True)
    for name, colour in (("night", (20, 20, 20)), ("stained", (200, 120, 220))):
        paths.append(tmp_path / f"{name}.png")
        cv2.imwrite(str(paths[-1]), np.full((48, 48, 3), colour, np.uint8))
        shutil.copyfile(world.submission / "predictions" / "dark20.tif", place / "predictions" / f"{name}.tif")
    return paths, place


def _two_types(world: Any) -> Ensemble:
    """The ensemble with a setting for all and another one for fluorescence."""
    assert world.run("evaluate", "runs=[run]", "evaluate.tune=false") == 0
    ensemble = Ensemble.read(world.oof / "ensembles" / "one.json")
    setting = {"name": "threshold", "threshold": 0.5}
    return replace(ensemble, instances=setting, strata={"fluorescence": {**setting, "threshold": 0.7}})


def test_own_images_take_the_setting_of_the_type_that_they_show(
    world: Any, mine: tuple[list[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ensemble, (paths, place) = _two_types(world), mine
    capsys.readouterr()
    assert own.finish_all(ensemble, paths, place, PLAIN, None, fields.kind_of) == {}
    said = "decoded by the image type that the pixels show: "
    told = f"{said}fluorescence 1 with its own setting, histology 1 with the setting for all\n"
    assert capsys.readouterr().out == told
    found = {path.stem: images.integers(place / "labels" / f"{path.stem}.tif") for path in paths}
    bands = place / "predictions" / "night.tif"
    assert np.array_equal(found["night"], _decoded(ensemble.strata["fluorescence"], bands))
    assert np.array_equal(found["stained"], _decoded(ensemble.instances or {}, bands))
    assert (found["night"] > 0).sum() < (found["stained"] > 0).sum()


def test_own_images_whose_type_nothing_tells_take_the_setting_for_all_and_this_is_said(
    world: Any, mine: tuple[list[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ensemble, (paths, place) = _two_types(world), mine
    kind_of = world.submission_of().workspace.competition.kind_of
    assert kind_of is None, "its table knows its own images only"
    capsys.readouterr()
    assert own.finish_all(ensemble, paths, place, PLAIN, None, kind_of) == {}
    (said,) = capsys.readouterr().out.splitlines()
    assert "one has settings of their own for fluorescence; nothing tells the stratum of your own images" in said
    for path in paths:
        labels = images.integers(place / "labels" / f"{path.stem}.tif")
        assert np.array_equal(labels, _decoded(ensemble.instances or {}, place / "predictions" / f"{path.stem}.tif"))
    own.finish_all(replace(ensemble, strata={}), paths, place, PLAIN, None, kind_of)
    assert capsys.readouterr().out == "", "nothing to say without settings for strata"


def test_derived_types_are_those_of_any_image(world: Any) -> None:
    competition = world.submission_of("competition.options.derive=true").workspace.competition
    assert competition.kind_of is not None
    assert competition.kind_of(np.full((9, 9, 3), 20, np.uint8)) == "fluorescence"
