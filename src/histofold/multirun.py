"""`-m`: one job for each combination of values, through Hydra's sweeper and whichever launcher was chosen."""

from __future__ import annotations

import contextlib
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
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from histofold import cli
from histofold.compose import CONFIGS, ROOT, explain, opened
from histofold.errors import ConfigError, HistofoldError


class LauncherError(HistofoldError):
    """The launcher could not run the jobs."""


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
    folder, keep = None, False
    try:
        config = hydra.compose_config("config", wanted, RunMode.MULTIRUN, with_log_configuration=False)
        folder = _folder(config)
        task = functools.partial(job, verb, _swept(wanted))
        outcomes = _outcomes(hydra.multirun("config", task, [*wanted, f"hydra.sweep.dir={_quoted(folder)}"]))
        # A cluster's logs say why a job failed; the other launchers print where a person sees it.
        keep = "submitit" in str(config.hydra.launcher.get("_target_")) and any(outcome.code for outcome in outcomes)
    except (HydraException, OmegaConfBaseException) as error:
        GlobalHydra.instance().clear()
        raise ConfigError(explain(error, overrides, CONFIGS)) from error
    except Exception as error:
        # Jobs report their own errors, so this is the launcher itself: a Ray or SLURM that does not start.
        first = str(error).strip().split("\n", 1)[0]
        raise LauncherError(f"the launcher failed ({type(error).__name__}: {first}); see what it says above") from error
    finally:
        GlobalHydra.instance().clear()
        if folder is not None and not keep:
            _remove(folder)
    if keep:
        print(f"logs of the jobs: {folder}", file=sys.stderr)
    return _summary(outcomes)


def job(verb: str, swept: frozenset[str], composed: DictConfig) -> Outcome:
    """One job, perhaps in another process or on another machine; errors come back as an Outcome.

    `swept` are the keys in which the jobs differ: they name the job in what is printed.
    """
    overrides = list(HydraConfig.get().overrides.task)
    text = " ".join(item for item in overrides if _key(item) in swept) or "the only job"
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


def _quoted(folder: Path) -> str:
    return "'" + str(folder).replace("\\", "\\\\").replace("'", "\\'") + "'"


def _key(override: str) -> str:
    return override.lstrip("+~").split("=", 1)[0]


def _swept(overrides: Sequence[str]) -> frozenset[str]:
    """The keys that have several values."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return frozenset(_key(override.get_key_element()) for override in parsed if override.is_sweep_override())


def _outcomes(batches: Sequence[Sequence[JobReturn]]) -> list[Outcome]:
    return [result.return_value for batch in batches for result in batch]


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # others may still have folders beside it
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
