"""The notebook's cell: find the export under /kaggle/input, install what the image lacks, and run it.

It is copied into the notebook as it stands, so it imports nothing that does not come with Python.
HISTOFOLD_INPUT and HISTOFOLD_WORKING stand in for /kaggle/input and /kaggle/working elsewhere.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from importlib import import_module, metadata
from pathlib import Path

BEGUN = time.monotonic()
MARKER = "histofold-export.json"


def find_export(inputs: Path, dataset: str, stamp: str) -> Path:
    """The export's folder: Kaggle mounts a dataset as <slug>/ or as datasets/<owner>/<slug>/."""
    found = [path for depth in range(1, 5) for path in sorted(inputs.glob("*/" * depth + MARKER))]
    for path in found:
        manifest = json.loads(path.read_text())
        if manifest["dataset"] == dataset:
            if manifest["stamp"] == stamp:
                return path.parent
            raise SystemExit(f"{path}: another version of {dataset} than this notebook is for; push both again")
    raise SystemExit(f"{inputs}: no {MARKER} of {dataset} in it; add that dataset to the notebook")


def install(export: Path, scratch: str) -> None:
    """Install wheels into a folder of their own, which comes before the image's packages, without a network.

    Those that the user listed always, the others where the image has none or an older one; that one stays where there
    is no wheel for this Python.
    """
    wheels = json.loads((export / MARKER).read_text())["wheels"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", scratch]
    for wheel in wheels:
        name = wheel["name"]
        if not wheel["asked"] and not lacks(name, wheel["version"]):
            continue
        print("installing", name, flush=True)
        done = subprocess.run([*command, "--find-links", str(export / "wheels"), name], check=False)
        if done.returncode and (wheel["asked"] or lacks(name, "0")):
            raise SystemExit(f"{name}: its wheel cannot be installed; export for Python {sys.version.split()[0]}")
        if done.returncode:
            print(f"!!! {name}: stays at the image's {metadata.version(name)}", flush=True)
        elif scratch not in sys.path:
            sys.path.insert(0, scratch)


def lacks(name: str, version: str) -> bool:
    """Whether the image has no such package, or an older one than `version`."""
    try:
        return release(metadata.version(name)) < release(version)
    except metadata.PackageNotFoundError:
        return True


def release(version: str) -> list[int]:
    """The numbers of a version: 1.4.4 of 1.4.4.post1+local; without zeros at the end, which mean nothing."""
    numbers = [int(number) for number in re.split(r"[^\d.]", version, maxsplit=1)[0].split(".") if number]
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers


def start(dataset: str, stamp: str) -> Path:
    """Run the export; gives the path of submission.csv."""
    inputs = Path(os.environ.get("HISTOFOLD_INPUT", "/kaggle/input"))
    working = Path(os.environ.get("HISTOFOLD_WORKING", "/kaggle/working"))
    export = find_export(inputs, dataset, stamp)
    scratch = tempfile.mkdtemp(prefix="histofold-packages-")
    # Nothing is written beside the input: compiled functions are kept elsewhere.
    sys.dont_write_bytecode = True
    os.environ.setdefault("NUMBA_CACHE_DIR", tempfile.mkdtemp(prefix="histofold-numba-"))
    install(export, scratch)
    sys.path.insert(0, str(export / "package"))
    path: Path = import_module("histofold.offline.run").main(export, inputs, working, BEGUN)
    return path
