"""The verbs: what each does and reads, the function behind it, and how to go on when it was interrupted."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from histofold.config import Config


@dataclass(frozen=True)
class Usage:
    """What help says of a verb beside its text.

    Attributes:
        example: overrides of a typical command.
        keys: settings, or groups of them, that it reads, as configs/config.yaml calls them.
        choices: folders of configs/ that it chooses from.
    """

    example: tuple[str, ...]
    keys: tuple[str, ...] = ()
    choices: tuple[str, ...] = ("competition",)


@dataclass(frozen=True)
class Command:
    """One verb of the command line.

    Attributes:
        target: `module:function`; imported when it runs, because torch alone takes seconds.
        text: one line for help.
        again: what a person does after Ctrl-C.
        groups: the choices whose options are checked against the classes before anything runs.
        usage: for help.
    """

    target: str
    text: str
    again: str
    groups: tuple[str, ...] = ()
    usage: Usage = Usage(())

    def function(self) -> Callable[[Config], None]:
        """Import the function behind the verb."""
        module, _, name = self.target.partition(":")
        function: Callable[[Config], None] = getattr(importlib.import_module(module), name)
        return function


KEPT = "what is finished is kept, the same command goes on from there"
CHOSEN = ("competition", "experiment", "limits")
"""What most verbs choose."""

DSB = "competition=dsb2018"
"""The competition of the examples, unless they need another one."""

DEMO = "the whole way on the embedded sample, slides (competition=demo_kidney) or images (competition=demo_nuclei)"
"""What `demo` does, which has no configuration of its own but runs the other verbs."""

DEMO_USAGE = Usage(("competition=demo_nuclei",), (), ())

COMMANDS: dict[str, Command] = {
    "download": Command(
        "histofold.kaggle.download:download",
        "fetch the competition's files from Kaggle into input/",
        KEPT,
        usage=Usage((DSB,)),
    ),
    "prepare": Command(
        "histofold.tiles.run:prepare",
        "raw files → folds.csv and a store of tiles or images",
        KEPT,
        usage=Usage((DSB,), ("folds", "shard", "prepare"), CHOSEN),
    ),
    "train": Command(
        "histofold.training.run:train",
        "train one fold (-m fold=0,1,2,3,4: all) and predict the samples it has not seen",
        "the same command goes on from last.ckpt",
        ("model", "target"),
        Usage(
            (DSB, "model=unet", "fold=0"),
            ("fold", "folds", "seed", "run", "resume", "train", "predict", "evaluate.workers"),
            (*("model", "target", "loss", "augment", "optimizer", "instances"), *CHOSEN),
        ),
    ),
    "evaluate": Command(
        "histofold.evaluation.run:evaluate",
        "the leaderboard of runs, or the CV and the thresholds of runs=[a,b] as an ensemble",
        "nothing was changed, the same command starts again",
        ("instances",),
        Usage((DSB, "runs=[unet,fullnet]", "name=both"), ("runs", "name", "folds", "evaluate"), ("instances", *CHOSEN)),
    ),
    "predict": Command(
        "histofold.submission.run:predict",
        "average the ensemble's members over the test set, or over images=FOLDER",
        KEPT,
        usage=Usage(
            (DSB, "name=unet", "images=FOLDER"),
            ("name", "images", "shard", "predict", "submit.min_area", "submit.max_hole"),
            CHOSEN,
        ),
    ),
    "submit": Command(
        "histofold.submission.run:submit",
        "instances, RLE, submission.csv, validation; submit.send=true sends it",
        KEPT,
        usage=Usage((DSB, "name=unet", "submit.send=true"), ("name", "submit", "evaluate.workers"), CHOSEN),
    ),
    "kernel": Command(
        "histofold.kaggle.export:kernel",
        "a notebook and a dataset that make the submission on Kaggle; kernel.push=true sends and submits them",
        "the same command makes them anew",
        usage=Usage(
            ("competition=hubmap_kidney", "name=unet", "kernel.push=true"),
            ("name", "kernel", "predict", "submit.min_area", "submit.max_hole"),
            ("competition", "experiment"),
        ),
    ),
    "report": Command(
        "histofold.report.run:report",
        "one HTML page of curves, CV and overlays",
        KEPT,
        usage=Usage((DSB, "name=unet"), ("name", "evaluate.workers")),
    ),
    "validate": Command(
        "histofold.kaggle.check:check",
        "check a submission CSV: name=NAME or file=PATH",
        "nothing was changed",
        usage=Usage((DSB, "file=submission.csv"), ("file", "name", "prepare.workers")),
    ),
}
"""Every verb that takes a configuration."""
