"""What all tests share: the option that adds the slow ones, and an environment without a person's secrets."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A kernel that is compiled in a property's first example takes seconds; pytest-timeout ends what hangs.
settings.register_profile("histofold", deadline=None)
settings.load_profile("histofold")

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("HISTOFOLD_QUIET", "1")
os.environ.setdefault("MPLBACKEND", "agg")

pytest_plugins = ["fake_kaggle", "kaggle_tree"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the tests marked slow, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # A test that is named on the command line runs, slow or not.
    if config.getoption("--all") or any("::" in str(argument) for argument in config.args):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
