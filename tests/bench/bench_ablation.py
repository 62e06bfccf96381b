"""What each part is worth on real nuclei, at one fixed budget of training, from out-of-fold predictions only.

    HISTOFOLD_DATA=… ./run.sh bench ablation --work ABLATION --epochs 20 --samples 1000
    HISTOFOLD_DATA=… ./run.sh bench ablation --work AUGMENT --rows augment --epochs 8 --samples 500
    HISTOFOLD_DATA=… ./run.sh bench ablation --work STAIN --rows stain --data DATA/monuseg2018_test
    HISTOFOLD_DATA=… ./run.sh bench ablation --work TRIAL --tiny        # to see that it runs

foreground → + border → + distance → + tuned decoder → + TTA → + second seed → + second fold set → + second level: each
row is the row above it and one thing more. Ten trainings (two folds for each of three targets, a second seed and a
second fold set); every network has the same budget. The verbs run as a user would run them, so a run that broke off
goes on when the same command is given again. The two last rows average out-of-fold predictions of two fold sets, which
`evaluate` refuses to mix in one ensemble; they come from the same saved files through the package.

`--rows augment` and `--rows stain` compare other augmentations and stain preprocessing with the default instead, one
change at a time, each trained on both folds, decoders tuned. The labels of the H&E sets that `stain` is for are
components of binary masks: they are taken as merged, so Dice ranks and instance scores are marked. `--no-merged` where
labels tell touching nuclei apart.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from histofold import compose
from histofold.evaluation import secondrun
from histofold.evaluation.crossfit import TOO_FEW, interval
from histofold.evaluation.oof import MeanBands, find_run, predictions
from histofold.evaluation.tune import Members, tune
from histofold.metrics.merged import MARK, NOTE, marked
from histofold.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
SHOWN = ("ap50", "ap75", "ap90", "f1_50", "pq", "aji", "dice")
FOLDS = (0, 1)
ASIDE = "or "
"""How rows begin that are compared with the row above and that no later row builds on."""
SIZE = 36
"""Pixels that nuclei are magnified to in one row."""
SECOND = "second"
"""Name of the second fold set."""
CHANGES: dict[str, dict[str, tuple[str, ...]]] = {
    "augment": {
        "scale as it is": ("augment.scale=[1.0,1.0]",),
        "no channel shuffle, inversion, grey": ("augment.shuffle=0", "augment.invert=0", "augment.grey=0"),
        "copy-paste": ("augment.copy_paste=0.3",),
        "mosaic": ("augment.mosaic=0.3",),
        "stain jitter": ("augment.stain=0.3",),
    },
    "stain": {
        "stain jitter": ("augment.stain=0.5",),
        "Reinhard": ("augment.normalise=reinhard", "augment.reference={first}"),
        "Macenko": ("augment.normalise=macenko", "augment.reference={first}"),
    },
}
"""What `--rows` compares with the default: a row's name and its overrides; {first} is the first image's name."""


@dataclass
class Ablation:
    """A folder with everything, and the rows found so far.

    Attributes:
        work: data, runs and tables lie below it.
        budget: overrides that every training shares.
        merged: the labels are components of a binary mask.
        tables: name of a row → its scores, one row a sample.
        minutes: of each row, what it took beyond the row above.
    """

    work: Path
    data: Path
    budget: tuple[str, ...]
    merged: bool = False
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    minutes: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    @property
    def common(self) -> list[str]:
        """Overrides of every verb."""
        places = [f"paths.{name}={self.work / name}" for name in ("input", "prepared", "oof", "submissions")]
        data = [f"competition.options.folder={self.data}", f"competition.options.merged={str(self.merged).lower()}"]
        return ["competition=dsb2018_files", *data, *places, "prepare.n_folds=2", *self.budget]

    @property
    def runs(self) -> Path:
        """Folder of the runs."""
        return self.work / "oof" / "dsb2018_files"

    def verb(self, name: str, *overrides: str) -> None:
        """Run a verb in a process of its own.

        Raises:
            SystemExit: it failed.
        """
        command = [sys.executable, str(ROOT / "src" / f"{name}.py"), *self.common, *overrides]
        print(f"$ {name}.py {' '.join(overrides)}", flush=True)
        done = subprocess.run(command, cwd=ROOT, check=False)
        if done.returncode:
            raise SystemExit(f"{name} failed with {done.returncode}")

    def train(self, run: str, *overrides: str) -> None:
        """Train both folds of a run, or find them done."""
        for fold in FOLDS:
            self.verb("train", f"run={run}", f"fold={fold}", *overrides)

    def evaluate(self, row: str, *overrides: str) -> None:
        """A row of the table by `evaluate`."""
        name = f"row{len(self.tables) + 1}"
        self.verb("evaluate", f"name={name}", *overrides)
        self.keep(row, pd.read_csv(self.runs / "ensembles" / f"{name}.csv", dtype={"sample_id": str}))

    def keep(self, row: str, table: pd.DataFrame) -> None:
        """Note a row's scores and the time since the last one."""
        now = time.monotonic()
        self.tables[row], self.minutes[row], self.began = table, (now - self.began) / 60, now
        self.print()

    def print(self) -> None:
        """Print the table as Markdown, and write it."""
        competition = Workspace(compose.load(compose.compose(self.common))).competition
        text = table_of(self.tables, self.minutes, competition.metric, competition.merged)
        (self.work / "ablation.md").write_text(text, encoding="utf-8")
        print(f"\n{text}", flush=True)


def table_of(tables: dict[str, pd.DataFrame], minutes: dict[str, float], metric: str, merged: bool) -> str:
    """Rows with their cross-fitted score, its change against the row above with an interval, and other metrics.

    Args:
        tables, minutes: of each row.
        metric: that `score` is.
        merged: marks instance scores.
    """
    shown = [marked(name, merged) for name in SHOWN]
    head = ["", f"{marked(metric, merged)}, cross-fitted", "change", "95 % of the change", *shown, "minutes"]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    before: pd.DataFrame | None = None
    for row, table in tables.items():
        change, spread = "", ""
        if before is not None:
            both = table.merge(before[["sample_id", "score"]], on="sample_id", suffixes=("", "_before"))
            gain = (both["score"] - both["score_before"]).to_numpy(np.float64)
            ends = interval(gain, both["group"].to_numpy(str))
            change, spread = f"{gain.mean():+.4f}", f"{ends[0]:+.4f} to {ends[1]:+.4f}" if ends else TOO_FEW
        values = [f"{table[name].mean():.4f}" for name in ("score", *SHOWN)]
        lines.append(" | ".join([row, values[0], change, spread, *values[1:], f"{minutes[row]:.1f}"]))
        before = before if row.startswith(ASIDE) else table
    table = "\n".join(f"| {line} |" for line in lines) + "\n"
    return f"{table}\n{NOTE.replace(MARK, chr(92) + MARK, 1)}\n" if merged else table


def ablate(ablation: Ablation) -> None:
    """All rows."""
    untuned, views = "evaluate.tune=false", "predict.tta=flips"
    # `+ distance` is learnt and decoded; beside it, what learning it gives to the other bands under the decoder above.
    ablation.verb("prepare")
    ablation.train("foreground", "target=foreground")
    ablation.evaluate("foreground", "target=foreground", "runs=[foreground]", untuned)
    ablation.train("border", "target=border")
    ablation.evaluate("+ border", "target=border", "runs=[border]", untuned)
    ablation.train("distance", "target=border_distance")
    ablation.evaluate("+ distance", "target=border_distance", "runs=[distance]", untuned)
    target = "target=border_distance"
    ablation.evaluate(f"{ASIDE}decoded from the border", target, "instances=watershed", "runs=[distance]", untuned)
    ablation.evaluate("+ tuned decoder", target, "runs=[distance]")
    again(ablation.runs, "distance", "distance_size")
    ablation.train("distance_size", target, f"predict.size={SIZE}")
    sized = [target, "runs=[distance_size]", f"predict.size={SIZE}"]
    ablation.evaluate(f"{ASIDE}with nuclei magnified to {SIZE} px", *sized)
    again(ablation.runs, "distance", "distance_tta")
    ablation.train("distance_tta", target, views)
    ablation.evaluate("+ TTA", target, "runs=[distance_tta]", views)
    ablation.train("distance_seed", target, views, "seed=1")
    ablation.evaluate("+ second seed", target, "runs=[distance_tta,distance_seed]", views)
    ablation.verb("prepare", f"folds={SECOND}", "prepare.fold_seed=1")
    ablation.train("distance_folds", target, views, f"folds={SECOND}")
    two_fold_sets(ablation, ["distance_tta", "distance_seed"], "distance_folds", [target, views])


def compare(ablation: Ablation, changes: dict[str, tuple[str, ...]]) -> None:
    """The default, and each change of it alone."""
    ablation.verb("prepare")
    first = str(pd.read_csv(ablation.data / "index.csv", dtype=str)["id"].iloc[0])
    ablation.train("default", "target=border")
    ablation.evaluate("default", "target=border", "runs=[default]")
    for number, (row, overrides) in enumerate(changes.items(), 1):
        changed = [override.format(first=first) for override in overrides]
        ablation.train(f"change{number}", "target=border", *changed)
        ablation.evaluate(f"{ASIDE}{row}", "target=border", f"runs=[change{number}]")


def again(runs: Path, old: str, new: str) -> None:
    """Copy a run's weights, so that `train` predicts them anew with other views and learns nothing again."""
    for fold in FOLDS:
        source, place = runs / old / f"fold{fold}", runs / new / f"fold{fold}"
        if (place / "model.ckpt").exists():
            continue
        place.mkdir(parents=True, exist_ok=True)
        for name in ("metrics.csv", "config.yaml", "model.ckpt"):
            shutil.copyfile(source / name, place / name)


def two_fold_sets(ablation: Ablation, first: Sequence[str], other: str, overrides: Sequence[str]) -> None:
    """Rows of the mean with a run of the second fold set, and of the second level on it.

    Each sample's predictions come from networks that did not see it, whichever fold set they belong to. Settings are
    cross-fitted over the first fold set.
    """
    workspace = Workspace(compose.load(compose.compose([*ablation.common, *overrides])))
    tables = {name: train_rows(workspace, name) for name in ("default", SECOND)}
    runs = [find_run(ablation.runs, name) for name in first]
    members = Members.of(workspace, runs, tables["default"], list(FOLDS))
    more = predictions(find_run(ablation.runs, other), tables[SECOND], list(FOLDS))
    weights = (1 / (len(runs) + 1),) * (len(runs) + 1)
    bands = tuple(
        MeanBands((*mean.paths, more[str(sample_id)]), weights, mean.names)
        for mean, sample_id in zip(members.bands, members.rows["sample_id"], strict=True)
    )
    members = replace(members, bands=bands, weights=weights)
    tuned = tune(workspace, members)
    ablation.keep("+ second fold set", tuned.scores)
    ablation.keep("+ second level", secondrun.second_level(workspace, members, tuned).scores)


def train_rows(workspace: Workspace, fold_set: str) -> pd.DataFrame:
    """The training samples of a fold set."""
    table = workspace.folds(fold_set)
    return table[table["split"] == "train"]


def subset(data: Path, place: Path, count: int) -> Path:
    """A folder with `count` of the images, taken evenly from each type; all of them for 0."""
    if count == 0:
        return data
    index = pd.read_csv(data / "index.csv", dtype=str)
    share = count / len(index)
    parts = [part.iloc[: max(2, round(share * len(part)))] for _, part in index.groupby("type")]
    kept = pd.concat(parts)
    for folder in ("images", "labels"):
        (place / folder).mkdir(parents=True, exist_ok=True)
        for name in kept["id"]:
            link = place / folder / f"{name}.png"
            if not link.exists():
                link.symlink_to(data / folder / f"{name}.png")
    kept.to_csv(place / "index.csv", index=False)
    return place


def main() -> None:
    """Read the arguments and fill the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for everything; kept, so that it can go on")
    parser.add_argument(
        "--data", type=Path, help="folder of images/, labels/, index.csv; default $HISTOFOLD_DATA/dsb2018"
    )
    parser.add_argument("--rows", choices=["parts", *CHANGES], default="parts", help="what is compared")
    parser.add_argument(
        "--merged",
        action=argparse.BooleanOptionalAction,
        help="whether labels are components of a binary mask; default: of the data of `--rows stain` they are",
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--samples", type=int, default=1000, help="crops in an epoch")
    parser.add_argument("--images", type=int, default=0, help="of the data, evenly from each type; 0: all")
    parser.add_argument("--model", default="model=unet model.width=16 model.norm=batch", help="overrides, in one text")
    parser.add_argument(
        "--set", nargs="*", default=[], help="further overrides of every verb, for example train.batch=4"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="one epoch of 400 small crops, 24 images: only to see it run"
    )
    given = parser.parse_args()
    if given.tiny:
        given.epochs, given.samples, given.images = 1, 400, 24
        given.set = ["train.crop=64", "train.workers=0", "model.width=8", *given.set]
    data = given.data or Path(os.environ.get("HISTOFOLD_DATA", "")) / "dsb2018"
    if not (data / "index.csv").is_file():
        raise SystemExit(f"{data / 'index.csv'}: no such file; set HISTOFOLD_DATA or give --data")
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    budget = [f"train.epochs={given.epochs}", f"train.samples_per_epoch={given.samples}", "train.validate_every=0"]
    data = subset(data.resolve(), work / "data", given.images)
    plain = ("predict.tta=none", "predict.size=0")
    merged = given.rows == "stain" if given.merged is None else given.merged
    ablation = Ablation(work, data, (*given.model.split(), *budget, *plain, *given.set), merged)
    if given.rows == "parts":
        ablate(ablation)
    else:
        compare(ablation, CHANGES[given.rows])


if __name__ == "__main__":
    main()
