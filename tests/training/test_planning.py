"""What training needs, from one step on copies: nothing of the training itself moves."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from histofold import limits
from histofold.compose import ROOT, compose, load
from histofold.config import Config
from histofold.errors import ResourceError
from histofold.inference import checkpoint
from histofold.inference.planning import SampleSize
from histofold.tiles.folds import in_cv
from histofold.training import loop, oof, planning
from histofold.training.device import fabric_for
from histofold.training.run import build, member_of, spec_of
from histofold.training.state import Progress, save
from histofold.workspace import Workspace

SMALL = [
    "model=unet", "model.width=4", "model.norm=batch", "train.crop=64", "train.batch=4", "train.samples_per_epoch=16",
    "train.epochs=5", "train.workers=0", "train.validate_every=2", "train.precision=32-true", "train.accelerator=cpu",
    "predict.tta=none", "predict.device=cpu", "prepare.workers=1",
]  # fmt: skip


class Fold:
    """A fold that is ready to be trained."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.config, self.folder = config, folder
        workspace = Workspace(config)
        table = in_cv(workspace.folds())
        self.fabric = fabric_for(config.train)
        self.spec = spec_of(config, workspace, [])
        self.parts, self.dataset = build(config, workspace, self.fabric, self.spec, table, None)

    def plan(self, *sizes: SampleSize, **train: Any) -> planning.Plan:
        config = copy.deepcopy(self.config)
        for name, value in train.items():
            setattr(config.train, name, value)
        made = [*sizes] or [SampleSize(600, 500)]
        return planning.plan(
            config,
            self.fabric,
            self.parts,
            self.dataset,
            self.folder,
            made,
            lambda net: member_of(net, self.spec),
            "mask",
        )


@pytest.fixture(scope="module")
def fold(prepared_demo: Any, tmp_path_factory: pytest.TempPathFactory) -> Fold:
    from histofold.cli import main

    root = tmp_path_factory.mktemp("fold")
    prepared_demo("demo_kidney", root)
    places = [f"paths.{name}={root / name}" for name in ("input", "prepared", "oof", "submissions")]
    given = ["competition=demo_kidney", *places, *SMALL]
    assert main("prepare", given) == 0
    return Fold(load(compose(given, ROOT / "configs")), root / "fold0")


def test_nothing_moves(fold: Fold) -> None:
    weights, averaged = copy.deepcopy(fold.parts.model.state_dict()), copy.deepcopy(fold.parts.ema.state_dict())
    random = torch.get_rng_state()
    fold.parts.model.train()
    fold.plan()
    assert torch.equal(torch.get_rng_state(), random)
    assert fold.parts.model.training
    for before, part in ((weights, fold.parts.model), (averaged, fold.parts.ema)):
        after = part.state_dict()
        assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not fold.parts.optimizer.state
    assert all(value.grad is None for value in fold.parts.model.parameters())


def test_disk_is_what_is_written(fold: Fold, tmp_path: Path) -> None:
    small, large = (fold.plan(SampleSize(side, side)).disk for side in (400, 4000))
    assert 0.2 * (4000 / fold.spec.scale) ** 2 < large - small < 2 * (4000 / fold.spec.scale) ** 2
    # Two checkpoints with the network twice and Adam's two moments, and the network that is kept.
    save(tmp_path / "last.ckpt", Progress(), fold.parts.saved())
    checkpoint.save(tmp_path / "model.ckpt", fold.spec, fold.parts.ema.module.state_dict())
    tensors = planning.state_bytes(fold.parts.model)
    assert 2 * (2 + 1.8) * tensors < small < 2 * (2 + 2) * tensors + tensors + 100_000
    assert (tmp_path / "model.ckpt").stat().st_size < 1.5 * tensors + 100_000


def test_only_what_is_left_counts(fold: Fold, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "try_out", lambda *_: planning.Step(10.0, 1, 1, 1000))
    monkeypatch.setattr(planning.planning, "plan", lambda *_: planning.Plan("predict", 0, 0, 100.0))
    # Five epochs of four batches, validations after the second and the fourth, and the predictions at the end.
    whole = fold.plan()
    assert whole.seconds == 5 * 4 * 10 + 3 * 100
    fold.folder.mkdir(exist_ok=True)
    last = fold.folder / "last.ckpt"
    save(last, Progress(epoch=3, batches=1), fold.parts.saved())
    try:
        rest = fold.plan()
        assert rest.seconds == (2 * 4 - 1) * 10 + 2 * 100
        assert rest.disk < whole.disk
        last.write_bytes(b"broken")
        assert fold.plan().seconds == whole.seconds, "whoever goes on from it says what is wrong with it"
    finally:
        last.unlink()


def test_more_epochs_take_longer_and_larger_batches_more_memory(fold: Fold, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fold.plan(epochs=500).seconds > 20 * fold.plan(epochs=5).seconds
    # The smaller one first: what the allocator keeps of the larger one is this process's own from then on.
    small, large = (fold.plan(batch=batch, samples_per_epoch=256).peak_memory for batch in (4, 256))
    assert large > small + 100e6
    monkeypatch.setattr(loop, "cores", lambda: 4)
    assert fold.plan(workers=3).peak_memory >= fold.plan().peak_memory + 2 * planning.LOADER_BYTES


def test_batches_that_are_drawn_ahead_count(fold: Fold, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold.dataset, "crop", 1024)
    monkeypatch.setattr(planning, "_step", lambda *_: None)  # what it takes to learn from them is the same for all
    monkeypatch.setattr(planning.planning, "plan", lambda *_: planning.Plan("predict", 0, 0, 100.0))
    batch = 4 * sum(value.nbytes for value in fold.dataset[(0, 0)].values())
    assert batch > 4 * 1024**2 * 3
    monkeypatch.setattr(loop, "cores", lambda: 4)
    alone = fold.plan(batch=4)  # the larger peak first: what follows may find memory that the allocator kept
    one, four = fold.plan(batch=4, workers=1), fold.plan(batch=4, workers=4)
    assert four.peak_memory - alone.peak_memory > 4 * planning.LOADER_BYTES + 4 * 4 * batch
    ahead = planning.PREFETCH * batch
    assert (alone.shared, one.shared, four.shared) == (0, ahead + batch, 4 * ahead + batch)
    assert fold.plan(batch=4, workers=9).shared == four.shared, "no more processes than cores"
    with pytest.raises(ResourceError, match=r"train would need shared memory .*64 MB; take fewer train\.workers .*shm"):
        four.check(limits.Limits(1 << 50, 1 << 50, shared=64_000_000))
    four.check(limits.Limits(1 << 50, 1 << 50))  # where processes share memory in another way
    alone.check(limits.Limits(1 << 50, 1 << 50, shared=0))


def test_the_scores_at_the_end_count(fold: Fold, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "try_out", lambda *_: planning.Step(10.0, 1, 1000, 1000))
    monkeypatch.setattr(planning.planning, "plan", lambda *_: planning.Plan("predict", 0, 0, 100.0))
    held = planning.planning.resident()
    small, large = (fold.plan(SampleSize(side, side)).peak_memory for side in (100, 10_000))
    assert small >= held
    assert large - small > 20 * 10_000**2


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("limits.memory=1MB", "train would need memory"),
        ("limits.disk=1kB", "train would need disk"),
        ("limits.hours=0.0000001", "train would need time"),
    ],
)
def test_train_refuses_what_does_not_fit_and_leaves_nothing(
    fold: Fold, limit: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from histofold.cli import main

    root = fold.folder.parent
    places = [f"paths.{name}={root / name}" for name in ("input", "prepared", "oof", "submissions")]
    assert main("train", ["competition=demo_kidney", *places, *SMALL, "run=refused", limit]) == 1
    shown = capsys.readouterr()
    assert expected in shown.err
    assert "train: memory about" in shown.out
    assert not list((root / "oof").rglob("config.yaml"))


def test_what_is_left_of_a_trained_fold_is_planned_and_scored_by_as_many_processes_as_fit(
    fold: Fold, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from histofold.cli import main

    root = fold.folder.parent
    places = [f"paths.{name}={root / name}" for name in ("input", "prepared", "oof", "submissions")]
    given = ["competition=demo_kidney", *places, *SMALL, "train.epochs=1", "train.validate_every=0", "run=left"]
    assert main("train", given) == 0
    said = capsys.readouterr().out
    assert "predictions only" not in said, "they are in the plan of the training"
    place = root / "oof" / "demo_kidney" / "left" / "fold0"
    (place / "scores.csv").unlink()
    predicted = sorted((place / "predictions").iterdir())
    predicted[0].unlink()
    assert main("train", [*given, "limits.memory=1MB"]) == 1
    shown = capsys.readouterr()
    assert "train, predictions only: memory about" in shown.out
    assert "train, predictions only would need memory" in shown.err
    assert sorted((place / "predictions").iterdir()) == predicted[1:]

    counts: list[int] = []
    real = oof.each
    monkeypatch.setattr(oof, "each", lambda *asked: counts.append(asked[2]) or real(asked[0], asked[1], 1))
    monkeypatch.setattr(oof.room, "WORKER_BYTES", 1 << 50)
    assert main("train", [*given, "evaluate.workers=2"]) == 0
    shown = capsys.readouterr()
    assert "train, predictions only: memory about" in shown.out
    assert "train, scores: 1 of " in shown.out
    assert counts == [1]
    (place / "scores.csv").unlink()
    assert main("train", [*given, "evaluate.workers=1", "limits.memory=1MB"]) == 1
    assert "train, scores would need memory" in capsys.readouterr().err
