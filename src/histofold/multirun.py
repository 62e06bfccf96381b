"""`-m`: one job for each combination of values, through Hydra's sweeper and whichever launcher was chosen."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from histofold import cli
from histofold.compose import CONFIGS, ROOT, explain, opened
from histofold.errors import ConfigError, HistofoldError


@dataclass(frozen=True)
class Outcome:
    """How one job ended: its overrides, its exit code (0 is well), and the line that says what was wrong."""

    overrides: str
    code: int
    message: str


def multirun(verb: str, overrides: Sequence[str]) -> int:
    """Run all combinations; a failing job does not stop the others. Gives the exit code of the first that failed.

    Raises:
        ConfigError: an override is unknown or cannot be parsed; nothing has run then.
    """
    GlobalHydra.instance().clear()
    wanted = [opened(override) for override in overrides]
    hydra = Hydra.create_main_hydra2(verb, create_config_search_path(str(CONFIGS)))
    _let_workers_import()
    try:
        config = hydra.compose_config("config", wanted, RunMode.MULTIRUN, with_log_configuration=False)
        folder = _folder(config)
        quoted = str(folder).replace("'", "\\'")
        batches = hydra.multirun("config", functools.partial(job, verb), [*wanted, f"hydra.sweep.dir='{quoted}'"])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, overrides)) from error
    finally:
        GlobalHydra.instance().clear()
    outcomes = [result.return_value for batch in batches for result in batch]
    _tidy(folder, config, outcomes)
    return _summary(outcomes)


def job(verb: str, composed: DictConfig) -> Outcome:
    """One job, perhaps in another process or on another machine; errors come back as an Outcome."""
    overrides = list(HydraConfig.get().overrides.task)
    text = " ".join(overrides) or "(defaults)"
    print(f"── {verb} {text}", flush=True)
    try:
        cli.run(verb, composed, overrides)
    except HistofoldError as error:
        print(f"histofold: {text}: {error}", file=sys.stderr, flush=True)
        return Outcome(text, error.exit_code, str(error))
    except Exception as error:
        traceback.print_exc()
        return Outcome(text, 1, f"{type(error).__name__}: {error}")
    return Outcome(text, 0, "")


def _folder(config: DictConfig) -> Path:
    """Where the launcher keeps its own files; a cluster's nodes must see it, so it lies beside the runs."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    return Path(str(config.root if config.root != "." else ROOT), str(config.paths.oof), ".jobs", name).absolute()


def _tidy(folder: Path, config: DictConfig, outcomes: Sequence[Outcome]) -> None:
    """Remove the launcher's files, but keep a cluster's logs where a job failed."""
    cluster = "submitit" in str(config.hydra.launcher.get("_target_", ""))
    if cluster and any(outcome.code for outcome in outcomes):
        print(f"logs of the jobs: {folder}", file=sys.stderr)
        return
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.is_dir() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def _summary(outcomes: Sequence[Outcome]) -> int:
    failed = [outcome for outcome in outcomes if outcome.code]
    for outcome in failed:
        print(f"histofold: failed: {outcome.overrides}: {outcome.message}", file=sys.stderr)
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} jobs done", file=sys.stderr)
    return failed[0].code if failed else 0


def _let_workers_import() -> None:
    """Let processes of a launcher find the package, which is not installed but lies in src/."""
    paths = [str(ROOT / "src"), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))


