"""A notebook and the two metadata files that Kaggle's client wants beside what it sends."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from histofold.errors import ConfigError
from histofold.files import digest, write_json, write_text

NOTEBOOK = "notebook.ipynb"
TITLE = (6, 44)
"""Shortest and longest title: Kaggle takes 6 to 50 characters, and the dataset's has a word more."""

DATASET_WORD = "files"


def title_of(text: str) -> str:
    """A title that Kaggle takes: letters, digits and single spaces, shortened with a hash where it is too long."""
    plain = " ".join(re.sub(r"[^a-z0-9]+", " ", text.lower()).split())
    if len(plain) > TITLE[1]:
        plain = f"{plain[: TITLE[1] - 7].strip()} {digest(text)[:6]}"
    if len(plain) < TITLE[0]:
        raise ConfigError(f"kernel.title={text}: expected at least {TITLE[0]} letters and digits")
    return plain


def title_for(competition: str, name: str) -> str:
    """The title of an ensemble's notebook: names that differ only in what a title cannot hold get a hash each."""
    lost = re.fullmatch(r"[a-z0-9]+", name) is None
    return title_of(f"histofold {competition} {name}" + (f" {digest(name)[:6]}" if lost else ""))


def slug_of(title: str) -> str:
    """The slug that Kaggle derives from a title: lower case, hyphens for spaces."""
    return title.lower().replace(" ", "-")


def write_notebook(folder: Path, dataset: str, stamp: str, note: str) -> Path:
    """Write the notebook: a note, the cell that can do everything, and the one that does it; gives its path."""
    source = (Path(__file__).parents[1] / "offline" / "start.py").read_text(encoding="utf-8")
    cells = [
        {"cell_type": "markdown", "id": "note", "metadata": {}, "source": note},
        _code("functions", source.rstrip()),
        _code("run", f'start("{dataset}", "{stamp}")'),
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    language = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
    content = {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": language},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    write_text(folder / NOTEBOOK, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return folder / NOTEBOOK


def _code(name: str, source: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": name,
        "metadata": {},
        "outputs": [],
        "source": source,
    }


def write_kernel_metadata(folder: Path, owner: str, title: str, competition: str | None, gpu: bool) -> dict[str, Any]:
    """Write kernel-metadata.json: private, without internet, with dataset and competition; gives its content."""
    content = {
        "id": f"{owner}/{slug_of(title)}",
        "title": title,
        "code_file": NOTEBOOK,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": gpu,
        "enable_tpu": False,
        "enable_internet": False,
        "dataset_sources": [dataset_of(owner, title)],
        "competition_sources": [competition] if competition else [],
        "kernel_sources": [],
        "model_sources": [],
    }
    write_json(folder / "kernel-metadata.json", content)
    return content


def write_dataset_metadata(folder: Path, owner: str, title: str) -> dict[str, Any]:
    """Write dataset-metadata.json; datasets are private unless one asks for more; gives its content."""
    content = {
        "id": dataset_of(owner, title),
        "title": f"{title} {DATASET_WORD}",
        "licenses": [{"name": "other"}],
    }
    write_json(folder / "dataset-metadata.json", content)
    return content


def dataset_of(owner: str, title: str) -> str:
    """`owner/slug` of the dataset that belongs to a notebook's title."""
    return f"{owner}/{slug_of(title)}-{DATASET_WORD}"
