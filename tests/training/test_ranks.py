"""What one rank does for all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from histofold.errors import ConfigError
from histofold.training.ranks import on_first


def rank(number: int, told: Any = None) -> Any:
    """A Fabric of that rank; those that wait are `told` how rank 0 fared."""
    return SimpleNamespace(is_global_zero=number == 0, broadcast=lambda value: value if number == 0 else told)


def refuse() -> None:
    raise ConfigError("what is wrong")


def test_the_first_works_and_the_others_go_on() -> None:
    done: list[int] = []
    on_first(rank(0), lambda: done.append(0))
    on_first(rank(1), lambda: done.append(1))
    assert done == [0]


def test_where_it_fails_the_first_says_why_and_the_others_end_quietly_with_its_code() -> None:
    with pytest.raises(ConfigError, match="what is wrong"):
        on_first(rank(0), refuse)
    with pytest.raises(SystemExit) as end:
        on_first(rank(1, told=ConfigError.exit_code), refuse)
    assert end.value.code == 2
