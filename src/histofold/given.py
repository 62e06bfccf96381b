"""The command that was typed, so that advice can name the next one with the same competition, experiment and paths."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parents[2] / "configs" / "competition"

OF_OTHERS = (
    *("fold", "run", "runs", "name", "resume", "file", "images", "shard", "hydra"),
    *("model", "loss", "augment", "optimizer", "instances", "train", "predict", "evaluate", "submit", "kernel"),
)
"""Settings and groups that `prepare` and `download` do not read, or (`shard`) that would make them do a part only."""

LEFT_OUT: dict[str, tuple[str, ...]] = {
    **{"prepare": OF_OTHERS, "download": OF_OTHERS},
    **dict.fromkeys(("evaluate", "kernel"), ("images", "shard", "submit.send")),
}
"""Verb → what of another verb's command is not handed on to it."""

_typed: list[tuple[str, ...]] = []


@contextmanager
def command(overrides: Sequence[str]) -> Iterator[None]:
    """Remember the overrides of the verb that runs."""
    _typed.append(tuple(overrides))
    try:
        yield
    finally:
        _typed.pop()


def again(verb: str, name: str, *more: str) -> str:
    """The command line that runs `verb` for what was typed, ready for a shell: bash and zsh take it as it stands.

    Args:
        verb: that is advised.
        name: of the competition, for programs that call the package without a command line.
        more: overrides of its own; they stand for typed ones of the same key.
    """
    if not _typed:
        return shlex.join(["./run.sh", verb, *choice(name), *more])
    own = {key_of(override) for override in more}
    kept = [override for override in _typed[-1] if key_of(override) not in own and _handed_on(verb, override)]
    return shlex.join(["./run.sh", verb, *kept, *more])


def key_of(override: str) -> str:
    """The key that an override sets, adds or takes away."""
    return override.split("=", 1)[0].lstrip("+~")


def _handed_on(verb: str, override: str) -> bool:
    key = key_of(override)
    return not any(key == other or key.startswith((f"{other}.", f"{other}/")) for other in LEFT_OUT.get(verb, ()))


def choice(name: str) -> list[str]:
    """Overrides that choose a competition by its name, which several have from no file but on top of `folders`."""
    if (CONFIGS / f"{name}.yaml").is_file():
        return [f"competition={name}"]
    return ["competition=folders", f"competition.name={name}"]


def typed_value(value: Any) -> str:
    """A setting's value as it is typed: lists and groups without the quotes and spaces of Python's."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{typed_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(typed_value, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
