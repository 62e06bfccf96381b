"""A folder tree like Kaggle's in which an exported notebook runs, and an ensemble that finds something to compare."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from histofold.inference.bandfile import BandFile
from histofold.inference.ensemble import Ensemble

BLOCKED = ("hydra", "omegaconf", "lightning", "albumentations", "pandas", "sklearn", "matplotlib", "kaggle", "pyarrow")
GUARD = f"""
import importlib.abc, socket, sys

class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        own = name.startswith(("histofold.training", "histofold.evaluation", "histofold.compose", "histofold.report"))
        if own or name.split(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError("blocked: " + name, name=name)

def refuse(*given, **named):
    raise OSError("no network here")

sys.meta_path.insert(0, Wall())
socket.socket.connect = socket.socket.connect_ex = refuse
socket.create_connection = socket.getaddrinfo = refuse
"""
"""Stands before the notebook's cells: a name or an address that an offline notebook does not need is an error."""


def find_something(world: Any, name: str) -> None:
    """Set the threshold where a tenth of the pixels are foreground: equal files of empty rows would prove little."""
    values = []
    for path in (world.root / "submissions" / world.competition / name / "predictions").glob("*.tif"):
        with BandFile(path) as file:
            values.append(file.read()["foreground"].ravel())
    level = float(np.quantile(np.concatenate(values), 0.9))
    oof = world.root / "oof"
    ensemble = Ensemble.read(Ensemble.place(oof, world.competition, name))
    if ensemble.instances is None:
        replace(ensemble, threshold=level).write(oof)
    else:
        replace(ensemble, instances={"name": "threshold", "threshold": level}, strata={}).write(oof)


class Machine:
    """A folder tree like Kaggle's: input/ that nobody writes into, an empty working/, and a temporary folder."""

    def __init__(self, root: Path, source: Path, kernel: Path, slug: str) -> None:
        self.input, self.working, self.scratch = root / "input", root / "working", root / "tmp"
        shutil.copytree(source, self.input / slug)
        (self.input / slug / "hidden_truth.csv").unlink(missing_ok=True)
        (self.input / slug / "stage1_solution.csv").unlink(missing_ok=True)
        self.dataset = self.input / "datasets" / "tester" / "some-slug"
        shutil.copytree(kernel / "dataset", self.dataset)
        (self.dataset / "dataset-metadata.json").unlink()
        self.working.mkdir()
        self.scratch.mkdir()
        self.cells = _cells(kernel)

    def run(self) -> subprocess.CompletedProcess[str]:
        """Run the notebook's cells in a process that knows neither this repository nor a network."""
        lock(self.input)
        before = listing(self.input)
        program = self.working.parent / "cells.py"
        program.write_text(GUARD + "\n\n".join(self.cells))
        keep = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS") if name in os.environ}
        places = {"HISTOFOLD_INPUT": self.input, "HISTOFOLD_WORKING": self.working, "TMPDIR": self.scratch}
        done = subprocess.run(
            [*isolation(), sys.executable, "-I", str(program)],
            env={**keep, **{key: str(path) for key, path in places.items()}, "HOME": str(self.scratch)},
            cwd=self.working,
            capture_output=True,
            text=True,
            check=False,
        )
        assert [one for one in listing(self.input) if one not in before] == []
        return done


def isolation() -> list[str]:
    """A prefix that takes the network away altogether, where this machine allows it."""
    prefix = ["unshare", "--net", "--map-root-user"]
    if shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
        return prefix
    return []


def _cells(kernel: Path) -> list[str]:
    content = json.loads((kernel / "notebook.ipynb").read_text())
    return [cell["source"] for cell in content["cells"] if cell["cell_type"] == "code"]


def lock(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))


def unlock(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode | stat.S_IWUSR)


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """Root may write anywhere, so that nothing was written is looked up."""
    files = sorted(path for path in folder.rglob("*"))
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Any]:
    roots: list[Path] = []

    def make(world: Any, kernel: Path | None = None, slug: str = "") -> Machine:
        source = world.root / "input" / world.competition
        found = Machine(tmp_path / "kaggle", source, kernel or world.kernel, slug or world.competition)
        roots.append(found.input)
        return found

    yield make
    for root in roots:
        unlock(root)
