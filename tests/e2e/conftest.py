"""One small run of the whole pipeline, shared by the tests that look at what it left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from histofold.cli import main

SMALL = [
    "model=unet",
    "model.width=4",
    "model.norm=batch",
    "train.crop=64",
    "train.batch=4",
    "train.samples_per_epoch=16",
    "train.epochs=2",
    "train.workers=0",
    "train.validate_every=1",
    "train.precision=32-true",
    "train.accelerator=cpu",
    "train.loggers=[tensorboard]",
    "predict.tta=none",
    "predict.device=cpu",
    "evaluate.workers=1",
    "evaluate.bootstrap=50",
    "prepare.workers=1",
]
"""A network and a budget that only show that the way of the data is right."""


class World:
    """Folders of its own for one test session, and the verbs on them."""

    def __init__(self, root: Path, competition: str) -> None:
        self.root = root
        self.competition = competition

    def overrides(self, *more: str) -> list[str]:
        """Overrides of every verb: this world's places, the small budget, then `more`."""
        names = ("input", "prepared", "oof", "submissions")
        places = [f"paths.{name}={self.root / name}" for name in names]
        return [f"competition={self.competition}", *places, *SMALL, *more]

    def run(self, verb: str, *more: str) -> int:
        """Run a verb in this process; gives the exit code."""
        return main(verb, self.overrides(*more))

    @property
    def oof(self) -> Path:
        """Runs of the competition."""
        return self.root / "oof" / self.competition

    @property
    def prepared(self) -> Path:
        """Folds and stores of the competition."""
        return self.root / "prepared" / self.competition

    @property
    def submission(self) -> Path:
        """The submission of the ensemble `both`."""
        return self.root / "submissions" / self.competition / "both"


def finished(root: Path, competition: str, prepared_demo: Callable[[str, Path], None]) -> World:
    """A world in which every verb has run."""
    world = World(root, competition)
    prepared_demo(competition, root)
    assert world.run("prepare") == 0
    for run in ("first", "second"):
        for fold in (0, 1):
            seed = f"seed={int(run == 'second')}"
            assert world.run("train", f"run={run}", f"fold={fold}", seed) == 0
    assert world.run("evaluate", "runs=[first,second]", "folds=all", "name=both") == 0
    assert world.run("predict", "name=both") == 0
    assert world.run("submit", "name=both") == 0
    return world


@pytest.fixture(scope="session")
def nuclei(tmp_path_factory: pytest.TempPathFactory, prepared_demo: Callable[[str, Path], None]) -> World:
    """Everything on the embedded nuclei."""
    return finished(tmp_path_factory.mktemp("nuclei"), "demo_nuclei", prepared_demo)


@pytest.fixture(scope="session")
def kidney(tmp_path_factory: pytest.TempPathFactory, prepared_demo: Callable[[str, Path], None]) -> World:
    """Everything on the embedded slides."""
    return finished(tmp_path_factory.mktemp("kidney"), "demo_kidney", prepared_demo)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What was printed to both streams since the last call."""

    def text() -> str:
        captured = capsys.readouterr()
        return captured.out + captured.err

    return text
