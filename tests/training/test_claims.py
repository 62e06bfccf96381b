"""What a command that cannot work leaves behind: one line, and a run folder that the corrected command may have."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

from histofold.cli import main
from histofold.inference import checkpoint
from histofold.training import run
from histofold.training.lock import LOCK
from histofold.training.run import of_other_weights, undone

TINY = [
    "competition=folders", "model=unet", "model.width=2", "train.crop=32", "train.batch=2", "train.samples_per_epoch=4",
    "train.epochs=1", "train.workers=0", "train.accelerator=cpu", "train.precision=32-true", "train.loggers=[]",
    "train.validate_every=0", "predict.tta=none", "predict.device=cpu", "evaluate.workers=1", "prepare.workers=1",
    "prepare.n_folds=2", "predict.margin=0",
]  # fmt: skip
Train = Callable[..., int]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("claims")


@pytest.fixture(scope="module")
def train(root: Path, discs: Path) -> Train:
    """Trains with further settings; gives the exit code."""
    names = ("prepared", "oof", "submissions")
    places = [f"paths.input={discs}", *(f"paths.{name}={root / name}" for name in names)]
    assert main("prepare", [*TINY, *places]) == 0
    return lambda *more: main("train", [*TINY, *places, *more])


WRONG = [
    (["train.crop=40", "predict.tile=40"], "predict.tile=40: these networks need a multiple of 16; try 48"),
    (["predict.margin=16"], "predict.margin=16: nothing is left of a tile of 32 pixels"),
    (["model.norm=batch", "train.batch=1", "train.crop=16"], "train.batch=1, train.crop=16: batch normalisation"),
    (["optimizer.name=no_such"], "optimizer.name=no_such: "),
]


@pytest.mark.parametrize(("more", "expected"), WRONG, ids=["tile", "margin", "normalisation", "optimizer"])
def test_what_fails_before_its_first_step_claims_nothing(
    train: Train, root: Path, capsys: pytest.CaptureFixture[str], more: list[str], expected: str
) -> None:
    assert train("run=wrong", *more) == 2
    assert f"histofold: {expected}" in capsys.readouterr().err
    assert not list(root.glob("oof/custom/wrong"))


def test_a_fold_that_was_broken_off_is_given_up_and_one_that_was_killed_says_so(
    train: Train, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    folder = root / "oof/custom/broken/fold0"
    with monkeypatch.context() as patch:
        patch.setattr(run, "fit", broken)
        assert train("run=broken") == 130
        assert not (folder / "config.yaml").exists()
        # As after a kill: the claim stands, as somebody may be at work there.
        folder.mkdir(parents=True)
        shutil.copy(root / "oof/custom/start/fold0/config.yaml", folder)
        assert train("run=broken", "train.ema=0.5") == 2
        assert "or delete the folder: it holds no weights yet" in capsys.readouterr().err
        assert (folder / "config.yaml").exists()


def test_a_fold_that_another_process_trains_is_left_alone(
    train: Train, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = root / "oof/custom/busy/fold0"
    folder.mkdir(parents=True)
    with (folder / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert train("run=busy") == 1
        assert f"{folder}: another process trains this fold; wait for it or stop it" in capsys.readouterr().err
    seen: list[str] = []

    def look(*_: object) -> None:
        seen.append((folder / LOCK).read_text())
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "fit", look)
    assert train("run=busy") == 130
    assert seen[0].startswith(f"process {os.getpid()} on ")
    assert not list(folder.iterdir())


@pytest.fixture(scope="module", autouse=True)
def start(train: Train, root: Path) -> Path:
    """A finished fold, of crops that are no multiple of what tiles must be: those are rounded up."""
    assert train("run=start", "train.crop=40") == 0
    folder = root / "oof/custom/start/fold0"
    assert checkpoint.load(folder / "model.ckpt")[0].tile == 40
    return folder


def test_weights_to_start_from_are_needed_at_the_start_only(
    train: Train, root: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they are replaced by weights that saw more: what they had seen is in the run's own files."""
    weights = tmp_path / "model.ckpt"
    spec, tensors = checkpoint.load(start / "model.ckpt")
    spec.training["samples"] = ["foreign 9x9"]
    checkpoint.save(weights, spec, tensors)
    command = ["run=on", f"train.start={weights}", "train.epochs=2"]
    folder = root / "oof/custom/on/fold0"
    real = run.fit
    monkeypatch.setattr(run, "fit", lambda *given: _interrupted(real, *given))
    assert train(*command) == 130
    assert torch.load(folder / "last.ckpt", weights_only=True)["progress"]["foreign"] == ["foreign 9x9"]
    monkeypatch.setattr(run, "fit", real)
    weights.unlink()
    assert train(*command) == 0
    assert "foreign 9x9" in checkpoint.load(folder / "model.ckpt")[0].training["samples"]
    (folder / "scores.csv").unlink()
    assert train(*command) == 0
    assert len(pd.read_csv(folder / "scores.csv")) == 2


def _interrupted(fit: Callable[..., object], *given: object) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    fit(*given[:-1], stop)


def test_loader_processes_are_forked_without_the_threads_that_drew_crops_before(train: Train, root: Path) -> None:
    """The plan draws crops in this process; a fork that inherits OpenCV's threads never ends."""
    assert train("run=helped", "train.workers=1") == 0
    assert (root / "oof/custom/helped/fold0/scores.csv").exists()


def test_lost_predictions_are_made_again_by_the_command_that_evaluate_names(
    root: Path,
    start: Path,
    train: Train,
    discs: Path,
    capsys: pytest.CaptureFixture[str],
    advised: Callable[[str, str], list[str]],
) -> None:
    names = ("prepared", "oof", "submissions")
    places = [f"paths.input={discs}", *(f"paths.{name}={root / name}" for name in names)]
    evaluate = ["competition=folders", *places, "runs=[start]", "folds=[0]", "evaluate.workers=1"]
    files = [start / "model.ckpt", start / "last.ckpt", start / "scores.csv", *(start / "predictions").glob("*.tif")]
    before = {path: path.read_bytes() for path in files}
    times = [path.stat().st_mtime_ns for path in files[:2]]
    for lost in (files[3:4], files[3:]):
        for path in lost:
            path.unlink()
        capsys.readouterr()
        assert main("evaluate", evaluate) == 1
        said = capsys.readouterr().err
        assert f"{min(lost)}: no such file; {len(lost)} of 2 OOF predictions are lost" in said
        assert "without training" in said
        overrides = advised(said, "train")
        assert "model=unet" in overrides, "the default is another model"
        assert main("train", overrides) == 0
        assert f"{len(lost)} of 2 OOF predictions are missing" in capsys.readouterr().out
        assert {path: path.read_bytes() for path in files} == before
        assert [path.stat().st_mtime_ns for path in files[:2]] == times
        assert main("evaluate", evaluate) == 0
    assert train("run=start", "train.crop=40") == 0
    assert "done already" in capsys.readouterr().out


@pytest.fixture
def finished(start: Path, tmp_path: Path) -> Iterator[Path]:
    """The finished fold for one test, which may spoil it."""
    kept = shutil.copytree(start, tmp_path / "kept")
    yield start
    shutil.rmtree(start)
    shutil.copytree(kept, start)


def test_lost_weights_are_made_again_from_the_last_checkpoint_and_predictions_stay(
    train: Train, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`evaluate` sends a person here, who must not be told that the fold is done."""
    files = [finished / "model.ckpt", finished / "scores.csv", *(finished / "predictions").glob("*.tif")]
    before = {path: path.read_bytes() for path in files}
    times = [path.stat().st_mtime_ns for path in files[2:]]
    files[0].unlink()
    assert train("run=start", "train.crop=40") == 0
    said = capsys.readouterr()
    assert "model.ckpt is missing; makes it anew" in said.out
    assert "done already" not in said.out
    assert {path: path.read_bytes() for path in files} == before
    assert [path.stat().st_mtime_ns for path in files[2:]] == times
    files[0].unlink()
    (finished / "last.ckpt").unlink()
    assert train("run=start", "train.crop=40") == 0
    assert (finished / "last.ckpt").exists(), "it was trained again"
    assert not undone(finished, pd.read_csv(finished / "scores.csv", dtype={"sample_id": str}))


@pytest.mark.parametrize("broken", [False, True], ids=["other weights", "broken file"])
def test_predictions_that_are_not_of_these_weights_are_made_anew(
    train: Train, finished: Path, capsys: pytest.CaptureFixture[str], broken: bool
) -> None:
    held_out = pd.read_csv(finished / "scores.csv", dtype={"sample_id": str})
    if broken:
        next((finished / "predictions").glob("*.tif")).write_bytes(b"II*")
    else:
        spec, tensors = checkpoint.load(finished / "model.ckpt")
        first = next(iter(tensors))
        checkpoint.save(finished / "model.ckpt", spec, {**tensors, first: tensors[first] + 1})
    number = len(of_other_weights(finished, held_out))
    assert number == (1 if broken else 2)
    assert train("run=start", "train.crop=40") == 0
    said = capsys.readouterr().out
    assert f"{number} of 2 OOF predictions are broken, or not of these weights" in said
    assert "done already" not in said
    assert not of_other_weights(finished, held_out)
    assert train("run=start", "train.crop=40", "predict.spread=true") == 0
    assert "done already, its predictions with predict.spread=False" in capsys.readouterr().out


def test_a_prediction_in_another_fold_s_folder_is_told_apart(
    root: Path, start: Path, discs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Then the folds were changed, and what trained the fold has seen the sample."""
    path = next((start / "predictions").glob("*.tif"))
    other = start.parent / "fold1" / "predictions" / path.name
    (start.parent / "fold1" / "predictions").mkdir(parents=True)
    for name in ("scores.csv", "config.yaml"):
        shutil.copy(start / name, start.parent / "fold1")
    path.rename(other)
    try:
        places = [f"paths.input={discs}", *(f"paths.{name}={root / name}" for name in ("prepared", "oof"))]
        assert main("evaluate", ["competition=folders", *places, "runs=[start]", "folds=[0]"]) == 1
        said = capsys.readouterr().err
        assert f"its OOF prediction is {other}; the folds were changed after training" in said
    finally:
        other.rename(path)
        shutil.rmtree(start.parent / "fold1")
