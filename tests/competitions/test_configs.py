"""configs/competition: what a competition chooses, the command line and an experiment can still change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from histofold import cli, competitions, instances, targets
from histofold.compose import CONFIGS, compose, load


@pytest.mark.parametrize("name", competitions.names())
def test_every_competition_composes_and_opens(name: str, tmp_path: Path) -> None:
    config = load(compose([f"competition={name}"]))
    competition = competitions.open(config.competition, tmp_path)
    # Every option of the adapter stands in the YAML, so that the command line can set it.
    assert set(config.competition.options) == {*type(competition).defaults, "folder"}
    assert config.prepare.kind == ("tiles" if competition.kind == "slides" else "whole")
    # What is set, as without files nobody knows whether labels are merged.
    by_pixel = competition.truth == "mask" or competition.settings.get("metric") == "dice"
    # What earned its place out of fold on DSB 2018 is the default there, and nowhere else.
    measured = name in ("dsb2018", "dsb2018_files", "nuclei_590")
    expected = "foreground" if by_pixel else "border_distance" if measured else "border"
    assert (config.target["name"], config.predict.size) == (expected, 36 if measured else 0)
    # Opened by name, without Hydra, it is the same.
    assert competitions.open(name, tmp_path).settings == competition.settings


def test_the_command_line_wins() -> None:
    config = load(compose(["competition=dsb2018", "target=foreground", "train.crop=96", "prepare.n_folds=3"]))
    assert (config.target["name"], config.train.crop, config.prepare.n_folds) == ("foreground", 96, 3)
    derived = load(compose(["competition=glomeruli", "target=distance", "competition.options.stratum=null"]))
    assert (derived.target["name"], derived.competition.options["stratum"]) == ("distance", None)


@pytest.mark.parametrize("name", ["nuclei_unet", "nuclei_unetpp", "fullnet_nuclei", "kidney_segnet_original"])
def test_recipes_of_the_authors_see_images_as_they_are(name: str) -> None:
    assert load(compose(["competition=dsb2018", f"experiment={name}"])).predict.size == 0


def test_an_experiment_wins(tmp_path: Path) -> None:
    configs = tmp_path / "configs"
    shutil.copytree(CONFIGS, configs)
    (configs / "experiment").mkdir(exist_ok=True)
    (configs / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /target: ternary\ntrain:\n  crop: 80\n"
    )
    for name in ("dsb2018", "glomeruli"):
        config = load(compose([f"competition={name}", "experiment=mine"], configs))
        assert (config.target["name"], config.train.crop) == ("ternary", 80)


def test_the_recipe_for_glomeruli() -> None:
    config = load(compose(["experiment=glomeruli"]))
    cli.check_options(config, ["model", "target", "instances"])
    assert (config.competition.name, config.prepare.scale, config.prepare.n_folds) == ("glomeruli", 8, 3)
    assert (config.model["name"], config.augment["normalise"]) == ("smp", "reinhard")
    # The decoder reads bands that the target gives, so that glomeruli that touch come apart.
    options = {key: value for key, value in config.target.items() if key != "name"}
    bands = [band.name for band in targets.build(config.target["name"], **options).bands]
    assert {"foreground", "distance"} <= set(instances.resolve(config.instances, bands).needs) <= set(bands)
    changed = load(
        compose(["experiment=glomeruli", "model=glomerulus_unet", "train.epochs=8", "augment.normalise=none"])
    )
    assert (changed.model["name"], changed.train.epochs, changed.train.crop) == ("glomerulus_unet", 8, 96)
    assert changed.augment["normalise"] == "none"
