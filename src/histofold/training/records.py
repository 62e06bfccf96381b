"""What a fold writes while it trains: metrics.csv, curves.png, and events for TensorBoard, W&B or MLflow."""

from __future__ import annotations

import time
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd
from lightning.fabric.loggers import Logger, TensorBoardLogger

from histofold.errors import ConfigError
from histofold.files import atomic
from histofold.report.figures import training_curves

INTERVAL = 60.0
"""Seconds from one drawing of curves.png to the next while a fold is trained; `close` draws it at the end."""

LOGGERS = ("tensorboard", "wandb", "mlflow")


class Records:
    """Writers of one fold's history; `write` takes the whole history each time, so a resumed run has no gap.

    As a context it ends the loggers that were written to, so that the next fold of this process has its own.
    """

    def __init__(self, folder: Path, loggers: list[str], title: str) -> None:
        self.folder = folder
        self.title = title
        self.loggers = [_logger(name, folder, title) for name in loggers]
        self.logged = 0
        self.begun = False
        self.drawn = time.monotonic()

    def write(self, history: list[dict[str, Any]]) -> None:
        """Write metrics.csv anew and log the epochs that are new since the last call; now and then draw curves.png."""
        path = self.folder / "metrics.csv"
        with atomic(path) as temporary:
            pd.DataFrame(history).to_csv(temporary, index=False)
        if time.monotonic() - self.drawn >= INTERVAL:
            training_curves(path, self.folder / "curves.png")
            self.drawn = time.monotonic()
        self.begun = True
        for row in history[self.logged :] if self.logged else history[-1:]:
            known = {key: value for key, value in row.items() if value is not None}
            values = {key: float(value) for key, value in known.items() if key not in ("step", "epoch")}
            for logger in self.loggers:
                logger.log_metrics(values, step=int(row["step"]))
        self.logged = len(history)
        for logger in self.loggers:
            logger.save()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Other ranks have written nothing: to ask a logger for its experiment would begin one.
        for logger in self.loggers if self.begun else ():
            # What ended the fold is said, and not that a logger could not be ended for the same reason.
            with nullcontext() if error is None else suppress(Exception):
                _end(logger, failed=error is not None)


def close(folder: Path, score: float) -> None:
    """Put the OOF score of the finished fold into the last row of metrics.csv, so that the curve ends with it."""
    path = folder / "metrics.csv"
    table = pd.read_csv(path)
    table.loc[table.index[-1], "score"] = score
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False)
    training_curves(path, folder / "curves.png")


def _logger(name: str, folder: Path, title: str) -> Logger:
    """One logger by name; those beyond TensorBoard are used where the user installed them.

    Raises:
        ConfigError: an unknown name, or its package is not installed.
    """
    if name not in LOGGERS:
        raise ConfigError(f"train.loggers={name}: expected some of {', '.join(LOGGERS)}")
    try:
        if name == "tensorboard":
            return TensorBoardLogger(root_dir=folder, name="", version="events")
        from lightning.pytorch import loggers

        if name == "wandb":
            return loggers.WandbLogger(project="histofold", name=title, save_dir=folder)
        return loggers.MLFlowLogger(experiment_name="histofold", run_name=title, save_dir=str(folder / "mlruns"))
    except ModuleNotFoundError as error:
        raise ConfigError(f"train.loggers={name}: {error.name or error} is missing; `pip install {name}`") from error


def _end(logger: Logger, failed: bool) -> None:
    """Close what a logger wrote to, as well done or failed."""
    logger.finalize("failed" if failed else "success")
    # Lightning leaves a run of W&B open, and the next logger of this process would go on with it.
    finish = getattr(getattr(logger, "experiment", None), "finish", None)
    if finish is not None:
        finish(exit_code=int(failed))
