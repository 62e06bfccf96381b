"""`submit` takes predictions of its ensemble and its images alone, and says which file is not one, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio

from histofold.cli import main
from histofold.compose import compose, load
from histofold.errors import DataError
from histofold.files import read_json, write_json
from histofold.inference.bandfile import BandFileWriter
from histofold.inference.ensemble import Ensemble
from histofold.inference.predict import Origin, origin
from histofold.submission.encode import encode
from histofold.submission.place import Submission
from histofold.submission.run import encode_all, task_of
from histofold.targets.foreground import Foreground
from histofold.workspace import Workspace

Submitted = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def drawn(draw: Callable[..., Any]) -> Any:
    world = draw(4, seed=8)
    assert world.run("evaluate", "runs=[run]", "evaluate.tune=false", "evaluate.per_stratum=never") == 0
    return world


@pytest.fixture
def world(drawn: Any) -> Iterator[Any]:
    """The world as it was after `evaluate` and `predict`."""
    drawn.tag()
    places = [drawn.oof / "ensembles" / "one.json", *(drawn.root / "input").rglob("*.png")]
    places += (drawn.submission / "predictions").iterdir()
    before = {path: path.read_bytes() for path in places}
    yield drawn
    for path, content in before.items():
        path.write_bytes(content)


@pytest.fixture
def submit(world: Any, capsys: pytest.CaptureFixture[str]) -> Submitted:
    """`submit` on the files as they are; gives the exit code and what was said."""

    def run(*more: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main("submit", world.overrides(*more))
        return code, capsys.readouterr().err

    return run


def path_of(world: Any, sample_id: str) -> Path:
    return Path(world.submission / "predictions" / f"{sample_id}.tif")


def change(world: Any, sample_id: str, **parts: str) -> None:
    """Change parts of what a band file says of its origin."""
    path = path_of(world, sample_id)
    found = origin(path)
    assert found is not None
    with rasterio.open(path, "r+") as file:
        file.update_tags(HISTOFOLD_FINGERPRINT="-".join(found._replace(**parts)))


def test_predictions_of_the_ensemble_are_taken_whatever_the_settings_of_predict(world: Any, submit: Submitted) -> None:
    assert submit()[0] == 0
    world.tag("predict.tta=dihedral", "predict.step=0.5")
    views = origin(path_of(world, "dark04"))
    world.tag()
    plain = origin(path_of(world, "dark04"))
    assert views is not None
    assert plain is not None
    assert views.settings != plain.settings
    assert views == Origin(plain.members, views.settings, plain.stamp)
    world.tag("predict.tta=dihedral", "predict.step=0.5")
    assert submit()[0] == 0, "a bare submit after `predict predict.tta=dihedral`"


def test_predictions_of_another_ensemble_are_refused(
    world: Any, submit: Submitted, advised: Callable[[str, str], list[str]]
) -> None:
    place = world.oof / "ensembles" / "one.json"
    values = read_json(place)
    values["checkpoints"][0]["sha256"] = "0" * 64
    write_json(place, values)
    before = world.submission / "provenance.json"
    content = before.read_bytes() if before.exists() else None
    code, text = submit()
    assert code == 1
    assert f"{path_of(world, 'dark04')}: was predicted by other networks" in text
    assert "ensemble one as it is now" in text
    overrides = advised(text, "predict")
    assert Submission.of(Workspace(load(compose(overrides)))).predictions == world.submission / "predictions"
    assert (before.read_bytes() if before.exists() else None) == content


def test_one_sample_that_another_ensemble_predicted_is_named(world: Any, submit: Submitted) -> None:
    change(world, "light05", members="0123456789abcdef")
    code, text = submit()
    assert (code, f"{path_of(world, 'light05')}: was predicted by other networks (digest 0123" in text) == (1, True)


def test_members_of_weight_zero_are_told_apart(world: Any) -> None:
    """Only checkpoints that are used count, so that it matters which of them are not."""
    place = world.oof / "ensembles" / "one.json"
    values = read_json(place)
    item, member = values["checkpoints"][0], values["members"][0]
    found = set()
    for weights in ((1.0, 0.0), (0.0, 1.0)):
        values["members"] = [{**member, "run": name, "weight": one} for name, one in zip("ab", weights, strict=True)]
        values["checkpoints"] = [{**item, "run": "a"}, {**item, "run": "b", "sha256": "0" * 64}]
        write_json(place, values)
        found.add(world.submission_of().fingerprint())
    assert len(found) == 2


def test_a_replaced_image_is_refused(world: Any, submit: Submitted) -> None:
    source = world.root / "input" / "custom" / "images" / "dark05.png"
    cv2.imwrite(str(source), np.full((48, 48, 3), 77, np.uint8))
    code, text = submit()
    assert code == 1
    assert f"{path_of(world, 'dark05')}: was predicted from another image" in text
    assert f"than {source} as it is now" in text
    assert "run `./run.sh predict competition=folders " in text


def test_files_made_with_different_settings_are_refused(world: Any, submit: Submitted) -> None:
    change(world, "light04", settings="0123456789abcdef")
    code, text = submit()
    assert (code, "with other settings of predict.* (digest 0123456789abcdef) than dark04.tif" in text) == (1, True)
    assert "one set of settings" in text


def test_files_from_before_there_were_parts_are_refused(world: Any, submit: Submitted) -> None:
    with rasterio.open(path_of(world, "dark04"), "r+") as file:
        file.update_tags(HISTOFOLD_FINGERPRINT="0123456789abcdef")
    code, text = submit()
    assert (code, "earlier version of histofold; run `./run.sh predict " in text) == (1, True)


def test_the_size_of_a_prediction_is_compared_with_the_image(world: Any, tmp_path: Path) -> None:
    submission = world.submission_of()
    sample = submission.workspace.competition.sample("dark04")
    for mask in (False, True):
        path = tmp_path / "a.tif"
        with BandFileWriter(path, Foreground().bands, 48, 40) as writer:
            writer.write_rows(0, np.zeros((1, 48, 40), np.uint8))
        task = task_of(submission, sample, None)
        decoder: dict[str, Any] = {"threshold": 0.5, "instances": None} if mask else {}
        with pytest.raises(DataError, match=r"a.tif: was predicted from an image of 48 × 40.*48 × 48; run predict"):
            encode(type(task)(**{**vars(task), "path": path, **decoder}))


def test_the_input_of_a_submission_is_what_the_files_hold(world: Any) -> None:
    from histofold.submission.place import fingerprint

    def found() -> str:
        submission = world.submission_of()
        return fingerprint(submission.workspace.competition, submission.samples())

    before = found()
    path = world.root / "input" / "custom" / "images" / "dark04.png"
    content = path.read_bytes()
    path.write_bytes(content)
    assert found() == before, "another time changes nothing"
    image = cv2.imread(str(path))
    assert image is not None
    other = image.copy()
    other[0, 0] += 1
    cv2.imwrite(str(path), other)
    path.write_bytes(path.read_bytes()[: len(content)].ljust(len(content), b"\0"))
    assert found() != before, "and other bytes of the same size do"


def test_settings_that_the_ensemble_decides_are_told(world: Any) -> None:
    assert world.submission_of().overruled() == []
    lines = world.submission_of("predict.size=36", "predict.spread=true").overruled()
    assert [line.split(" is not used: ")[0] for line in lines] == ["predict.size=36", "predict.spread=true"]
    assert "one was evaluated with 0; give it in training" in lines[0]


def test_nothing_is_encoded_where_one_prediction_is_missing(world: Any) -> None:
    path_of(world, "light05").unlink()
    advice = r"1 of 4 samples have no prediction \(light05\); run `\./run\.sh predict .*name=one`"
    with pytest.raises(DataError, match=advice):
        encode_all(world.submission_of(), world.submission_of().samples())


def test_an_ensemble_of_another_size_is_another_one(world: Any) -> None:
    place = world.oof / "ensembles" / "one.json"
    before = world.submission_of().fingerprint()
    write_json(place, {**read_json(place), "size": 36.0})
    assert Ensemble.read(place).size == 36
    after = world.submission_of().fingerprint()
    assert before.split("-")[0] != after.split("-")[0]
    assert before.split("-")[1] == after.split("-")[1]
