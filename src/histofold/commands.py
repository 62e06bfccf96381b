"""The verbs: what each does, the function behind it, and how to go on when it was interrupted."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from histofold.config import Config


@dataclass(frozen=True)
class Command:
    """One verb of the command line.

    Attributes:
        target: `module:function`; imported when it runs, because torch alone takes seconds.
        text: one line for help.
        again: what a person does after Ctrl-C.
        groups: the choices whose options are checked against the classes before anything runs.
    """

    target: str
    text: str
    again: str
    groups: tuple[str, ...] = ()

    def function(self) -> Callable[[Config], None]:
        """Import the function behind the verb."""
        module, _, name = self.target.partition(":")
        function: Callable[[Config], None] = getattr(importlib.import_module(module), name)
        return function


KEPT = "what is finished is kept, the same command goes on from there"

COMMANDS: dict[str, Command] = {
    "download": Command(
        "histofold.kaggle.download:download", "fetch the competition's files from Kaggle into input/", KEPT
    ),
    "prepare": Command("histofold.tiles.run:prepare", "raw files → folds.csv and a store of tiles or images", KEPT),
    "train": Command(
        "histofold.training.run:train",
        "train one fold (-m fold=0,1,2,3,4: all) and predict the samples it has not seen",
        "the same command goes on from last.ckpt",
        ("model", "target"),
    ),
    "evaluate": Command(
        "histofold.evaluation.run:evaluate",
        "the leaderboard of runs, or the CV and the thresholds of runs=[a,b] as an ensemble",
        "nothing was changed, the same command starts again",
        ("instances",),
    ),
    "predict": Command(
        "histofold.submission.run:predict",
        "average the ensemble's members over the test set, or over images=FOLDER",
        KEPT,
    ),
    "submit": Command(
        "histofold.submission.run:submit", "instances, RLE, submission.csv, validation; submit.send=true sends it", KEPT
    ),
    "kernel": Command(
        "histofold.kaggle.export:kernel",
        "a notebook and a dataset that make the submission on Kaggle; kernel.push=true sends and submits them",
        "the same command makes them anew",
    ),
    "report": Command("histofold.report.run:report", "one HTML page of curves, CV and overlays", KEPT),
    "validate": Command(
        "histofold.kaggle.check:check", "check a submission CSV: name=NAME or file=PATH", "nothing was changed"
    ),
}
"""Every verb that takes a configuration."""
