"""A pruned UNet++: every depth is scored out of fold, and the chosen one is a run like any other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from histofold import cli
from histofold.evaluation import depths
from histofold.evaluation.depths import Depth, nested, report
from histofold.evaluation.pruned import note
from histofold.files import HOST, TEMPORARY
from histofold.inference import checkpoint
from histofold.inference.ensemble import Ensemble
from histofold.inference.member import Member
from histofold.models.unetpp import UNetPlusPlus, choose_depth

TINY = [
    "model=unetpp", "model.width=4", "instances=threshold", "train.crop=32", "train.batch=2",
    "train.samples_per_epoch=8", "train.epochs=1", "train.workers=0", "train.accelerator=cpu", "train.loggers=[]",
    "train.precision=32-true", "train.validate_every=0", "predict.tta=none", "predict.device=cpu",
    "evaluate.workers=1", "evaluate.bootstrap=20", "prepare.workers=1", "prepare.n_folds=2",
]  # fmt: skip


def depth(number: int, *folds: float) -> Depth:
    """A depth with one sample in each fold."""
    return Depth(number, {fold: np.array([score]) for fold, score in enumerate(folds)}, 1.0)


def test_each_fold_is_scored_at_the_depth_that_the_others_choose() -> None:
    # Fold 0 alone likes L1, the others L2.
    found = [depth(1, 0.9, 0.2, 0.3), depth(2, 0.1, 0.5, 0.5)]
    assert nested(found, 0.0) == pytest.approx((0.1 + 0.2 + 0.3) / 3), "fold 0 has L2, the others L1 because of fold 0"
    assert max(item.score() for item in found) > 0.36
    assert nested([depth(1, 0.9), depth(2, 0.1)], 0.0) is None, "one fold has no others"
    text = report("x", [depth(1, 0.9), depth(2, 0.1)], 1, 0.0, None, 3)
    assert "L1 was chosen on the one fold that scores it: 0.9000 is optimistic" in text


def test_a_pruned_run_says_how_its_depth_was_chosen(tmp_path: Path) -> None:
    assert note(tmp_path) is None
    pd.DataFrame({"depth": [1, 2], "score": [0.5, 0.6], "seconds": 1.0}).to_csv(tmp_path / "depths.csv", index=False)
    said = note(tmp_path)
    assert said is not None, "also where an earlier version wrote it"
    assert said.endswith("optimistic by that choice")
    rows = {"depth": [1, 2], "score": [0.5, 0.6], "chosen": ["", "on all folds"], "nested": [None, 0.55]}
    pd.DataFrame(rows).to_csv(tmp_path / "depths.csv", index=False)
    assert (note(tmp_path) or "").endswith("with depths that the other folds chose: 0.5500")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of a competition of four drawn images with a UNet++ and a U-Net trained on both folds."""
    root = tmp_path_factory.mktemp("depths")
    place = root / "input" / "custom"
    for folder in ("images", "labels"):
        (place / folder).mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(4):
        labels = np.zeros((48, 56), np.uint16)
        for label, (x, y) in enumerate([(14, 14), (40, 30)], 1):
            cv2.circle(labels, (x, y), 9, label, -1)
        image = np.where(labels[..., None] > 0, 90, 220) + random.integers(-20, 20, (48, 56, 3))
        cv2.imwrite(str(place / "images" / f"{number}.png"), image.astype(np.uint8))
        cv2.imwrite(str(place / "labels" / f"{number}.png"), labels)
    pd.DataFrame({"id": range(4), "group": range(4)}).to_csv(place / "index.csv", index=False)
    names = ("input", "prepared", "oof", "submissions")
    overrides = ["competition=folders", *TINY, *(f"paths.{name}={root / name}" for name in names)]
    assert cli.main("prepare", overrides) == 0
    for fold in (0, 1):
        assert cli.main("train", [*overrides, "run=nested", f"fold={fold}"]) == 0
    assert cli.main("train", [*overrides, "run=plain", "model=unet", "model.width=4", "fold=0"]) == 0
    return overrides


def oof(overrides: list[str]) -> Path:
    """The folder of the competition's runs."""
    value = next(item for item in overrides if item.startswith("paths.oof="))
    return Path(value.partition("=")[2]) / "custom"


def test_a_wide_tolerance_keeps_the_shallowest_and_none_the_best(
    trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = oof(trained) / "nested_fast"
    for tolerance in (1.0, 0.0):
        assert cli.main("evaluate", [*trained, "runs=[nested]", "folds=all", f"evaluate.depths={tolerance}"]) == 0
        said = capsys.readouterr().out
        table = pd.read_csv(folder / "depths.csv")
        assert table["depth"].tolist() == [1, 2, 3, 4]
        assert (table["seconds"] > 0).all()
        chosen = choose_depth(dict(zip(table["depth"], table["score"], strict=True)), tolerance)
        assert chosen == 1 or tolerance == 0
        mark, honest = table["chosen"].eq("on all folds"), table["nested"].dropna()
        assert table["depth"][mark].tolist() == [chosen]
        assert honest.index.tolist() == table.index[mark].tolist()
        assert f"the depth that the other folds choose: {honest.iloc[0]:.4f}; optimistic, L{chosen} chosen" in said
        assert f"L{chosen} " in next(line for line in said.splitlines() if "chosen" in line)
        for fold in (0, 1):
            spec, state = checkpoint.load(folder / f"fold{fold}" / "model.ckpt")
            assert (spec.run, spec.model["mode"], spec.model["depth"]) == ("nested_fast", "fast", chosen)
            source = checkpoint.load(oof(trained) / "nested" / f"fold{fold}" / "model.ckpt")[1]
            assert all(torch.equal(value, source[name]) for name, value in state.items())
        scores = pd.concat([pd.read_csv(folder / f"fold{fold}" / "scores.csv") for fold in (0, 1)])
        assert scores["score"].mean() == pytest.approx(table.set_index("depth").loc[chosen, "score"])
    assert not list(oof(trained).glob(".nested_fast*")), "nothing is left of the other depths"


def test_the_pruned_run_is_a_run_like_any_other(trained: list[str]) -> None:
    assert cli.main("evaluate", [*trained, "runs=[nested]", "folds=all", "evaluate.depths=1"]) == 0
    assert cli.main("evaluate", [*trained, "runs=[nested_fast]", "folds=all", "name=pruned"]) == 0
    ensemble = Ensemble.read(Ensemble.place(oof(trained).parent, "custom", "pruned"))
    members, _ = ensemble.load_members(oof(trained).parent)
    assert len(members) == 2
    assert ensemble.score["pruned"] == ["nested_fast"]
    network = members[0].network
    assert isinstance(network, UNetPlusPlus)
    seen: list[str] = []
    for name, layer in network.named_modules():
        if name.startswith(("encoder.", "nodes.", "heads.")) and name.count(".") == 1:
            layer.register_forward_hook(lambda *_, name=name: seen.append(name))
    members[0](torch.zeros(1, 3, 32, 32))
    assert sorted(seen) == ["encoder.0", "encoder.1", "heads.0", "nodes.0_1"]


def test_predictions_of_other_weights_are_made_anew_as_advised(
    trained: list[str], capsys: pytest.CaptureFixture[str], advised: Callable[[str, str], list[str]]
) -> None:
    fold = oof(trained) / "swapped" / "fold1"
    shutil.copytree(oof(trained) / "nested", fold.parent)
    assert cli.main("evaluate", [*trained, "runs=[swapped]", "name=swapped"]) == 0
    spec, state = checkpoint.load(fold / "model.ckpt")
    checkpoint.save(fold / "model.ckpt", spec, {name: value * 2 for name, value in state.items()})
    assert cli.main("evaluate", [*trained, "runs=[swapped]", "name=swapped"]) == 1
    said = capsys.readouterr().err
    (fold / "scores.csv").unlink()
    assert f"delete {fold / 'scores.csv'}, then" in said
    assert cli.main("train", advised(said, "train")) == 0
    assert cli.main("evaluate", [*trained, "runs=[swapped]", "name=swapped"]) == 0


def test_the_pruned_runs_configuration_says_how_its_predictions_were_made(trained: list[str]) -> None:
    overrides = [*trained, "runs=[nested]", "folds=all", "evaluate.depths=1", "predict.size=12", "predict.tta=flips"]
    assert cli.main("evaluate", overrides) == 0
    own, parent = (OmegaConf.load(oof(trained) / run / "fold0" / "config.yaml") for run in ("nested_fast", "nested"))
    assert (own.predict.size, own.predict.tta, own.model.depth) == (12, "flips", 1)
    assert (parent.predict.size, parent.predict.tta) == (0, "none")
    assert own.train == parent.train
    assert cli.main("evaluate", [*trained, "runs=[nested_fast]", "folds=all", "name=sized"]) == 0
    assert Ensemble.read(Ensemble.place(oof(trained).parent, "custom", "sized")).size == 12


def test_a_depth_predicts_what_its_head_says(trained: list[str]) -> None:
    assert cli.main("evaluate", [*trained, "runs=[nested]", "folds=all", "evaluate.depths=1"]) == 0
    pruned = Member.load(oof(trained) / "nested_fast" / "fold0" / "model.ckpt").network
    whole = Member.load(oof(trained) / "nested" / "fold0" / "model.ckpt").network
    assert isinstance(whole, UNetPlusPlus)
    image = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(pruned(image), whole.outputs(image, 4)[0])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["runs=[plain]", "folds=[0]"], "only unetpp has depths"),
        (["runs=[nested]", "folds=all", "evaluate.depths=-1"], "evaluate.depths=-1"),
    ],
)
def test_what_can_not_be_pruned_is_said(
    trained: list[str], more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main("evaluate", [*trained, "evaluate.depths=0.01", *more]) == 2
    assert message in capsys.readouterr().err


def test_a_run_that_was_trained_under_the_name_is_not_replaced(
    trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    own = oof(trained) / "nested_fast"
    (own / "depths.csv").unlink(missing_ok=True)
    own.mkdir(exist_ok=True)
    assert cli.main("evaluate", [*trained, "runs=[nested]", "folds=all", "evaluate.depths=0.01"]) == 1
    assert "trained under this name" in capsys.readouterr().err


def test_depths_are_refused_by_a_limit_before_anything_is_predicted(
    trained: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [*trained, "runs=[nested]", "folds=all", "evaluate.depths=0.01"]
    shutil.rmtree(oof(trained) / "nested_fast", ignore_errors=True)  # another test's, of whatever kind
    predicted: list[object] = []
    monkeypatch.setattr(depths, "predict_samples", lambda *jobs: predicted.append(jobs))
    assert cli.main("evaluate", [*asked, "limits.memory=1M"]) == 1
    shown = capsys.readouterr()
    assert "evaluate.depths: memory about" in shown.out
    assert "evaluate.depths would need memory" in shown.err
    assert cli.main("evaluate", [*asked, "limits.disk=1k"]) == 1
    assert "evaluate.depths would need disk" in capsys.readouterr().err
    assert not predicted
    assert not list(oof(trained).glob(".nested_fast*"))


def test_what_a_killed_process_left_of_other_depths_goes(trained: list[str]) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    left = oof(trained) / f".nested_fast.{HOST}-{process.pid}{TEMPORARY}"
    (left / "L1").mkdir(parents=True)
    for path in (left / "L1", left):
        os.utime(path, (0, 0))
    shutil.rmtree(oof(trained) / "nested_fast", ignore_errors=True)  # another test's, of whatever kind
    assert cli.main("evaluate", [*trained, "runs=[nested]", "folds=all", "evaluate.depths=1"]) == 0
    assert not left.exists()
