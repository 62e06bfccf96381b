"""Ensemble files: read back as written, members of their own, and no checkpoint but the one that was scored."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from histofold import models
from histofold.errors import DataError
from histofold.inference import checkpoint
from histofold.inference.checkpoint import Spec
from histofold.inference.ensemble import CheckpointFile, Ensemble, RunWeight, checkpoints_of
from histofold.preprocess import Preprocess

MODEL = {"name": "unet", "width": 4, "depth": 2}


def write_checkpoint(oof: Path, run: str, fold: int, competition: str = "demo") -> None:
    """A tiny checkpoint in its place."""
    torch.manual_seed(hash((run, fold)) % 1000)
    options = {key: value for key, value in MODEL.items() if key != "name" and key in models.options("unet")}
    network = models.build("unet", 1, **options)
    spec = Spec(
        competition, run, fold, {"name": "unet", **options}, {"name": "foreground"}, Preprocess().to_dict(), 64, 1.0
    )
    checkpoint.save(oof / competition / run / f"fold{fold}" / "model.ckpt", spec, network.state_dict())


@pytest.fixture
def oof(tmp_path: Path) -> Path:
    """Two runs of two folds."""
    for run in ("a", "b"):
        for fold in (0, 1):
            write_checkpoint(tmp_path, run, fold)
    return tmp_path


def make(oof: Path, **changes: object) -> Ensemble:
    """An ensemble of both runs."""
    base = Ensemble(
        competition="demo",
        name="best",
        metric="dice",
        members=(RunWeight("a", 3.0), RunWeight("b", 1.0)),
        folds=(0, 1),
        partial=False,
        bands=("foreground",),
        checkpoints=tuple(checkpoints_of(oof, "demo", ["a", "b"], [0, 1])),
        threshold=0.5,
        score={"optimistic": 0.8, "cross_fitted": 0.79, "interval": [0.7, 0.9], "per_fold": {"0": 0.8}},
        threshold_curve=((0.0, 0.1), (0.5, 0.8)),
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_round_trip(oof: Path) -> None:
    ensemble = make(oof)
    path = ensemble.write(oof)
    assert path == oof / "demo" / "ensembles" / "best.json"
    assert Ensemble.read(path) == ensemble
    content = json.loads(path.read_text())
    assert content["format"] == 1
    assert content["members"] == [{"run": "a", "weight": 3.0}, {"run": "b", "weight": 1.0}]
    assert content["checkpoints"][0]["path"] == "a/fold0/model.ckpt"


def test_members_are_their_own_modules_with_the_run_s_weight_shared(oof: Path) -> None:
    members, weights = make(oof).load_members(oof)
    assert weights == pytest.approx([0.375, 0.375, 0.125, 0.125])
    assert len({id(member.network) for member in members}) == 4
    pixels = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    outputs = [member(pixels) for member in members]
    assert all(not torch.equal(outputs[i], outputs[j]) for i in range(4) for j in range(i))
    assert [(member.spec.run, member.spec.fold) for member in members if member.spec] == [
        ("a", 0), ("a", 1), ("b", 0), ("b", 1),
    ]  # fmt: skip


def test_runs_of_weight_zero_are_not_loaded(oof: Path) -> None:
    ensemble = make(oof, members=(RunWeight("a", 0.0), RunWeight("b", 2.0)))
    members, weights = ensemble.load_members(oof)
    assert weights == [0.5, 0.5]
    assert {member.spec.run for member in members if member.spec} == {"b"}


def test_a_checkpoint_trained_again_is_refused(oof: Path) -> None:
    ensemble = make(oof)
    with (oof / "demo/b/fold1/model.ckpt").open("ab") as file:
        file.write(b"!")
    with pytest.raises(DataError, match=r"b/fold1/model\.ckpt: not the checkpoint that ensemble best was scored with"):
        ensemble.load_members(oof)


def test_a_missing_checkpoint_is_named(oof: Path) -> None:
    ensemble = make(oof)
    (oof / "demo/a/fold0/model.ckpt").unlink()
    with pytest.raises(DataError, match=r"a/fold0/model\.ckpt: ensemble best needs this checkpoint"):
        ensemble.load_members(oof)
    with pytest.raises(DataError, match="train it with run=a fold=0"):
        checkpoints_of(oof, "demo", ["a"], [0])


def test_a_checkpoint_of_another_competition_is_refused(oof: Path) -> None:
    write_checkpoint(oof, "a", 0, "other")
    (oof / "other/a/fold0/model.ckpt").replace(oof / "demo/a/fold0/model.ckpt")
    with pytest.raises(DataError, match=r"made for competition 'other', expected 'demo'"):
        make(oof).load_members(oof)


def test_runs_and_checkpoints_must_agree(oof: Path) -> None:
    stranger = CheckpointFile("c", 0, "c/fold0/model.ckpt", "0" * 64)
    with pytest.raises(DataError, match=r"checkpoints of other runs \['c'\]"):
        make(oof, checkpoints=(stranger,)).weights()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 7}, "expected an ensemble of format 1, found 7"),
        ({"surprise": 1}, r"unknown \['surprise'\]"),
        ({"metric": None}, r"keys missing \['metric'\]"),
        ({"members": [{"name": "a"}]}, "damaged"),
    ],
)
def test_damaged_files(oof: Path, change: dict[str, object], message: str) -> None:
    path = make(oof).write(oof)
    content = {**json.loads(path.read_text()), **change}
    content = {key: value for key, value in content.items() if value is not None or key == "instances"}
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        Ensemble.read(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        Ensemble.read(tmp_path / "best.json")
