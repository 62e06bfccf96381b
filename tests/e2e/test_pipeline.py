"""From raw files to a valid submission, on both embedded samples."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from histofold.evaluation import extents
from histofold.files import read_json
from histofold.inference.bandfile import BandFile
from histofold.inference.ensemble import Ensemble
from histofold.submission.geojson import read_geojson

Said = Callable[[], str]


@pytest.fixture(params=["nuclei", "kidney"])
def world(request: pytest.FixtureRequest) -> Any:  # a World of tests/e2e/conftest.py
    return request.getfixturevalue(request.param)


def test_every_file_of_the_contracts_is_there(world: Any) -> None:
    assert list(pd.read_csv(world.prepared / "folds.csv").columns) == [
        "sample_id", "split", "height", "width", "group", "stratum", "fold",
    ]  # fmt: skip
    for run in ("first", "second"):
        for fold in (0, 1):
            folder = world.oof / run / f"fold{fold}"
            for name in ("config.yaml", "metrics.csv", "curves.png", "last.ckpt", "model.ckpt", "scores.csv"):
                assert (folder / name).stat().st_size > 0, name
            assert list((folder / "events").glob("events.*"))
    for name in ("submission.csv", "provenance.json", "scores.csv"):
        assert (world.submission / name).exists(), name


def test_oof_predictions_cover_the_training_set_once_and_at_its_size(world: Any) -> None:
    folds = pd.read_csv(world.prepared / "folds.csv", dtype={"sample_id": str})
    train = folds[folds["split"] == "train"]
    for row in train.itertuples():
        places = list((world.oof / "first").glob(f"fold*/predictions/{row.sample_id}.tif"))
        assert [place.parent.parent.name for place in places] == [f"fold{row.fold}"]
        with BandFile(places[0]) as file:
            assert file.full_size == (row.height, row.width)
            assert "foreground" in [band.name for band in file.bands]


def test_metrics_have_a_row_an_epoch_and_a_learning_rate_that_falls(world: Any) -> None:
    table = pd.read_csv(world.oof / "first" / "fold0" / "metrics.csv")
    assert table["epoch"].tolist() == [1, 2]
    assert table["lr"].is_monotonic_decreasing
    assert np.isfinite(table["loss"]).all()
    assert table["score"].notna().all()
    scores = pd.read_csv(world.oof / "first" / "fold0" / "scores.csv")
    assert table["score"].iloc[-1] == pytest.approx(scores["score"].mean())


def test_a_trained_fold_is_predicted_anew_with_nuclei_magnified(nuclei: Any) -> None:
    first, sized = (nuclei.oof / name for name in ("first", "sized"))
    try:
        for fold in ("fold0", "fold1"):
            (sized / fold).mkdir(parents=True)
            for name in ("config.yaml", "metrics.csv", "model.ckpt"):
                shutil.copyfile(first / fold / name, sized / fold / name)
        assert nuclei.run("train", "run=sized", "predict.size=24", "fold=0") == 0
        assert nuclei.run("evaluate", "runs=[sized]", "folds=[0]", "name=sized") == 0
        assert Ensemble.read(nuclei.oof / "ensembles" / "sized.json").size == 24
        assert (sized / "fold0" / "model.ckpt").read_bytes() == (first / "fold0" / "model.ckpt").read_bytes()
        for path in (sized / "fold0" / "predictions").glob("*.tif"):
            with BandFile(path) as new, BandFile(first / "fold0" / "predictions" / path.name) as old:
                assert new.full_size == old.full_size
                assert new.fingerprint != old.fingerprint
    finally:
        shutil.rmtree(sized)
        for path in (nuclei.oof / "ensembles").glob("**/sized.*"):
            path.unlink()


def test_the_four_members_are_four_networks(world: Any) -> None:
    ensemble = Ensemble.read(world.oof / "ensembles" / "both.json")
    members, weights = ensemble.load_members(world.root / "oof")
    assert len(members) == 4
    assert weights == [0.25] * 4
    flat = [torch.cat([value.flatten() for value in member.network.state_dict().values()]) for member in members]
    for one in range(4):
        for other in range(one):
            assert not torch.equal(flat[one], flat[other])


def test_the_ensembles_numbers_agree_with_its_table(world: Any) -> None:
    ensemble = Ensemble.read(world.oof / "ensembles" / "both.json")
    table = pd.read_csv(world.oof / "ensembles" / "both.csv")
    assert not ensemble.partial
    assert ensemble.score["cross_fitted"] == pytest.approx(table["score"].mean())
    assert ensemble.score["per_fold"]["0"] == pytest.approx(table.loc[table["fold"] == 0, "score"].mean())
    low, high = ensemble.score["interval"]
    assert low <= ensemble.score["cross_fitted"] <= high
    assert ensemble.score["optimistic"] >= ensemble.score["cross_fitted"] - 0.2
    assert (ensemble.threshold is None) != (ensemble.instances is None)


def test_what_oof_predictions_have_is_kept_for_validate(world: Any, said: Said) -> None:
    kept = extents.read(extents.place(world.root / "oof", world.competition, "both"))
    assert kept is not None
    table = pd.read_csv(world.oof / "ensembles" / "both.csv", dtype={"sample_id": str})
    assert [one.sample_id for one in kept] == table["sample_id"].tolist()
    assert [one.pixels for one in kept] == (table["height"] * table["width"]).tolist()
    assert not {"pixels", "area", "instances"} & set(table.columns), "they are no scores"
    if world.competition == "demo_nuclei":
        assert [one.instances for one in kept] == (table["found"] + table["false"]).astype(int).tolist()
    said()
    assert world.run("validate", "name=both") == 0
    text = said()
    # Objects of masks are not counted on OOF.
    assert text.count("in the out-of-fold predictions") + text.count("UNLIKE the out-of-fold predictions") == (
        3 if world.competition == "demo_nuclei" else 2
    )
    assert text.count("the training truth\n") == 3


def test_a_submission_unlike_the_oof_predictions_is_told(world: Any, said: Said) -> None:
    place = extents.place(world.root / "oof", world.competition, "both")
    whole = place.read_bytes()
    extents.write(place, [replace(one, area=one.pixels) for one in extents.read(place) or []])
    try:
        said()
        assert world.run("submit", "name=both") == 0
        assert "look at it before you send it: foreground share of a sample, median" in said()
    finally:
        place.write_bytes(whole)


def test_provenance_names_checkpoints_code_and_input(world: Any) -> None:
    values = read_json(world.submission / "provenance.json")
    assert len(values["ensemble"]["checkpoints"]) == 4
    assert all(len(item["sha256"]) == 64 for item in values["ensemble"]["checkpoints"])
    assert {"version", "torch", "input", "config", "predict", "submit"} <= set(values)


def test_a_second_prepare_does_nothing_and_says_so(world: Any, said: Said) -> None:
    before = {path: path.stat().st_mtime_ns for path in world.prepared.rglob("*") if path.is_file()}
    assert world.run("prepare") == 0
    assert "0 made" in said()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_finished_fold_is_left_alone(world: Any, said: Said) -> None:
    before = (world.oof / "first" / "fold0" / "model.ckpt").stat().st_mtime_ns
    assert world.run("train", "run=first", "fold=0", "seed=0") == 0
    assert "done already" in said()
    assert (world.oof / "first" / "fold0" / "model.ckpt").stat().st_mtime_ns == before


def test_a_finished_fold_keeps_what_it_says_of_its_predictions(world: Any, said: Said) -> None:
    path = world.oof / "first" / "fold0" / "config.yaml"
    before = path.read_text()
    assert world.run("train", "run=first", "fold=0", "seed=0", "predict.tta=dihedral") == 0
    assert "done already, its predictions with predict.tta=none;" in said()
    assert path.read_text() == before


def test_a_run_of_another_configuration_is_refused(world: Any, said: Said) -> None:
    assert world.run("train", "run=first", "fold=0", "seed=0", "optimizer.lr=0.5") == 2
    assert "optimizer.lr=0.001" in said()


def test_a_second_predict_keeps_what_is_there(world: Any, said: Said) -> None:
    assert world.run("predict", "name=both") == 0
    assert "0 predicted" in said()


def test_the_leaderboard_lists_runs_and_ensembles(world: Any, said: Said) -> None:
    assert world.run("evaluate") == 0
    text = said()
    for name in ("first", "second", "both"):
        assert name in text


def test_a_partial_cv_is_called_partial(world: Any, said: Said) -> None:
    assert world.run("evaluate", "runs=[first]", "folds=[0]", "name=part") == 0
    assert "PARTIAL" in said()
    assert Ensemble.read(world.oof / "ensembles" / "part.json").partial
    (world.oof / "ensembles" / "part.json").unlink()


def test_a_missing_oof_prediction_is_refused(world: Any, said: Said) -> None:
    path = next((world.oof / "second" / "fold0" / "predictions").glob("*.tif"))
    away = path.with_suffix(".away")
    path.rename(away)
    try:
        assert world.run("evaluate", "runs=[second]", "folds=all", "name=broken") == 1
        assert path.stem in said()
    finally:
        away.rename(path)


def test_submit_never_fills_a_missing_prediction(world: Any, said: Said) -> None:
    path = next((world.submission / "predictions").glob("*.tif"))
    away = path.with_suffix(".away")
    path.rename(away)
    try:
        assert world.run("submit", "name=both") == 1
        assert path.stem in said()
    finally:
        away.rename(path)


def test_a_changed_checkpoint_is_not_the_one_that_was_scored(world: Any, said: Said) -> None:
    path = world.oof / "first" / "fold0" / "model.ckpt"
    whole = path.read_bytes()
    shutil.copy(world.oof / "second" / "fold0" / "model.ckpt", path)
    try:
        assert world.run("predict", "name=both") == 1
        assert "evaluate again" in said()
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(("override", "word"), [("fold=7", "folds 0, 1"), ("resume=never", "resume=never")])
def test_settings_that_do_not_fit_are_one_line_and_exit_2(world: Any, said: Said, override: str, word: str) -> None:
    more = ["run=first", "fold=0", "seed=0"]
    said()
    assert world.run("train", *[item for item in more if item[:4] != override[:4]], override) in (0, 2)
    if override == "fold=7":
        text = said()
        assert word in text
        assert len(text.strip().splitlines()) == 1


def test_what_is_not_on_kaggle_cannot_be_sent(world: Any, said: Said) -> None:
    assert world.run("submit", "name=both", "submit.send=true") == 2
    assert "no Kaggle competition" in said()


def test_without_an_ensemble_predict_says_what_to_do(world: Any, said: Said) -> None:
    assert world.run("predict", "name=none_such") == 1
    assert "no such ensemble" in said()


def test_no_temporary_file_is_left(world: Any) -> None:
    assert not list(world.root.rglob("*.partial"))


def test_images_of_ones_own(nuclei: Any, tmp_path: Path) -> None:
    import cv2

    folder = tmp_path / "mine"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, shape in (("a.png", (70, 93, 3)), ("b.jpg", (128, 64, 3)), ("c.tif", (65, 66, 3))):
        cv2.imwrite(str(folder / name), random.integers(0, 255, shape, dtype=np.uint8))
    assert nuclei.run("predict", "name=both", f"images={folder}") == 0
    place = nuclei.submission / "images" / "mine"
    for stem, shape in (("a", (70, 93)), ("b", (128, 64)), ("c", (65, 66))):
        assert cv2.imread(str(place / "labels" / f"{stem}.tif"), cv2.IMREAD_UNCHANGED).shape == shape
        assert cv2.imread(str(place / "overlays" / f"{stem}.png")).shape == (*shape, 3)
        drawn = read_geojson(place / "geojson" / f"{stem}.geojson", shape)
        assert np.array_equal(drawn, cv2.imread(str(place / "labels" / f"{stem}.tif"), cv2.IMREAD_UNCHANGED))


def test_nuclei_have_a_row_each_or_one_empty_row(nuclei: Any) -> None:
    table = pd.read_csv(nuclei.submission / "submission.csv", keep_default_na=False)
    assert list(table.columns) == ["ImageId", "EncodedPixels"]
    for _, rows in table.groupby("ImageId"):
        assert len(rows) == 1 or (rows["EncodedPixels"] != "").all()


def test_slides_have_exactly_one_row(kidney: Any) -> None:
    table = pd.read_csv(kidney.submission / "submission.csv", keep_default_na=False)
    assert list(table.columns) == ["id", "predicted"]
    assert table["id"].is_unique


def test_the_search_for_weights_runs_and_says_what_members_add(world: Any, said: Said) -> None:
    assert world.run("evaluate", "runs=[first,second]", "folds=all", "name=mixed", "evaluate.search=best") == 0
    text = said()
    for word in ("equal", "greedy", "optimise", "adds", "cross-fitted"):
        assert word in text
    ensemble = Ensemble.read(world.oof / "ensembles" / "mixed.json")
    assert sum(member.weight for member in ensemble.members) == pytest.approx(1.0)
    assert set(ensemble.extra["adds"]) <= {"first", "second"}
    kept = ensemble.score["search"]
    assert kept["asked"] == "best"
    assert [one["strategy"] for one in kept["found"]] == ["equal", "greedy", "optimise"]
    for one in kept["found"]:
        assert f"cross-fitted {one['cross_fitted']:.4f}, optimistic {one['optimistic']:.4f}" in text
    (chosen,) = [one for one in kept["found"] if one["chosen"]]
    assert chosen["weights"] == {member.run: pytest.approx(member.weight, abs=1e-5) for member in ensemble.members}
    assert f"others prefer: cross-fitted {kept['nested']:.4f}" in text
    (world.oof / "ensembles" / "mixed.json").unlink()
    (world.oof / "ensembles" / "mixed.csv").unlink()
