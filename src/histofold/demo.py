"""`./run.sh demo`: the whole way on the embedded sample, in one process, with a summary at its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from histofold import cli
from histofold.compose import compose, load
from histofold.config import Config
from histofold.errors import ConfigError
from histofold.evaluation.crossfit import interval_text
from histofold.files import read_json

NAME = "demo"
"""Of the ensemble and the submission."""

NETWORKS: dict[str, tuple[str, ...]] = {
    # DiCE units want long steps and many of them: at lr .001 this network has learned nothing after 250 steps.
    "demo-kidney_segnet": (
        *("model=kidney_segnet", "model.width=8"),
        *("optimizer.lr=0.01", "train.batch=4", "train.epochs=8"),
    ),
    "demo-smp": ("model=smp", "model.encoder=resnet18"),
}
"""Run → what it is trained with."""


@dataclass(frozen=True)
class Step:
    """One verb of the demo.

    Attributes:
        seconds: how long it took, filled in afterwards.
    """

    verb: str
    title: str
    overrides: tuple[str, ...] = ()
    seconds: float = 0.0


def steps(folds: Sequence[int] = (0, 1)) -> list[Step]:
    """Prepare, train every network on every fold, evaluate, predict, submit, report."""
    trained = [
        Step("train", f"train {run}, fold {fold}", (*overrides, f"run={run}", f"fold={fold}"))
        for run, overrides in NETWORKS.items()
        for fold in folds
    ]
    runs = "runs=[" + ",".join(NETWORKS) + "]"
    return [
        Step("prepare", "draw the sample, make folds and tiles"),
        *trained,
        Step("evaluate", "out-of-fold score, threshold and ensemble", (runs, f"name={NAME}")),
        Step("predict", "the test slides, by all networks and views", (f"name={NAME}",)),
        Step("submit", "encode, write, validate, score", (f"name={NAME}",)),
        Step("report", "one page", (f"name={NAME}",)),
    ]


BUDGETS = {"demo_kidney": "demo", "demo_nuclei": "demo_nuclei"}
"""Competition → the experiment that the demo runs it with."""


def base(overrides: Sequence[str]) -> list[str]:
    """What all steps are run with: the experiment of the chosen sample, then `overrides`.

    Raises:
        ConfigError: an override is wrong.
    """
    config = load(compose(["experiment=demo", *overrides]))
    if config.competition.name not in BUDGETS:
        raise ConfigError(f"competition={config.competition.name}: the demo runs on {' or '.join(BUDGETS)}")
    return [f"experiment={BUDGETS[config.competition.name]}", *overrides]


def demo(overrides: Sequence[str]) -> int:
    """Run all steps with `overrides` on top of their own; gives the exit code.

    Raises:
        ConfigError: an override is wrong.
        HistofoldError: a step failed; the same command goes on with it.
    """
    common = base(overrides)
    config = load(compose(common))
    begun = time.monotonic()
    done: list[Step] = []
    todo = steps()
    for number, step in enumerate(todo, 1):
        print(f"\n━━ {number}/{len(todo)}  {step.title}", flush=True)
        start = time.monotonic()
        given = [*common, *step.overrides]
        cli.run(step.verb, compose(given), given)
        done.append(replace(step, seconds=time.monotonic() - start))
    print(summary(config, done, time.monotonic() - begun))
    return 0


def summary(config: Config, done: Sequence[Step], seconds: float) -> str:
    """What took how long, what was written where, and the scores."""
    name = config.competition.name
    oof, sent = config.path("oof") / name, config.path("submissions") / name / NAME
    record = read_json(oof / "ensembles" / f"{NAME}.json")
    around = interval_text(record["score"]["interval"])
    lines = ["", f"━━ done in {seconds / 60:.1f} minutes"]
    lines += [f"  {step.seconds:6.1f} s  {step.title}" for step in done]
    lines += ["", "  written:"]
    places = {
        "folds, to be edited": config.path("prepared") / name / "folds.csv",
        "runs, one a network": oof,
        "ensemble and its CV": oof / "ensembles" / f"{NAME}.json",
        "submission": sent / "submission.csv",
        "what it was made of": sent / "provenance.json",
        "report, for a browser": sent / "report.html",
    }
    lines += [f"    {text:<22} {_short(path)}" for text, path in places.items() if path.exists()]
    lines += ["", f"  out of fold: {record['metric']} {record['score']['cross_fitted']:.4f} ({around})"]
    test = _test_score(sent / "scores.csv")
    if test is not None:
        lines.append(f"  hidden test: {record['metric']} {test:.4f}; Otsu's threshold there: {_otsu(config):.4f}")
    return "\n".join(lines)


def _otsu(config: Config) -> float:
    """What a threshold without learning scores on the hidden test: the number to beat."""
    from histofold.sample.baseline import otsu
    from histofold.workspace import Workspace

    scores = otsu(Workspace(config).competition, "test")
    return sum(scores.values()) / len(scores)


def _test_score(path: Path) -> float | None:
    import pandas as pd

    return float(pd.read_csv(path)["score"].mean()) if path.exists() else None


def _short(path: Path) -> str:
    """Relative to the current folder where that is shorter."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
