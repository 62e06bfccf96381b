"""The end of a fold: its out-of-fold predictions, their scores, and what is said of them."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pandas as pd
from lightning.fabric import Fabric

from histofold.files import atomic, sha256
from histofold.inference.member import Member
from histofold.inference.predict import fingerprint_of
from histofold.training.oof import predict_fold, score_fold, scoring_workers, settings_of
from histofold.training.planning import require_room_to_predict
from histofold.training.ranks import on_first
from histofold.training.records import close
from histofold.workspace import Workspace


def finish(
    workspace: Workspace, fabric: Fabric, member: Member, held_out: pd.DataFrame, folder: Path, planned: bool
) -> None:
    """Write the predictions and scores of a fold whose `model.ckpt` is there, and say how well it did.

    Args:
        member: that network.
        held_out: rows of folds.csv.
        folder: the fold's.
        planned: whether the training's plan, which includes all of this, was just checked.

    Raises:
        DataError: a sample could not be predicted or scored; the other predictions are there.
        ResourceError: memory, disk or time would not suffice; the same command goes on from there.
    """
    # Predictions that stand already are kept when they come from these very weights.
    fingerprint = fingerprint_of([sha256(folder / "model.ckpt")], [1.0], settings_of(workspace.config))
    if not planned:
        on_first(fabric, partial(require_room_to_predict, workspace, fabric, folder, held_out, member, fingerprint))
    predict_fold(workspace, member, held_out, folder / "predictions", fabric, fingerprint)
    fabric.barrier()
    if fabric.is_global_zero:
        workers = scoring_workers(workspace, held_out, "train, scores")
        scores = score_fold(workspace, held_out, folder / "predictions", workers)
        close(folder, float(scores["score"].mean()))
        with atomic(folder / "scores.csv") as temporary:
            scores.to_csv(temporary, index=False)
        print(summary(folder, scores))


def summary(folder: Path, scores: pd.DataFrame) -> str:
    """What was written where, and how well the fold did."""
    numbers = scores.groupby("stratum")["score"].agg(["mean", "size"])
    lines = [f"{folder}: OOF score {scores['score'].mean():.4f} over {len(scores)} samples"]
    lines += [f"  {name}: {row['mean']:.4f} ({int(row['size'])})" for name, row in numbers.iterrows()]
    return os.linesep.join(lines)
