"""The command line of every verb: overrides in, one clear line and an exit code out.

    python src/train.py competition=dsb2018 model=unet fold=0
    python src/train.py -m fold=0,1,2,3,4
    python src/train.py -m fold=0,1,2,3,4 hydra/launcher=ray

Exit codes: 0 done, 1 something went wrong (one line says what), 2 a setting is wrong, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from histofold.allocator import one_arena
from histofold.errors import HistofoldError

if TYPE_CHECKING:
    from histofold.config import Config

# albumentations asks the registry for a newer version at import, which fails loudly without a network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

INTERRUPTED = 130
DEMO = "demo"
MULTIRUN = ("-m", "--multirun")
HELP = ("-h", "--help")
PRINT = ("-c", "--cfg")


def main(verb: str, argv: Sequence[str] | None = None) -> int:
    """Run a verb with the overrides in `argv` (by default the process's own); gives the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if verb == "predict":
        one_arena()
    try:
        return _dispatch(verb, arguments)
    except KeyboardInterrupt:
        from histofold.commands import COMMANDS, KEPT

        again = COMMANDS[verb].again if verb in COMMANDS else KEPT
        return _say(f"interrupted; {again}", INTERRUPTED)
    except (HistofoldError, ImportError, OSError, RuntimeError) as error:
        return fail(verb, error)


def fail(verb: str, error: Exception) -> int:
    """Print what a person needs to know of an error, and give its exit code; what looks like a bug is raised again."""
    if os.environ.get("HISTOFOLD_DEBUG") == "1":
        raise error
    if isinstance(error, HistofoldError):
        return _say(str(error), error.exit_code)
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("histofold"):
        return _say(
            f"the package {error.name!r} is missing in {sys.executable}: activate .venv "
            f"(source .venv/bin/activate) or use ./run.sh {verb}",
            1,
        )
    if isinstance(error, BrokenPipeError):
        # `… | head` has seen enough; what is still buffered goes nowhere instead of into a second error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return _say(f"{error.filename}: {error.strerror}", 1)
    if type(error).__name__ == "OutOfMemoryError":
        return _say("the GPU's memory is full: lower train.batch and raise train.accumulate, or lower predict.batch", 1)
    raise error


def _dispatch(verb: str, arguments: list[str]) -> int:
    overrides = [argument for argument in arguments if argument not in (*MULTIRUN, *HELP)]
    if any(argument in HELP for argument in arguments):
        from histofold.usage import help_text

        print(help_text(verb))
        return 0
    if any(override in PRINT for override in overrides):
        return _print_config(verb, [override for override in overrides if override not in (*PRINT, "job", "all")])
    unknown = [override for override in overrides if override.startswith("-")]
    if unknown:
        return _say(f"{unknown[0]}: unknown option; there are -m, --cfg and --help, and settings as key=value", 2)
    if verb == DEMO:
        from histofold.demo import demo

        return demo(overrides)
    if len(overrides) != len(arguments):
        from histofold.multirun import multirun

        return multirun(verb, overrides)
    from histofold.compose import compose

    launcher = [override for override in overrides if override.startswith(("hydra/launcher=", "hydra.launcher."))]
    if launcher:
        return _say(f"{launcher[0]}: has an effect on several jobs only; add -m and a list, as in -m fold=0,1,2", 2)
    run(verb, compose(overrides), overrides)
    return 0


def run(verb: str, composed: object, overrides: Sequence[str]) -> None:
    """Check one composed configuration and run the verb with it.

    Raises:
        ConfigError: a setting is wrong.
        HistofoldError: the verb failed in a way that a person can mend.
    """
    from omegaconf import DictConfig

    from histofold import given
    from histofold.commands import COMMANDS
    from histofold.compose import load
    from histofold.parallel import workers_end

    assert isinstance(composed, DictConfig)
    config = load(composed)
    command = COMMANDS[verb]
    check_options(config, [group for group in GROUPS if group in command.groups or _touches(overrides, group)])
    with given.command(overrides), workers_end():
        command.function()(config)


GROUPS = {"model": "histofold.models", "target": "histofold.targets", "instances": "histofold.instances"}
"""Choices that are classes, and the module whose `options(name)` gives a class's parameters."""


def check_options(config: Config, groups: Sequence[str]) -> None:
    """Check the options of some groups against the classes (this imports them, and torch with them).

    Raises:
        ConfigError: a name or an option does not exist, or an option has the wrong type.
    """
    import importlib

    from histofold import checks

    for group in groups:
        given = getattr(config, group)
        # instances=auto is chosen later, by the bands that there are, so it has no options.
        chosen = given["name"] != "auto" or group != "instances"
        known = importlib.import_module(GROUPS[group]).options(given["name"]) if chosen else {}
        checks.options(group, given, known)


def _print_config(verb: str, overrides: Sequence[str]) -> int:
    from omegaconf import OmegaConf

    from histofold.compose import compose, load

    if verb == DEMO:
        from histofold.demo import base

        overrides = base(overrides)
    composed = compose(overrides)
    load(composed)
    print(OmegaConf.to_yaml(composed), end="")
    return 0


def _touches(overrides: Sequence[str], group: str) -> bool:
    return any(override.lstrip("+").startswith(f"{group}.") for override in overrides)


def _say(text: str, code: int) -> int:
    print(f"histofold: {text}", file=sys.stderr)
    return code
