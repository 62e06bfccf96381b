"""`-m` through the real launchers: local SLURM stand-in and a local Ray; skipped where they are not installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
LAUNCHERS = {"submitit_local": "hydra_submitit_launcher", "ray": "hydra_ray_launcher"}


def has_plugin(name: str) -> bool:
    return importlib.util.find_spec("hydra_plugins") is not None and (
        importlib.util.find_spec(f"hydra_plugins.{name}") is not None
    )


@pytest.fixture
def own_images(tmp_path: Path) -> Path:
    """A folder competition of six small images with one square each."""
    import cv2

    for index in range(6):
        image = np.full((48, 48, 3), 40 * index, np.uint8)
        labels = np.zeros((48, 48), np.uint8)
        labels[8:20, 8:20] = 1
        for folder, array in (("images", image), ("labels", labels)):
            path = tmp_path / "input" / "custom" / folder / f"s{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), array)
    return tmp_path


def prepare(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return call("prepare", place, "-m", *arguments)


def call(
    verb: str, place: Path, *arguments: str, competition: str = "folders", crop: int = 32
) -> subprocess.CompletedProcess[str]:
    """One verb on the files in `place`."""
    overrides = [f"competition={competition}", "prepare.n_folds=2", "prepare.workers=1", f"train.crop={crop}"]
    for name in ("input", "oof", "submissions"):
        overrides.append(f"paths.{name}={place / name}")
    overrides.append(f"paths.prepared={place / 'prepared'}")
    return subprocess.run(
        [sys.executable, str(ROOT / "src" / f"{verb}.py"), *overrides, *arguments],
        cwd=place,
        env={**os.environ, "RAY_DISABLE_IMPORT_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_jobs_through_a_launcher(own_images: Path, launcher: str) -> None:
    if not has_plugin(LAUNCHERS[launcher]):
        pytest.skip("pip install -r requirements-cluster.txt")
    result = prepare(own_images, "shard=0/2,1/2", f"hydra/launcher={launcher}")
    assert result.returncode == 0, result.stderr
    assert "2 of 2 jobs done" in result.stderr
    assert len(list((own_images / "prepared" / "custom" / "whole" / "pixels").glob("*.npy"))) == 6
    assert sorted(path.name for path in own_images.iterdir()) == ["input", "oof", "prepared"]
    assert list((own_images / "oof").iterdir()) == []


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder; records of when and where something was made are no results."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_four_shards_give_the_bytes_of_one_machine(own_images: Path, launcher: str) -> None:
    if not has_plugin(LAUNCHERS[launcher]):
        pytest.skip("pip install -r requirements-cluster.txt")
    alone = own_images.with_name(f"{own_images.name}_alone")
    shutil.copytree(own_images, alone)
    network = ["model=kidney_segnet", "model.width=4", "model.size=32", "run=k"]
    shards = ["-m", "shard=0/4,1/4,2/4,3/4", f"hydra/launcher={launcher}"]
    results = []
    for place, extra in ((alone, []), (own_images, shards)):
        steps = [
            ("prepare", extra),
            ("train", [*network, "train.epochs=1", "train.samples_per_epoch=8", "train.workers=0"]),
            ("evaluate", ["runs=[k]", "folds=[0]", "name=k"]),
            # The same folder both times: band files tell which file they were made from.
            ("predict", ["name=k", f"images={own_images / 'input' / 'custom' / 'images'}", *extra]),
        ]
        for verb, arguments in steps:
            result = call(verb, place, *arguments)
            assert result.returncode == 0, result.stderr
        submitted = place / "submissions"
        bands = {name: data for name, data in contents(submitted).items() if name.endswith(".tif")}
        results.append((contents(place / "prepared"), bands))
    assert len(results[0][1]) >= 6
    assert results[0] == results[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_slides_in_shards_give_the_bytes_of_one_machine(
    launcher: str, tmp_path: Path, prepared_demo: Callable[[str, Path], None]
) -> None:
    """Six slides are prepared and two predicted, by four and by two jobs of a launcher: tiles, tables and bands."""
    if not has_plugin(LAUNCHERS[launcher]):
        pytest.skip("pip install -r requirements-cluster.txt")
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    prepared_demo("demo_kidney", alone)
    shared.mkdir()
    (shared / "input").symlink_to(alone / "input")
    fan = ["-m", f"hydra/launcher={launcher}"]
    tiny = ["model=unet", "model.width=4", "model.norm=batch", "run=k", "train.epochs=1", "train.samples_per_epoch=8"]
    # The same networks and files both times: band files tell what they were made from.
    given = ["name=k", f"paths.input={alone / 'input'}", f"paths.oof={alone / 'oof'}", "predict.tta=none"]
    steps = [
        (shared, "prepare", [*fan, "shard=0/4,1/4,2/4,3/4"]),
        (alone, "train", [*tiny, "fold=0", "train.workers=0", "train.accelerator=cpu", "train.loggers=[]"]),
        (alone, "evaluate", ["runs=[k]", "folds=[0]", "name=k", "evaluate.bootstrap=20"]),
        (alone, "predict", given),
        (shared, "predict", [*given, *fan, "shard=0/2,1/2"]),
    ]
    for place, verb, arguments in steps:
        result = call(verb, place, *arguments, competition="demo_kidney", crop=64)
        assert result.returncode == 0, result.stderr
    assert contents(alone / "prepared") == contents(shared / "prepared")
    assert len(list((alone / "prepared").rglob("pixels/*.npy"))) == 6
    one, many = (
        {name: data for name, data in contents(place / "submissions").items() if name.endswith(".tif")}
        for place in (alone, shared)
    )
    assert len(one) == 2
    assert one == many


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_failing_job_of_a_launcher(own_images: Path, launcher: str) -> None:
    if not has_plugin(LAUNCHERS[launcher]):
        pytest.skip("pip install -r requirements-cluster.txt")
    result = prepare(own_images, "prepare.n_folds=2,99", f"hydra/launcher={launcher}")
    assert result.returncode != 0
    assert "failed: prepare.n_folds=99: " in result.stderr
    assert "1 of 2 jobs done" in result.stderr


def test_a_launcher_that_is_not_installed_is_one_line(own_images: Path) -> None:
    if has_plugin("hydra_ray_launcher"):
        pytest.skip("it is installed")
    result = prepare(own_images, "shard=0/2,1/2", "hydra/launcher=ray")
    assert result.returncode == 2
    assert result.stderr.startswith("histofold: hydra/launcher=ray: not installed")
    assert "requirements-cluster.txt" in result.stderr
    assert result.stderr.count("\n") == 1


FAKE = """#!/bin/sh
echo "$@" >>"$CALLS"
case "$*" in *"-m venv"*) for last; do :; done; mkdir -p "$last/bin"; cp "$0" "$last/bin/python" ;; esac
"""
"""Stands in for Python: writes down how it was called, and makes an environment of itself."""


def test_all_tests_install_the_launchers_and_the_quick_ones_do_not(tmp_path: Path) -> None:
    shutil.copy(ROOT / "run.sh", tmp_path)
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-cluster.txt"):
        (tmp_path / name).write_text("numpy\n")
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.write_text(FAKE)
    python.chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHON", "HISTOFOLD_VENV")}
    environment |= {"PATH": f"{python.parent}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}
    for arguments, installed in ((["-q"], 0), (["--all", "-q"], 1), (["-q", "--all"], 1)):
        subprocess.run([str(tmp_path / "run.sh"), "test", *arguments], env=environment, check=True, capture_output=True)
        calls = (tmp_path / "calls").read_text()
        assert calls.count("requirements-cluster.txt") == installed, "once, and not again while it is as it was"
        assert f"-m pytest {' '.join(arguments)}\n" in calls
