"""Each network by its original recipe and by the default one: out-of-fold scores at one budget of images seen.

    HISTOFOLD_DATA=… ./run.sh bench recipes --work RECIPES --epochs 10 --samples 1600 --width 16
    HISTOFOLD_DATA=… ./run.sh bench recipes --work TRIAL --tiny         # to see that it runs
    HISTOFOLD_DATA=… ./run.sh bench recipes --work RECIPES --only unetpp

Real nuclei (DSB 2018, folds 0 and 1 of five) for every network, biopsy glomeruli (folds 0 and 1 of three) for the
glomerulus U-Net. All rows share the images seen, the crop, the precision and how predictions are made (tiles of the
crop side by side, one view); the rows of a network share its width. Target, loss, augmentation, optimiser, batch,
averaging of weights and decoder are the recipe's; thresholds and instance settings are cross-fitted for all. A recipe's
schedule counts epochs of this budget. The verbs run as a user would run them, and a run that broke off goes on when the
same command is given again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from bench_ablation import subset
from omegaconf import OmegaConf

from histofold.evaluation.crossfit import TOO_FEW, interval
from histofold.files import write_text

ROOT = Path(__file__).resolve().parents[2]
FOLDS = (0, 1)
METRICS = ("ap50", "dice")
NUCLEI, GLOMERULI = "dsb2018_files", "glomeruli"
KNOWN_FOLDS = {NUCLEI: 5, GLOMERULI: 3}
ALIKE = (
    "train.validate_every=0",
    "train.workers=0",
    "train.precision=32-true",
    "predict.tta=none",
    "predict.size=0",
    "predict.tile=0",
    "predict.step=1.0",
    "predict.margin=0",
    "predict.window=flat",
)
"""What every row shares beside the budget."""


@dataclass(frozen=True)
class Recipe:
    """One row: a network trained in one way.

    Attributes:
        network: rows of one network are compared with its first row.
        name: what the table calls the recipe.
        overrides: what makes it, in one text.
        competition: the data.
    """

    network: str
    name: str
    overrides: str
    competition: str = NUCLEI

    @property
    def run(self) -> str:
        """Name of the run folder."""
        return f"{self.network}_{self.name.split(',')[0].replace(' ', '_')}"


# Kidney-SegNet's rate is the one that configs/model/kidney_segnet.yaml tells for short runs.
KIDNEY = "model=kidney_segnet optimizer.lr=0.01"
RECIPES = (
    Recipe("kidney_segnet", "original", "experiment=kidney_segnet_original"),
    Recipe("kidney_segnet", "gated decoder, else default", f"{KIDNEY} model.decoder=gated"),
    Recipe("kidney_segnet", "default", KIDNEY),
    Recipe("unet", "original", "experiment=nuclei_unet"),
    Recipe("unet", "default", "model=unet"),
    Recipe("unetpp", "original", "experiment=nuclei_unetpp"),
    Recipe("unetpp", "default", "model=unetpp"),
    Recipe("glomerulus_unet", "original", "experiment=glomerulus_unet", GLOMERULI),
    Recipe("glomerulus_unet", "default", "model=glomerulus_unet", GLOMERULI),
    Recipe("fullnet", "original", "experiment=fullnet_nuclei"),
    Recipe("fullnet", "default", "model=fullnet"),
    Recipe("unet", "no norm, else default", "model=unet model.norm=none"),
    Recipe(
        "kidney_segnet", "faster original, ten times its rate", "experiment=kidney_segnet_original optimizer.lr=0.007"
    ),
)


def narrowed(network: str, width: int) -> list[str]:
    """Overrides that make a network narrow; none for width 0, the recipes' own."""
    if width == 0:
        return []
    if network == "fullnet":
        return [f"model.growth={width}", "model.pooling=true"]
    return [f"model.width={width}"]


@dataclass(frozen=True)
class Bench:
    """The folder that everything lies in, and what all rows share."""

    work: Path
    nuclei: Path
    glomeruli: Path
    width: int
    budget: tuple[str, ...]

    def common(self, competition: str) -> list[str]:
        """Overrides of every verb."""
        places = [f"paths.{name}={self.work / name}" for name in ("input", "prepared", "oof", "submissions")]
        data = self.nuclei if competition == NUCLEI else self.glomeruli
        folds = f"prepare.n_folds={KNOWN_FOLDS[competition]}"
        return [f"competition={competition}", f"competition.options.folder={data}", *places, folds]

    def verb(self, name: str, *overrides: str) -> float:
        """Run a verb in a process of its own; gives its processor minutes.

        Raises:
            SystemExit: it failed.
        """
        print(f"$ {name}.py {' '.join(overrides)}", flush=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, str(ROOT / "src" / f"{name}.py"), *overrides], cwd=ROOT, check=False)
        if done.returncode:
            raise SystemExit(f"{name} failed with {done.returncode}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60

    def overrides(self, recipe: Recipe) -> list[str]:
        """Overrides of a row's verbs."""
        own = [*recipe.overrides.split(), *narrowed(recipe.network, self.width)]
        return [*self.common(recipe.competition), *own, *ALIKE, *self.budget]

    def table(self, recipe: Recipe) -> Path:
        """Where `evaluate` writes a row's cross-fitted scores, one line a sample."""
        return self.work / "oof" / recipe.competition / "ensembles" / f"{recipe.run}.csv"

    def minutes(self, recipe: Recipe) -> Path:
        """Where a row's processor minutes are kept."""
        return self.work / "minutes" / f"{recipe.run}.json"

    def fill(self, recipe: Recipe) -> None:
        """Train and evaluate a row, or find it done."""
        if self.table(recipe).exists() and self.minutes(recipe).exists():
            return
        own = self.overrides(recipe)
        folds = ",".join(map(str, FOLDS))
        taken = self.verb("train", *own, f"run={recipe.run}", "-m", f"fold={folds}")
        self.verb("evaluate", *own, f"runs=[{recipe.run}]", f"name={recipe.run}", f"folds=[{folds}]")
        self.minutes(recipe).parent.mkdir(exist_ok=True)
        write_text(self.minutes(recipe), json.dumps(taken))

    def depths(self, recipe: Recipe) -> str:
        """Time and score of a UNet++ at the depths L1 to L4, as Markdown."""
        path = self.work / "oof" / recipe.competition / f"{recipe.run}_fast" / "depths.csv"
        if not path.exists():
            folds = f"folds=[{','.join(map(str, FOLDS))}]"
            self.verb("evaluate", *self.overrides(recipe), f"runs=[{recipe.run}]", folds, "evaluate.depths=0.005")
        found = pd.read_csv(path)
        rows = [[f"L{row.depth}", f"{row.score:.4f}", f"{row.seconds:.3f}"] for row in found.itertuples()]
        return f"UNet++, {recipe.name} recipe, before tuning:\n\n" + markdown([["depth", "OOF", "s a sample"], *rows])

    def seen(self, recipe: Recipe) -> int:
        """Images that the network of one fold has learned from."""
        folder = self.work / "oof" / recipe.competition / recipe.run / f"fold{FOLDS[0]}"
        last = pd.read_csv(folder / "metrics.csv").iloc[-1]
        return int(last["step"]) * batch_of(folder / "config.yaml")

    def row(self, recipe: Recipe, first: pd.DataFrame | None, strata: Sequence[str]) -> list[str]:
        """Cells of a row; `first` is the table of the network's first row."""
        scores = read(self.table(recipe))
        change = "" if first is None else changed(first, scores)
        parts = [f"{scores.loc[scores['stratum'] == stratum, 'score'].mean():.3f}" for stratum in strata]
        values = [f"{scores[name].mean():.3f}" if name in scores else "" for name in METRICS]
        minutes = json.loads(self.minutes(recipe).read_text(encoding="utf-8"))
        mean = f"{scores['score'].mean():.3f}"
        return [recipe.network, recipe.name, mean, change, *parts, *values, f"{minutes:.1f}", str(self.seen(recipe))]

    def report(self, recipes: Sequence[Recipe]) -> str:
        """The rows that are done, one table for each kind of data."""
        texts = []
        for competition in KNOWN_FOLDS:
            done = [row for row in recipes if row.competition == competition and self.minutes(row).exists()]
            if not done:
                continue
            counts = read(self.table(done[0]))["stratum"].value_counts().sort_index()
            strata = [f"{name} ({count})" for name, count in counts.items()]
            head = ["network", "recipe", "OOF", "change (95 %)", *strata, *METRICS, "processor min", "images seen"]
            rows, firsts = [head], dict[str, pd.DataFrame]()
            for recipe in done:
                rows.append(self.row(recipe, firsts.get(recipe.network), [str(name) for name in counts.index]))
                firsts.setdefault(recipe.network, read(self.table(recipe)))
            texts.append(f"{competition}, {counts.sum()} images out of fold:\n\n{markdown(rows)}")
        return "\n".join(texts)


def batch_of(path: Path) -> int:
    """The batch of a saved configuration, with the batches that it accumulates."""
    train = OmegaConf.load(path).train
    return int(train.batch) * int(train.accumulate)


def read(path: Path) -> pd.DataFrame:
    """A table of scores by sample."""
    return pd.read_csv(path, dtype={"sample_id": str, "group": str, "stratum": str})


def changed(first: pd.DataFrame, scores: pd.DataFrame) -> str:
    """The mean change of the score against a first row, with the interval over groups."""
    both = scores.merge(first[["sample_id", "score"]], on="sample_id", suffixes=("", "_first"))
    gain = (both["score"] - both["score_first"]).to_numpy(np.float64)
    ends = interval(gain, both["group"].to_numpy(str))
    return f"{gain.mean():+.3f} ({f'{ends[0]:+.3f} to {ends[1]:+.3f}' if ends else TOO_FEW})"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is the head."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def compare(bench: Bench, recipes: Sequence[Recipe], depths: bool) -> None:
    """Fill all rows, and print the tables after each."""
    for competition in sorted({recipe.competition for recipe in recipes}):
        bench.verb("prepare", *bench.common(competition))
    deep = []
    for recipe in recipes:
        bench.fill(recipe)
        if depths and recipe.network == "unetpp":
            deep.append(bench.depths(recipe))
        text = "\n".join([bench.report(recipes), *deep])
        write_text(bench.work / "recipes.md", text)
        print(f"\n{text}", flush=True)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for everything; kept, so that it can go on")
    parser.add_argument("--data", type=Path, help="folder of dsb2018/ and glomeruli_biopsy/; default $HISTOFOLD_DATA")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--samples", type=int, default=1600, help="crops in an epoch; epochs × samples are seen")
    parser.add_argument("--crop", type=int, default=96, help="pixels, for every row")
    parser.add_argument(
        "--width",
        type=int,
        default=8,
        help="channels at full resolution (FullNet: growth, with pooling); 0: the full width, FullNet without pooling",
    )
    parser.add_argument("--images", type=int, default=0, help="of the nuclei, evenly from each type; 0: all")
    parser.add_argument("--only", nargs="*", help="networks, or rows as NETWORK_RECIPE; default all")
    parser.add_argument("--no-depths", action="store_true", help="leave out the depths of UNet++")
    parser.add_argument("--set", nargs="*", default=[], help="further overrides of every training")
    parser.add_argument("--tiny", action="store_true", help="one epoch of 64 crops, 40 images: only to see it run")
    return parser.parse_args()


def main() -> None:
    """Read the arguments and fill the tables."""
    given = parsed()
    if given.tiny:
        given.epochs, given.samples, given.images, given.crop = 1, 64, 40, 64
    data = (given.data or Path(os.environ.get("HISTOFOLD_DATA", ""))).resolve()
    if not (data / "dsb2018" / "index.csv").is_file():
        raise SystemExit(f"{data / 'dsb2018' / 'index.csv'}: no such file; set HISTOFOLD_DATA or give --data")
    chosen = [row for row in RECIPES if given.only is None or {row.network, row.run} & set(given.only)]
    if not chosen:
        raise SystemExit(f"--only: there are {', '.join(row.run for row in RECIPES)}")
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    budget = (f"train.epochs={given.epochs}", f"train.samples_per_epoch={given.samples}", f"train.crop={given.crop}")
    nuclei = subset(data / "dsb2018", work / "data", given.images)
    compare(Bench(work, nuclei, data, given.width, (*budget, *given.set)), chosen, not given.no_depths)


if __name__ == "__main__":
    main()
