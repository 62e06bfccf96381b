"""Commands that verbs and the report advise: each is taken as it was printed, by a shell and by the command line."""

from __future__ import annotations

import html
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from histofold import cli
from histofold.compose import compose, load
from histofold.config import Config
from histofold.errors import DataError
from histofold.files import write_text
from histofold.submission import run as submission_run
from histofold.submission.place import Submission, elsewhere
from histofold.workspace import Workspace

KAGGLE = ("competition.slug=drawn-cells", "competition.options.csv=dsb2018", "competition.options.folder=custom")


@pytest.fixture(scope="module")
def world(draw: Callable[..., Any]) -> Any:
    """Two ensembles, and predictions of the first."""
    drawn = draw(4, *KAGGLE, seed=9)
    for name in ("one", "two"):
        assert drawn.run("evaluate", "runs=[run]", "evaluate.tune=false", f"name={name}") == 0
    return drawn


def unnamed(world: Any, *more: str) -> list[str]:
    """Overrides of the world's verbs without name=."""
    return [*(word for word in world.overrides() if not word.startswith("name=")), *more]


def commands(text: str) -> list[list[str]]:
    """Words of the commands in a text, each from `./run.sh` to the end of its line or to the next word of prose."""
    return [shlex.split(line) for line in re.findall(r"\./run\.sh .*?(?=`| and \./run\.sh|$)", text, re.MULTILINE)]


def notes(page: Path) -> dict[str, str]:
    """What the page cannot show, and how to mend it."""
    found = re.findall(r"<li><b>(.*?)</b> (.*?)</li>", page.read_text(encoding="utf-8"))
    return {html.unescape(what): html.unescape(how) for what, how in found}


def test_a_page_on_a_partial_ensemble_advises_its_own_folds(draw: Callable[..., Any]) -> None:
    drawn = draw(4, seed=10)
    shutil.rmtree(drawn.oof / "run" / "fold1")
    shutil.rmtree(drawn.root / "submissions")
    for name in ("one", "two"):
        assert drawn.run("evaluate", "runs=[run]", "folds=[0]", "evaluate.tune=false", f"name={name}") == 0
    table = drawn.oof / "ensembles" / "two.csv"
    before = table.read_bytes()
    table.unlink()
    assert cli.main("report", unnamed(drawn, "name=two")) == 0
    said = notes(drawn.oof / "report.html")
    (door, verb, *overrides) = commands(said["Scores are missing:"])[0]
    assert (door, verb) == ("./run.sh", "evaluate")
    assert cli.main(verb, [*overrides, "evaluate.tune=false"]) == 0, "as it stands, all folds would be asked for"
    assert table.read_bytes() == before

    # By default the page is about the newest ensemble, and says which one is to be predicted with.
    assert cli.main("report", unnamed(drawn)) == 0
    advised = commands(notes(drawn.oof / "report.html")["Nothing was submitted yet:"])
    assert [words[1] for words in advised] == ["predict", "submit"]
    for _, _, *overrides in advised:
        assert Submission.of(Workspace(load(compose(overrides)))).ensemble.name == "two"


def test_submit_ends_with_the_command_that_sends_and_logs(
    world: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    capsys.readouterr()
    assert world.run("submit", "submit.message=a b [c]") == 0
    *_, ours, prose, theirs = capsys.readouterr().out.splitlines()
    door, verb, *overrides = shlex.split(ours)
    assert (door, verb) == ("./run.sh", "submit")
    config = load(compose(overrides))
    assert (config.submit.send, config.name, config.submit.message) == (True, "one", "a b [c]")
    assert config.path("oof") == world.root / "oof"
    assert "log.csv knows nothing" in prose
    program, *rest = shlex.split(theirs)
    assert program == str(Path(sys.executable).with_name("kaggle")), "it is not on PATH unless .venv is active"
    sent = ["-f", str(world.submission / "submission.csv"), "-m", "a b [c]"]
    assert rest == ["competitions", "submit", "drawn-cells", *sent]
    # In an environment without one beside the interpreter, PATH may know another.
    monkeypatch.setattr(submission_run.sys, "executable", str(world.root / "bin" / "python"))
    assert world.run("submit") == 0
    assert shlex.split(capsys.readouterr().out.splitlines()[-1])[0] == "kaggle"


def test_a_notebook_is_advised_with_what_predict_and_submit_were_given(
    draw: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A bare `submit` knows neither the ensemble's name nor the views, which the notebook is to have, too."""
    drawn = draw(4, *KAGGLE, "competition.code=true", seed=11)
    assert drawn.run("evaluate", "runs=[run]", "evaluate.tune=false") == 0
    predicted = drawn.submission_of("predict.tta=dihedral", "predict.step=0.5", "predict.batch=3")
    predicted.record(predict={"seconds": 1.0, **vars(predicted.workspace.config.predict)})
    drawn.tag()

    def advised(*more: str) -> Config:
        capsys.readouterr()
        sent = "submit.send=true" in more
        assert cli.main("submit", unnamed(drawn, *more)) == (2 if sent else 0)
        said = capsys.readouterr()
        (words,) = commands(said.err if sent else said.out)
        assert (words[:2], words[-1]) == (["./run.sh", "kernel"], "kernel.push=true")
        return load(compose(words[2:]))

    for more in ((), ("submit.send=true",)):
        config = advised(*more)
        assert (config.name, config.predict.tta, config.predict.step) == ("one", "dihedral", 0.5)
        assert (config.predict.batch, config.submit.min_area, config.submit.send) == (8, 0, False)
    cleaning = advised("submit.min_area=7", "submit.max_hole=2").submit
    assert (cleaning.min_area, cleaning.max_hole) == (7, 2)
    cleaning = advised("submit.max_hole=1", "submit.send=true").submit
    assert (cleaning.min_area, cleaning.max_hole) == (7, 1), "what the file was made with, and what is typed now"
    assert advised("predict.tta=flips").predict.tta == "dihedral", "the file was not predicted so"


def test_a_folder_that_is_not_there_is_told_before_an_ensemble(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ([], [f"paths.oof={tmp_path}"]):
        capsys.readouterr()
        assert cli.main("predict", unnamed(world, f"images={tmp_path / 'nowhere'}", *more)) == 1
        assert capsys.readouterr().err.startswith(f"histofold: {tmp_path / 'nowhere'}: no such folder")


def test_without_test_images_both_verbs_say_how_a_folder_is_predicted(
    draw: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = draw(4, seed=11)
    place = drawn.root / "input" / "custom"
    rows = (place / "index.csv").read_text(encoding="utf-8").splitlines()
    write_text(place / "index.csv", "\n".join(row for row in rows if not row.endswith(",test")))
    for path in place.glob("*/*0[45].png"):
        path.unlink()
    assert drawn.run("evaluate", "runs=[run]", "evaluate.tune=false") == 0
    for verb in ("predict", "submit"):
        capsys.readouterr()
        assert drawn.run(verb) == 1
        output = capsys.readouterr()
        assert output.err.startswith("histofold: custom: there is no test sample to predict or submit; `./run.sh ")
        assert commands(output.err) == [["./run.sh", "predict", *drawn.overrides(), "images=FOLDER"]]
        assert "QuPath" not in output.out


def test_predict_says_with_which_ensemble_first(
    world: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(submission: Submission, folder: Path) -> str:
        raise DataError("far enough")

    monkeypatch.setattr(submission_run, "predict_folder", refused)
    capsys.readouterr()
    images = world.root / "input" / "custom" / "images"
    assert world.run("predict", f"images={images}", "predict.spread=true") == 1
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"custom: ensemble one, CV 0\.\d{4} \(dsb\)", first)
    assert second.startswith("predict.spread=true is not used")


def test_without_an_ensemble_those_of_other_competitions_are_named(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("dsb2018/ensembles/smp.json", "dsb2018/ensembles/unet.json", "mine/ensembles/a.json"):
        write_text(tmp_path / place, "{}")
    places = [f"paths.oof={tmp_path}", f"images={world.root / 'input' / 'custom' / 'images'}"]
    for name in ([], ["name=smp"]):
        capsys.readouterr()
        assert cli.main("predict", ["competition=demo_kidney", "shard=0/4", *places, *name]) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"histofold: {tmp_path / 'demo_kidney' / 'ensembles'}: no ensemble yet; make one with `")
        advised = ["./run.sh", "evaluate", "competition=demo_kidney", places[0], *name, "runs=[…]"]
        assert commands(said)[0] == advised
        assert said.endswith(
            "; there are: smp, unet with competition=dsb2018; a with competition=folders competition.name=mine\n"
        )
    assert elsewhere(tmp_path / "nothing") == ""


def test_evaluate_ends_with_the_command_that_predicts(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert world.run("evaluate", "runs=[run]", "evaluate.tune=false", "name=two") == 0
    ((door, verb, *overrides),) = commands(capsys.readouterr().out)
    assert (door, verb) == ("./run.sh", "predict")
    submission = Submission.of(Workspace(load(compose(overrides))))
    assert (submission.ensemble.name, submission.ensemble.competition) == ("two", "custom")


def test_a_mistyped_run_is_told_what_was_meant(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert world.run("evaluate", "runs=[runn]", "folds=[0]") == 1
    said = capsys.readouterr().err
    assert "runn: no such run; did you mean 'run'? found run; a new one is trained with `" in said
    ((door, verb, *overrides),) = commands(said)
    assert (door, verb) == ("./run.sh", "train")
    config = load(compose(overrides))
    assert (config.run, config.fold, config.folds, config.runs) == ("runn", 0, "default", None)
    assert config.path("oof") == world.root / "oof"
