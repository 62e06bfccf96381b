"""Wheels of packages that Kaggle's image lacks: a notebook without internet has no other way to them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from histofold.errors import ConfigError
from histofold.kaggle.credentials import KaggleError
from histofold.offline.manifest import Wheel
from histofold.offline.start import release

READER = ("rasterio", "affine", "cligj", "click-plugins")
"""Slides and band files; Kaggle's list of packages does not have them, its base image had them at times."""

BY_MODEL = {"smp": ("segmentation-models-pytorch",)}
"""Network → what it needs beside torch and timm, which the image has."""

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux2014_x86_64", "manylinux_2_17_x86_64", "any")


def needed(models: Iterable[str]) -> list[str]:
    """Requirements of an ensemble with these networks that Kaggle's image lacks or may lack."""
    return [*READER, *(name for model in sorted(set(models)) for name in BY_MODEL.get(model, ()))]


def gather(wanted: Sequence[str], folder: Path, pythons: Sequence[str], asked: bool) -> list[Wheel]:
    """Put wheels into `folder`: files are copied, requirements are fetched by pip; gives what they are.

    Args:
        wanted: paths of .whl files, and requirements such as `rasterio` or `rasterio==1.4.3`; nothing that they depend
            on comes along.
        folder: created when there is anything to put in.
        pythons: versions of Python that the image may have, such as 3.11; pip takes a wheel for each.
        asked: whether the user listed them.

    Raises:
        ConfigError: a file that is none, or no wheel.
        KaggleError: pip could not fetch one; says how to go on without a network.
    """
    return [_gathered(item, folder, pythons, asked) for item in wanted]


def _gathered(item: str, folder: Path, pythons: Sequence[str], asked: bool) -> Wheel:
    folder.mkdir(parents=True, exist_ok=True)
    item = item.strip()
    if item.endswith(".whl"):
        path = Path(item).expanduser()
        if not path.is_file():
            raise ConfigError(f"kernel.wheels: {item}: no such file")
        if len(path.stem.split("-")) < 5:
            raise ConfigError(f"kernel.wheels: {item}: no wheel's name; expected NAME-VERSION-PYTHON-ABI-PLATFORM.whl")
        shutil.copyfile(path, folder / path.name)
        name, version = path.name.split("-")[:2]
        return Wheel(_canonical(name), version, asked)
    for python in pythons:
        _fetch(item, folder, python)
    name = _canonical(re.split(r"[^\w.-]", item, maxsplit=1)[0])
    found = [path.name.split("-")[:2] for path in folder.glob("*.whl")]
    versions = [version for one, version in found if _canonical(one) == name]
    if not versions:
        raise ConfigError(f"kernel.wheels: {item}: pip gave no wheel called {name}; expected NAME or NAME==VERSION")
    return Wheel(name, min(versions, key=release), asked)


def _canonical(name: str) -> str:
    """A distribution's name as all of its spellings are compared: lower case, with hyphens."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _fetch(requirement: str, folder: Path, python: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", python, "--implementation", "cp", "--dest", str(folder)]
    command += [f"--platform={platform}" for platform in PLATFORMS]
    done = subprocess.run([*command, requirement], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:]
        reason = lines[0].removeprefix("ERROR: ") if lines else f"pip gave {done.returncode}"
        raise KaggleError(
            f"{requirement}: pip could not fetch its wheel for Python {python} ({reason}); without a network put "
            "wheel files into kernel.wheels=[/path/a.whl], or leave them out with kernel.wheels=[]"
        )
