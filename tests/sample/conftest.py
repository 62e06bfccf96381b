"""The embedded samples, drawn once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from histofold import competitions
from histofold.competitions.base import Competition


@pytest.fixture(scope="session")
def kidney(tmp_path_factory: pytest.TempPathFactory) -> Competition:
    competition = competitions.open("demo_kidney", tmp_path_factory.mktemp("input"))
    assert competition.provide()
    return competition


@pytest.fixture(scope="session")
def nuclei(tmp_path_factory: pytest.TempPathFactory) -> Competition:
    competition = competitions.open("demo_nuclei", tmp_path_factory.mktemp("input"))
    assert competition.provide()
    return competition


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    return tmp_path / "empty"
