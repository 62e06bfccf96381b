"""How deep a pruned UNet++ has to be: every depth's OOF score and time, and the run that keeps the one chosen."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf

from histofold import limits
from histofold.errors import ConfigError, DataError
from histofold.evaluation import room
from histofold.evaluation.oof import Run
from histofold.evaluation.pruned import CHOSEN, DEPTHS_FILE
from histofold.evaluation.repeats import one_network
from histofold.files import atomic, scratch, sha256, write_text
from histofold.inference import checkpoint, planning
from histofold.inference.checkpoint import Spec
from histofold.inference.member import Member
from histofold.inference.predict import fingerprint_of, predict_samples
from histofold.limits import Plan
from histofold.models.unetpp import DEPTHS, choose_depth
from histofold.sources import job, size_of
from histofold.training.oof import score_fold, settings_of
from histofold.workspace import Workspace

TIME = "prune one run at a time or on fewer folds (folds=[0,1]), take fewer views (predict.tta), or raise limits.hours"
"""What to change when the time is short."""


@dataclass(frozen=True)
class Depth:
    """One depth of a run.

    Attributes:
        scores: fold → OOF scores of its samples.
        seconds: of prediction, for a sample.
    """

    depth: int
    scores: dict[int, NDArray[np.float64]]
    seconds: float

    def score(self, without: int | None = None) -> float:
        """Mean OOF score over all samples, or over those of all folds but one."""
        return float(np.concatenate([part for fold, part in self.scores.items() if fold != without]).mean())


def prune(workspace: Workspace, run: Run, table: pd.DataFrame, folds: list[int], tolerance: float) -> str:
    """Score a UNet++ run at the depths L1 to L4, and write the shallowest good one as the run `<run>_fast`.

    Each depth predicts the held-out samples of each fold with that fold's network, as `model.mode=fast` does: what lies
    below the depth is not computed. Chosen is the shallowest depth whose mean score is at most `tolerance` below the
    best one's, on all folds; what that is worth on folds without a part in it is told by `nested`. The new run has the
    same weights, so evaluate, predict and submit take it like any other.

    Args:
        table: the training samples' rows of folds.csv.
        folds: those that decide, and that the new run has.

    Raises:
        ConfigError: the run is no UNet++.
        DataError: a fold is not finished, the folds are different networks, or a run of that name was trained.
        ResourceError: memory, disk or time would not suffice; nothing was predicted.
    """
    name = f"{run.name}_fast"
    target = workspace.oof / name
    _require(run, folds, target)
    workspace = _with_room(workspace, run, table, folds)
    with scratch(target) as temporary:
        found = [_measure(workspace, run, table, folds, depth, temporary) for depth in DEPTHS]
        depth, honest = _chosen(found, tolerance), nested(found, tolerance)
        made = temporary / f"L{depth}"
        for fold in folds:
            _complete(workspace, run, made / f"fold{fold}", fold, name, depth)
        text = report(run.name, found, depth, tolerance, honest, table["fold"].nunique())
        with atomic(made / DEPTHS_FILE) as path:
            _record(found, depth, honest).to_csv(path, index=False)
        if target.exists():
            shutil.rmtree(target)
        made.rename(target)
    return f"{text}\n{target}: written; `evaluate runs=[{name}]` takes it as a run"


def nested(found: list[Depth], tolerance: float) -> float | None:
    """Mean score when the depth of each fold is chosen on the other folds; None where there is but one fold."""
    folds = list(found[0].scores)
    if len(folds) < 2:
        return None
    by_depth = {item.depth: item.scores for item in found}
    return float(np.concatenate([by_depth[_chosen(found, tolerance, fold)][fold] for fold in folds]).mean())


def _chosen(found: list[Depth], tolerance: float, without: int | None = None) -> int:
    """The depth that all folds choose, or all but one."""
    return choose_depth({item.depth: item.score(without) for item in found}, tolerance)


def _record(found: list[Depth], chosen: int, honest: float | None) -> pd.DataFrame:
    """The table of `DEPTHS_FILE`."""
    rows = [{"depth": item.depth, "score": item.score(), "seconds": item.seconds} for item in found]
    marks = [{"chosen": CHOSEN, "nested": honest} if item.depth == chosen else {} for item in found]
    blank = {"chosen": "", "nested": None}
    return pd.DataFrame([{**row, **blank, **mark} for row, mark in zip(rows, marks, strict=True)])


def report(run: str, found: list[Depth], chosen: int, tolerance: float, honest: float | None, known: int) -> str:
    """The table of depths, and what their choice is worth on folds that had no part in it (`honest`)."""
    folds = list(found[0].scores)
    kind = "OOF" if len(folds) == known else f"partial OOF (folds {', '.join(map(str, folds))} of {known})"
    slowest = found[-1].seconds
    lines = [f"depths of {run}, {kind}", f"{'depth':<7}{'score':>8}{'s a sample':>12}{'of L4':>8}"]
    for item in found:
        mark = f"  chosen: at most {tolerance:g} below the best" if item.depth == chosen else ""
        share = item.seconds / slowest
        lines.append(f"L{item.depth:<6}{item.score():>8.4f}{item.seconds:>12.4f}{share:>8.2f}{mark}")
    optimistic = next(item.score() for item in found if item.depth == chosen)
    if honest is None:
        lines.append(f"L{chosen} was chosen on the one fold that scores it: {optimistic:.4f} is optimistic")
    else:
        text = f"each fold with the depth that the other folds choose: {honest:.4f}"
        lines.append(f"{text}; optimistic, L{chosen} chosen on all folds: {optimistic:.4f}")
    return "\n".join(lines)


def _require(run: Run, folds: list[int], target: Path) -> None:
    """Check that the run is a UNet++ and has the folds, and that what is replaced was made here."""
    name = run.config()["model"]["name"]
    if name != "unetpp":
        raise ConfigError(f"evaluate.depths: {run.name} is a {name}; only unetpp has depths")
    one_network(run, folds)
    missing = [fold for fold in folds if fold not in run.folds]
    if missing:
        raise DataError(f"{run.folder}: fold {missing[0]} is not finished; train it (fold={missing[0]}) first")
    if target.exists() and not (target / DEPTHS_FILE).exists():
        raise DataError(f"{target}: a run that was trained under this name; rename it, or delete it")


def _with_room(workspace: Workspace, run: Run, table: pd.DataFrame, folds: list[int]) -> Workspace:
    """Print what all depths need beside `limits.*`; gives the workspace with as many processes as there is memory for.

    Raises:
        ConfigError: a limit cannot be read.
        ResourceError: it does not fit; says what is short, and what to change.
    """
    settings, held_out = settings_of(workspace.config), table[table["fold"].isin(folds)]
    spec, _ = checkpoint.load(run.fold(folds[0]) / "model.ckpt")
    sizes = [size_of(workspace.competition, workspace.sample(str(name))) for name in held_out["sample_id"]]
    plans = []
    for depth in DEPTHS:
        # Untrained: it takes as long, and a folder of its own is not there yet to load it from.
        member = Member.build(_pruned(spec, run.name, depth)).to(settings.torch_device()).eval().requires_grad_(False)
        member = member.to(memory_format=torch.channels_last)
        plans.append(planning.plan(sizes, spec.scale, [member], settings))
    written = len(DEPTHS) * sum((run.fold(fold) / "model.ckpt").stat().st_size for fold in folds)
    Plan(
        "evaluate.depths",
        max(one.peak_memory for one in plans),
        written + sum(one.disk for one in plans),
        sum(one.seconds for one in plans),
        {**plans[0].advice, "disk": room.ADVICE["disk"], "time": TIME},
        max(one.gpu for one in plans),
    ).check(limits.of(workspace.config.limits, workspace.oof, planning.resident()))
    return Workspace(room.fitting(workspace, held_out, 1, spec.scale, tune=False, step="evaluate.depths, scores"))


def _pruned(spec: Spec, name: str, depth: int) -> Spec:
    """The description of the same network that predicts with one depth alone."""
    return replace(spec, run=name, model={**spec.model, "mode": "fast", "depth": depth})


def _measure(workspace: Workspace, run: Run, table: pd.DataFrame, folds: list[int], depth: int, place: Path) -> Depth:
    """Predict and score the held-out samples of every fold at one depth, below `place`/L<depth>."""
    settings, seconds = settings_of(workspace.config), 0.0
    scores: dict[int, NDArray[np.float64]] = {}
    for fold in folds:
        folder = place / f"L{depth}" / f"fold{fold}"
        folder.mkdir(parents=True)
        spec, state = checkpoint.load(run.fold(fold) / "model.ckpt")
        checkpoint.save(folder / "model.ckpt", _pruned(spec, f"{run.name}_fast", depth), state)
        member = Member.load(folder / "model.ckpt", settings.torch_device(), workspace.competition.name)
        held_out = table[table["fold"] == fold]
        jobs = [
            job(workspace.competition, workspace.sample(str(sample_id)), spec.scale, folder / "predictions")
            for sample_id in held_out["sample_id"]
        ]
        stamp = fingerprint_of([sha256(folder / "model.ckpt")], [1.0], settings)
        start = time.perf_counter()
        predict_samples(jobs, [member], None, settings, stamp).check()
        seconds += time.perf_counter() - start
        scored = score_fold(workspace, held_out, folder / "predictions", workspace.config.evaluate.workers)
        with atomic(folder / "scores.csv") as path:
            scored.to_csv(path, index=False)
        scores[fold] = scored["score"].to_numpy(np.float64)
    return Depth(depth, scores, seconds / sum(map(len, scores.values())))


def _complete(workspace: Workspace, run: Run, folder: Path, fold: int, name: str, depth: int) -> None:
    """Add to a fold of the chosen depth what makes it a run of its own: its configuration and its history.

    The configuration is the run's, but for `predict.*`: its predictions were made with those of the command.
    """
    config = run.config(fold)
    config["predict"] = OmegaConf.to_container(OmegaConf.structured(workspace.config.predict))
    config["run"] = name
    config["model"] = {**config["model"], "mode": "fast", "depth": depth}
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
    for history in ("metrics.csv", "curves.png"):
        if (run.fold(fold) / history).exists():
            shutil.copyfile(run.fold(fold) / history, folder / history)
