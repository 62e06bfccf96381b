"""What all tests share: the option that adds the slow ones, and an environment without a person's secrets."""

from __future__ import annotations

import errno
import io
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

# A kernel that is compiled in a property's first example takes seconds; pytest-timeout ends what hangs.
settings.register_profile("histofold", deadline=None)
settings.load_profile("histofold")

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("HISTOFOLD_QUIET", "1")
os.environ.setdefault("MPLBACKEND", "agg")

pytest_plugins = ["fake_kaggle", "kaggle_tree"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the tests marked slow, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # A test that is named on the command line runs, slow or not.
    if config.getoption("--all") or any("::" in str(argument) for argument in config.args):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`paths.input` of competition=folders: four images of 80 × 88 pixels with four discs each."""
    root = tmp_path_factory.mktemp("discs")
    for folder in ("images", "labels"):
        (root / "custom" / folder).mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(4):
        labels = np.zeros((80, 88), np.uint16)
        for label, (y, x) in enumerate([(20, 20), (20, 60), (60, 22), (58, 64)], 1):
            cv2.circle(labels, (x, y), 12, label, -1)
        image = np.where(labels[..., None] > 0, 90, 220) + random.integers(-20, 20, (80, 88, 3))
        cv2.imwrite(str(root / "custom" / "images" / f"{number}.png"), image.astype(np.uint8))
        cv2.imwrite(str(root / "custom" / "labels" / f"{number}.png"), labels)
    pd.DataFrame({"id": range(4), "group": range(4)}).to_csv(root / "custom" / "index.csv", index=False)
    return root


@pytest.fixture(scope="session")
def prepared_demo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], None]:
    """Puts input and store of a demo competition into a folder; each is prepared once for all tests."""
    made: dict[str, Path] = {}

    def give(competition: str, root: Path) -> None:
        from histofold.cli import main

        if competition not in made:
            made[competition] = tmp_path_factory.mktemp(f"prepared-{competition}")
            places = [f"paths.{name}={made[competition] / name}" for name in ("input", "prepared")]
            assert main("prepare", [f"competition={competition}", "prepare.workers=1", *places]) == 0
        shutil.copytree(made[competition], root, dirs_exist_ok=True)

    return give


@pytest.fixture(scope="session")
def advised() -> Callable[[str, str], list[str]]:
    """The overrides of the one command for a verb that a message has between backticks."""

    def overrides(message: str, verb: str) -> list[str]:
        found = re.search("`(.*)`", message)
        assert found is not None, message
        door, named, *words = shlex.split(found[1])
        assert (door, named) == ("./run.sh", verb)
        return words

    return overrides


class _Disk(io.RawIOBase):
    """A file on a disk that has room for so many bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = min(len(data), self.room)
        self.room -= written
        return written


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """A context in which every file that is written finds room for so many bytes."""

    @contextmanager
    def limited(room: int) -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", lambda self, mode: io.BufferedWriter(_Disk(room)))
            yield

    return limited
