"""A run that begins with the weights of another: which it takes, and which it refuses because they saw the answers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

from histofold.inference import checkpoint

Said = Callable[[], str]
STILL = ["train.epochs=1", "optimizer.lr=1e-12", "train.ema=0", "predict.tile=128"]
"""Training that moves the weights by less than a float shows, so that what it began with can be seen at its end.

Nobody looks at its predictions, so they are made in large tiles.
"""


@pytest.fixture
def world(kidney: Any) -> Iterator[Any]:
    """The trained slides; runs named `on…` and a second fold set are taken away again."""
    yield kidney
    for folder in kidney.oof.glob("on*"):
        shutil.rmtree(folder)
    (kidney.prepared / "folds-other.csv").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def begun(kidney: Any) -> Iterator[str]:
    """What was said of the run `begun`, whose fold 1 began with that of `first`."""
    with redirect_stdout(StringIO()) as text:
        assert kidney.run("train", "run=begun", "train.start=first", "fold=1", *STILL) == 0
    yield text.getvalue()
    shutil.rmtree(kidney.oof / "begun")


def weights(world: Any, run: str, fold: int = 0) -> dict[str, torch.Tensor]:
    state = checkpoint.load(world.oof / run / f"fold{fold}" / "model.ckpt")[1]
    return {key: value for key, value in state.items() if key.endswith("weight")}


def test_it_begins_with_the_same_fold_of_the_run(world: Any, begun: str) -> None:
    assert "begins with" in begun
    found, expected = weights(world, "begun", 1), weights(world, "first", 1)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-6)
    other = weights(world, "first", 0)
    assert any(not torch.allclose(found[key], other[key], atol=1e-3) for key in found)


def test_a_checkpoint_says_what_it_saw_and_hands_it_on(world: Any, begun: str) -> None:
    table = (world.prepared / "folds.csv").read_text().splitlines()[1:]
    for fold in ("0", "1"):
        first = checkpoint.load(world.oof / "first" / f"fold{fold}" / "model.ckpt")[0]
        held_out = {line.split(",")[0] for line in table if line.split(",")[-1] in ("-1", fold)}
        seen = {name.split(" ")[0] for name in first.training["samples"]}
        assert seen
        assert not seen & held_out
    on = checkpoint.load(world.oof / "begun" / "fold1" / "model.ckpt")[0]
    assert on.training["samples"] == sorted(first.training["samples"])


def test_weights_that_saw_what_is_held_out_are_refused_and_nothing_is_claimed(world: Any, said: Said) -> None:
    path = world.oof / "first" / "fold1" / "model.ckpt"
    assert world.run("train", "run=on", f"train.start={path}", "fold=0") == 1
    text = said()
    assert "hold out" in text
    assert "start from a run with the same folds" in text
    assert not (world.oof / "on").exists()


def test_another_fold_set_is_no_way_around_it(world: Any, said: Said) -> None:
    assert world.run("prepare", "folds=other", "prepare.fold_seed=5") == 0
    refused = [world.run("train", "run=on", "train.start=first", "folds=other", f"fold={fold}") for fold in (0, 1)]
    assert 1 in refused
    assert "has seen" in said()


def test_weights_of_other_images_are_taken(world: Any, nuclei: Any, said: Said) -> None:
    path = nuclei.oof / "first" / "fold0" / "model.ckpt"
    assert world.run("train", "run=on", f"train.start={path}", "fold=0", *STILL) == 0
    assert f"tensors of {path}" in said()
    foreign = checkpoint.load(path)[0].training["samples"]
    assert set(foreign) < set(checkpoint.load(world.oof / "on" / "fold0" / "model.ckpt")[0].training["samples"])


def test_another_network_another_name_and_no_run_are_told(world: Any, said: Said) -> None:
    assert world.run("train", "run=on1", "train.start=first", "model.width=8") == 1
    assert "it is another network" in said()
    assert world.run("train", "run=on", "train.start=on") == 2
    assert "start from itself" in said()
    assert world.run("train", "run=on", "train.start=nobody") == 1
    assert "nobody/fold0/model.ckpt: no such checkpoint" in said()


def test_where_a_missing_file_was_looked_for_is_told(world: Any, said: Said) -> None:
    assert world.run("train", "run=on", "train.start=no/such.ckpt", f"root={world.root}") == 1
    assert f"looked for {Path('no/such.ckpt').absolute()} and {world.root}/no/such.ckpt" in said()


def test_a_checkpoint_that_does_not_say_what_it_saw_is_refused(world: Any, said: Said) -> None:
    spec, state = checkpoint.load(world.oof / "first" / "fold0" / "model.ckpt")
    del spec.training["samples"]
    path = world.oof / "on_old" / "model.ckpt"
    path.parent.mkdir()
    checkpoint.save(path, spec, state)
    assert world.run("train", "run=on", f"train.start={path}", "fold=0") == 1
    assert "does not say which samples" in said()


def test_folds_that_changed_after_training_are_noticed(world: Any, said: Said) -> None:
    """Weights are finished, predictions are not: the edit would score what was learned."""
    place = world.oof / "on" / "fold0"
    shutil.copytree(world.oof / "first", world.oof / "on")
    for fold in (0, 1):
        (world.oof / "on" / f"fold{fold}" / "scores.csv").unlink()
    path = world.prepared / "folds.csv"
    before = path.read_text()
    swapped = {"0": "1", "1": "0"}
    lines = [line.rsplit(",", 1) for line in before.splitlines()]
    path.write_text("\n".join(f"{head},{swapped.get(fold, fold)}" for head, fold in lines) + "\n")
    try:
        assert world.run("train", "run=on", "fold=0", "seed=0") == 1
        assert "the folds were changed after training" in said()
        (place / "model.ckpt").unlink()
        assert world.run("train", "run=on", "fold=0", "seed=0") == 1
        assert "began with other training samples" in said()
    finally:
        path.write_text(before)
    assert not (place / "model.ckpt").exists()


def test_a_store_of_other_settings_is_not_trained_on(world: Any, said: Said) -> None:
    assert world.run("train", "run=on", "prepare.grids=[grid,centred]", "prepare.min_tissue=0.3") == 1
    assert "was prepared with prepare." in said()
