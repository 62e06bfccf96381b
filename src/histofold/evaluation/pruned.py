"""What is known of a run that `evaluate.depths` made: its depth was chosen on all of the folds that score it."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

DEPTHS_FILE = "depths.csv"
"""Scores and times of all depths, in the folder of the run that keeps one of them.

Columns: `depth`, `score` (mean over all samples), `seconds` a sample, `chosen` (`on all folds` at the one that is kept)
and there `nested`: the mean score when each fold is given the depth that the other folds choose; empty with one fold.
"""

CHOSEN = "on all folds"


def note(folder: Path) -> str | None:
    """What has to be said about the scores of a run in a folder; None where its depth was not chosen by scores."""
    path = folder / DEPTHS_FILE
    if not path.exists():
        return None
    table = pd.read_csv(path)
    text = f"{folder.name}: its depth was chosen on all folds, so that its scores are optimistic by that choice"
    # Files of earlier versions have no such column.
    nested = float(table["nested"].max()) if "nested" in table else math.nan
    return text if math.isnan(nested) else f"{text}; with depths that the other folds chose: {nested:.4f}"
