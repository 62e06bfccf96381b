"""Validation while training, and the fold's out-of-fold predictions and scores at its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
from lightning.fabric import Fabric

from histofold.config import Config
from histofold.evaluation import room
from histofold.evaluation.scoring import ScoreTask, score
from histofold.inference.member import Member
from histofold.inference.predict import Job, predict_samples
from histofold.inference.settings import Settings
from histofold.parallel import each
from histofold.sources import job
from histofold.workspace import Workspace


def settings_of(config: Config) -> Settings:
    """The predictor's settings from `predict.*`.

    Raises:
        ConfigError: a value is out of range.
    """
    values = config.predict
    return Settings(
        tile=values.tile,
        step=values.step,
        margin=values.margin,
        window=values.window,
        tta=values.tta,
        batch=values.batch,
        device=values.device,
        precision=values.precision,
        skip_background=values.skip_background,
        spread=values.spread,
        size=values.size,
    )


def jobs_of(workspace: Workspace, held_out: pd.DataFrame, folder: Path) -> list[Job]:
    """The held-out samples as jobs of the predictor, writing into `folder`."""
    samples = [workspace.sample(str(sample_id)) for sample_id in held_out["sample_id"]]
    return [job(workspace.competition, sample, workspace.recipe.scale, folder) for sample in samples]


def predict_fold(
    workspace: Workspace, member: Member, held_out: pd.DataFrame, folder: Path, fabric: Fabric, fingerprint: str = ""
) -> None:
    """Write the band file of every held-out sample; several ranks share the samples.

    Raises:
        DataError: a sample could not be predicted; the others are there.
    """
    jobs = jobs_of(workspace, held_out.iloc[fabric.global_rank :: fabric.world_size], folder)
    # On the device of the training: the network under it is not moved away, and each rank keeps to its own GPU.
    settings = replace(settings_of(workspace.config), device=str(fabric.device))
    predict_samples(jobs, [member], None, settings, fingerprint).check()


def scoring_workers(workspace: Workspace, held_out: pd.DataFrame, step: str) -> int:
    """As many of `evaluate.workers` as there is memory for to score held-out samples; says so where these are fewer.

    Args:
        step: what it is a part of, for the person who reads it.

    Raises:
        ConfigError: a limit cannot be read.
        ResourceError: not even one fits; says what is short, and what to change.
    """
    scale = workspace.recipe.scale
    return room.fitting(workspace, held_out, 1, scale, tune=False, step=step).evaluate.workers


def score_fold(workspace: Workspace, held_out: pd.DataFrame, predictions: Path, workers: int) -> pd.DataFrame:
    """Score a fold's predictions, one row a sample.

    Settings are the untuned ones (one half; the decoder's defaults), so that this is no selection on the fold;
    `evaluate` tunes.
    """
    options = dict(workspace.config.instances)
    tasks = [
        ScoreTask(workspace.competition, workspace.sample(str(sample_id)), predictions / f"{sample_id}.tif", options)
        for sample_id in held_out["sample_id"]
    ]
    rows = {}
    for task, result in each(score, tasks, workers, "score OOF"):
        if isinstance(result, Exception):
            raise result
        rows[task.sample.sample_id] = result
    table = held_out[["sample_id", "fold", "stratum", "group", "height", "width"]].copy()
    for column in next(iter(rows.values())):
        table[column] = [rows[str(sample_id)][column] for sample_id in table["sample_id"]]
    return table


def validate(workspace: Workspace, member: Member, held_out: pd.DataFrame, fabric: Fabric, folder: Path) -> float:
    """Mean score of whole held-out samples under the network as it is now; nothing is selected by it."""
    predict_fold(workspace, member, held_out, folder, fabric)
    fabric.barrier()
    return float(score_fold(workspace, held_out, folder, workers=1)["score"].mean())
