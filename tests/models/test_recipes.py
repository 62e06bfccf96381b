"""The recipes of configs/experiment/: what their authors used, and one step of each from raw files to scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from histofold import cli, compose, losses, models, targets
from histofold.config import Config
from histofold.inference import checkpoint
from histofold.training.optim import OptimizerOptions, build_optimizer, build_schedule

ADAM = {"name": "adam", "decay_all": True}
UNETPP_ADAM = {"amsgrad": True, "eps": 1e-7}

RAW: dict[str, Any] = {"mean": [0, 0, 0], "std": [1, 1, 1]}
"""Pixels as 0 to 1: no mean, no spread."""

AUTHORS: dict[str, dict[str, Any]] = {
    "kidney_segnet_original": {
        "model": {"name": "kidney_segnet", "size": 512, "width": 32, "decoder": "gated"},
        "target": {"name": "distance", "scale": "image", "activation": "relu"},
        "loss": {"mse": 1.0},
        "optimizer": {**ADAM, "lr": 7e-4, "weight_decay": 7e-4, "schedule": "constant"},
        "instances": {"name": "hminima", "level": 28, "depth": 7, "lines": False},
        "train": {"crop": 512, "batch": 2, "epochs": 1000},
    },
    "glomerulus_unet": {
        "model": {"name": "glomerulus_unet", "width": 64},
        "target": {"name": "foreground"},
        "loss": {"bce": 0.5, "dice": 0.5, "per_image": 1, "smooth": 1e-5},
        "optimizer": {**ADAM, "lr": 5e-5, "weight_decay": 0, "schedule": "step", "every": 25, "factor": 0.1},
        "train": {"crop": 192, "batch": 10, "epochs": 100, "samples_per_epoch": 7664},
        "augment": {**RAW, "flip": 0, "quarter": False},
    },
    "fullnet_nuclei": {
        "model": {"name": "fullnet", "growth": 24, "layers": "basic", "hybrid": True, "pooling": False, "dropout": 0.1},
        "target": {"name": "ternary", "form": "fullnet", "radius": 1},
        "loss": {"varce": 1.0, "variance": 1.0, "sigma": 5.0, "weight0": 10.0},
        "optimizer": {**ADAM, "lr": 1e-3, "weight_decay": 1e-4, "options": {"betas": [0.9, 0.99]}},
        "instances": {"name": "components", "rule": "argmax", "min_core": 20, "dilation": 2, "collision": "higher"},
        "train": {"crop": 208, "batch": 8, "epochs": 300},
        "augment": {"flip": 0.5, "flip_y": 0, "rotate": 90},
    },
    "fullnet_glas": {
        "model": {"name": "fullnet", "growth": 24},
        "target": {"name": "ternary", "form": "fullnet", "radius": 2},
        "loss": {"varce": 1.0, "variance": 1.0, "sigma": 9.1, "weight0": 10.0},
        "optimizer": {**ADAM, "lr": 5e-4, "weight_decay": 1e-4, "options": {"betas": [0.9, 0.99]}},
        "instances": {"name": "components", "rule": "argmax", "min_core": 100, "dilation": 2},
        "train": {"crop": 208, "batch": 8, "epochs": 1000},
        "augment": {"flip": 0.5, "flip_y": 0, "rotate": 90},
    },
    "nuclei_unet": {
        "model": {"name": "unet", "width": 64, "norm": "none"},
        "target": {"name": "foreground"},
        "loss": {"bce": 1.0},
        "optimizer": {**ADAM, "lr": 1e-5, "weight_decay": 0, "schedule": "constant"},
        "instances": {"name": "threshold", "threshold": 0.5},
        "train": {"crop": 256, "batch": 32, "epochs": 20, "samples_per_epoch": 590},
        "augment": {**RAW, "flip": 0, "quarter": False},
    },
    "nuclei_unetpp": {
        "model": {"name": "unetpp", "width": 64, "supervision": "average"},
        "target": {"name": "foreground"},
        "loss": {"bce": 1.0, "dice": 1.0, "smooth": 1.0},
        "optimizer": {**ADAM, "lr": 1e-3, "every": 6, "factor": 0.5, "times": 1, "options": UNETPP_ADAM},
        "train": {"crop": 256, "batch": 10, "epochs": 20, "samples_per_epoch": 500},
        "augment": RAW,
    },
}  # fmt: skip
"""Of each recipe, what the seed notes say that its authors set."""

SHARED = {"clip": 0, "ema": 0, "precision": "32-true"}
"""What no author used: clipped gradients, averaged weights, half precision."""

NARROW = {
    "kidney_segnet_original": ["model.width=4"],
    "glomerulus_unet": ["model.width=4"],
    "fullnet_nuclei": ["model.growth=4"],
    "fullnet_glas": ["model.growth=2"],
    "nuclei_unet": ["model.width=4"],
    "nuclei_unetpp": ["model.width=4"],
}

TINY = [
    "train.crop=32", "train.batch=2", "train.samples_per_epoch=2", "train.epochs=1", "train.workers=0",
    "train.accelerator=cpu", "train.loggers=[]", "train.validate_every=0", "predict.tta=none", "predict.device=cpu",
    "predict.margin=0",
    "evaluate.workers=1", "prepare.workers=1", "prepare.n_folds=2",
]  # fmt: skip


OURS = {"demo", "demo_nuclei", "glomeruli", "gpu", "quick", "monuseg_fullnet"}
"""Experiments that are no authors' own, or another recipe with more: `fullnet_nuclei` with colours normalised."""


def recipe(name: str, *more: str) -> Config:
    return compose.load(compose.compose([f"experiment={name}", *more]))


def test_every_recipe_is_looked_at() -> None:
    files = {path.stem for path in (compose.CONFIGS / "experiment").glob("*.yaml")}
    assert set(AUTHORS) == files - OURS


def test_the_stain_recipe_is_the_authors_but_for_its_colours() -> None:
    plain, stained = (recipe(name, "competition=monuseg") for name in ("fullnet_nuclei", "monuseg_fullnet"))
    for section in ("model", "target", "loss", "optimizer", "instances", "train"):
        assert getattr(stained, section) == getattr(plain, section)
    assert {**plain.augment, "normalise": "reinhard", "reference": stained.augment["reference"]} == stained.augment


@pytest.mark.parametrize("name", sorted(AUTHORS))
@pytest.mark.parametrize("competition", ["dsb2018", "hubmap_kidney", "glas"])
def test_a_recipe_says_what_its_authors_did_on_any_competition(name: str, competition: str) -> None:
    config = recipe(name, f"competition={competition}")
    for section, expected in AUTHORS[name].items():
        found = getattr(config, section)
        found = found if isinstance(found, dict) else vars(found)
        assert {key: found[key] for key in expected} == expected, section
    assert {key: vars(config.train)[key] for key in SHARED} == SHARED
    cli.check_options(config, ["model", "target", "instances"])


@pytest.mark.parametrize("name", sorted(AUTHORS))
def test_the_parts_of_a_recipe_go_together(name: str) -> None:
    config = recipe(name, "competition=dsb2018", *NARROW[name])
    target = targets.build(config.target["name"], **{k: v for k, v in config.target.items() if k != "name"})
    options = {key: value for key, value in config.model.items() if key != "name"}
    network = models.build(config.model["name"], outputs=target.channels, **options)
    losses.build(config.loss, target)
    settings = OptimizerOptions(**config.optimizer)
    optimizer = build_optimizer(network, settings)
    schedule = build_schedule(optimizer, settings, 20 * 50, 50)
    rates = []
    for step in (0, 299, 300, 999):
        schedule.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"] / settings.lr)
    halves = name == "nuclei_unetpp"
    assert rates == pytest.approx([1, 1, 0.5, 0.5] if halves else [1, 1, 1, 1])
    assert "weights" not in options or options["weights"] == "none"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, discs: Path) -> list[str]:
    """Overrides of a competition of four small images with four discs each, prepared at both scales in use."""
    root = tmp_path_factory.mktemp("recipes")
    folders = {name: root / name for name in ("prepared", "oof", "submissions")}
    overrides = ["competition=folders", *(f"paths.{name}={path}" for name, path in folders.items()), *TINY]
    overrides.append(f"paths.input={discs}")
    for name in ("nuclei_unet", "fullnet_glas"):
        assert cli.main("prepare", [*overrides, f"experiment={name}"]) == 0
    return overrides


@pytest.mark.parametrize("name", sorted(AUTHORS))
def test_a_recipe_trains_from_raw_files_to_scores(name: str, places: list[str]) -> None:
    overrides = [*places, *NARROW[name], f"experiment={name}", f"run={name}", "fold=0"]
    assert cli.main("train", overrides) == 0
    oof = next(override for override in places if override.startswith("paths.oof=")).partition("=")[2]
    folder = next(Path(oof).glob(f"*/{name}/fold0"))
    spec, _ = checkpoint.load(folder / "model.ckpt")
    assert spec.model["name"] == AUTHORS[name]["model"]["name"]
    scores = pd.read_csv(folder / "scores.csv")
    assert len(scores) == 2
    assert scores["score"].between(0, 1).all()
    assert np.isfinite(pd.read_csv(folder / "metrics.csv")["loss"]).all()
