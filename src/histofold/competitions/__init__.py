"""Competitions by name: `open("dsb2018", Path("input"))` gives an object that knows samples, truth, metric and CSV."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from histofold.competitions.base import Competition, Place, Sample
from histofold.errors import ConfigError

if TYPE_CHECKING:
    from histofold.config import CompetitionConfig

__all__ = ["Competition", "Place", "Sample", "names", "open"]

ADAPTERS = {
    "hubmap_kidney": ("histofold.competitions.hubmap", "HubmapKidney"),
    "dsb2018": ("histofold.competitions.dsb2018", "Dsb2018"),
    "folders": ("histofold.competitions.folders", "Folders"),
}
"""Adapter name → module and class; imported when used, so that one adapter's libraries do not burden the others."""

CONFIGS = Path(__file__).parents[3] / "configs" / "competition"


def names() -> list[str]:
    """Names of the competitions that have a file in configs/competition/, sorted."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def open(config: CompetitionConfig | str, input_dir: Path | str) -> Competition:  # noqa: A001
    """Open a competition from its configuration, or by its name in configs/competition/.

    Nothing is read yet: `check()` and `samples()` do that. The raw files are looked for in `options.folder`, which
    counts from `input_dir`, by default Kaggle's slug, else the name.

    Raises:
        ConfigError: unknown name, adapter or option.
    """
    values = _read(config) if isinstance(config, str) else vars(config)
    name, slug = str(values["name"]), values.get("slug")
    options = dict(values.get("options") or {})
    folder = options.pop("folder", None) or slug or name
    if values["adapter"] not in ADAPTERS:
        raise ConfigError(f"competition.adapter={values['adapter']}: unknown; there are {', '.join(sorted(ADAPTERS))}")
    module, cls = ADAPTERS[values["adapter"]]
    adapter: type[Competition] = getattr(importlib.import_module(module), cls)
    places = Path(input_dir).absolute()
    return adapter(Place(name, slug, Path(places, Path(folder).expanduser()), places, options))


def _read(name: str) -> dict[str, Any]:
    path = CONFIGS / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"competition={name}: unknown; there are {', '.join(names())}")
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    merged: dict[str, Any] = {"options": {}}
    # A competition may build on another of this folder (`defaults: [folders, …]`), as Hydra composes them.
    for base in content.get("defaults", []):
        if isinstance(base, str) and base != "_self_":
            merged = _read(base)
    own = content["competition"]
    return {**merged, **own, "options": {**merged["options"], **own.get("options", {})}}
