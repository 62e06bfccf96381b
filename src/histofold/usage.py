"""`./run.sh VERB --help`: what a verb does, an example, and the settings and choices that it reads."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

from histofold.commands import COMMANDS, DEMO, DEMO_USAGE

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
WIDTH = 120
"""Columns of a line."""


def help_text(verb: str) -> str:
    """Usage of one verb.

    Raises:
        KeyError: its usage names a setting that configs/config.yaml has not.
    """
    text, usage = (COMMANDS[verb].text, COMMANDS[verb].usage) if verb in COMMANDS else (DEMO, DEMO_USAGE)
    lines = [f"{verb}: {text}", "", f"  {shlex.join(['./run.sh', verb, *usage.example])}", ""]
    if usage.keys:
        lines += ["Settings that it reads, with their defaults:", *_settings(usage.keys), ""]
    if usage.choices:
        lines += ["Choices:", *(line for group in usage.choices for line in _choices(group)), ""]
    lines += [
        "  -m key=a,b,c  one job for each value; hydra/launcher=ray, submitit_slurm or submitit_local spreads them",
        "  --cfg         print the whole configuration and stop",
        f"Every setting with its default and meaning: {CONFIGS / 'config.yaml'}",
    ]
    return "\n".join(lines)


def _settings(keys: tuple[str, ...]) -> list[str]:
    """A paragraph for each setting that is one of `keys` or in a group of them, in the order of `keys`."""
    known = list(documented((CONFIGS / "config.yaml").read_text(encoding="utf-8")))
    lines = []
    for key in keys:
        found = [one for one in known if one[0] == key or one[0].startswith(f"{key}.")]
        if not found:
            raise KeyError(f"{key}: not in {CONFIGS / 'config.yaml'}")
        lines += [line for name, value, meaning in found for line in _paragraph(f"{name}={value}", meaning, 32)]
    return lines


def documented(text: str) -> Iterator[tuple[str, str, str]]:
    """Dotted name, default and meaning of every setting in the text of config.yaml, whose comments say what it means.

    A group has no default of its own and is left out, and so is the list of choices at the top.
    """
    group, name, value, meaning = "", "", "", ""
    for line in text.splitlines():
        if more := re.fullmatch(r" +# (.*)", line):
            meaning += f" {more[1]}"
        elif one := re.fullmatch(r"(|  )(\w+): *([^#]*?) *(?:# (.*))?", line):
            if value:
                yield name, value, meaning
            group = group if one[1] else one[2]
            name = f"{group}.{one[2]}" if one[1] else one[2]
            value, meaning = one[3].replace('"', "").replace(", ", ","), one[4] or ""
    if value:
        yield name, value, meaning


def _choices(group: str) -> list[str]:
    """What there is to choose in a folder of configs/."""
    names = sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
    return _paragraph(f"{group}=", ", ".join(names), 14)


def _paragraph(head: str, text: str, column: int) -> list[str]:
    """Lines of a head and, from a column on, the text that belongs to it."""
    indent = " " * (column + 2)
    first = f"  {head:<{column - 1}} "
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False) or [first]
