"""From YAML and overrides to one checked `Config`; whatever is wrong becomes a ConfigError of one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from histofold import checks
from histofold.config import Config
from histofold.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
OPEN_GROUPS = ("model", "target", "instances", "loss")
"""Groups whose keys a class decides and not the YAML: `model.dropout=0.1` is taken where the class has `dropout`."""


def compose(overrides: Sequence[str], configs: Path = CONFIGS) -> DictConfig:
    """Compose `configs/config.yaml` with command-line overrides such as `model=unet` and `train.batch=4`.

    Raises:
        ConfigError: an override cannot be parsed, or names an unknown key or choice.
    """
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(configs)):
            return hydra.compose("config", [opened(override) for override in overrides])
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(explain(error, overrides, configs)) from error


def opened(override: str) -> str:
    """Let `model.X=…` through Hydra also where the YAML does not list X; the class's signature decides later."""
    if override.split(".", 1)[0] in OPEN_GROUPS and "." in override.split("=", 1)[0]:
        return f"++{override}"
    return override


def load(composed: DictConfig) -> Config:
    """Put a composed configuration into the schema, check choices and ranges, make relative places absolute.

    Raises:
        ConfigError: a key is unknown or missing, a value has the wrong type or is out of range.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), composed)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(_schema_message(error, composed)) from error
    assert isinstance(config, Config)
    if config.root == ".":
        config.root = str(ROOT)
    # A job of a launcher may run in another folder than the one where these were typed.
    config.images = config.images and str(Path(config.images).absolute())
    config.file = config.file and str(Path(config.file).absolute())
    checks.settings(config)
    return config


def explain(error: Exception, overrides: Sequence[str], configs: Path = CONFIGS) -> str:
    """Say in one line what Hydra found wrong with `overrides`."""
    text = str(error)
    if found := re.search(r"Could not find '([^']+)'", text):
        return _unknown_choice(found[1], text)
    if found := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(found[1], known_keys(overrides, configs))
    if found := re.search(r"Ambiguous value for argument '([^']+)'", text):
        key, _, value = found[1].partition("=")
        return f"{found[1]}: several values; -m before it runs one job for each, {key}=[{value}] means a list"
    if found := re.search(r"Multiple values for ([\w/@.]+)", text):
        return f"{found[1]}: chosen twice"
    for override in overrides:
        if not _parses(override):
            return f"{override}: not understood; expected key=value, with odd characters quoted: key='\"a (b), c\"'"
    return text.split("\n", 1)[0]


def known_keys(overrides: Sequence[str] = (), configs: Path = CONFIGS) -> list[str]:
    """All keys, dotted, of the configuration with the choices in `overrides`, and the names of the groups."""
    groups = [path.name for path in configs.iterdir() if path.is_dir() and path.name != "hydra"]
    choices = [override for override in overrides if override.split("=", 1)[0] in groups and "," not in override]
    with initialize_config_dir(version_base="1.3", config_dir=str(configs)):
        tree = OmegaConf.to_container(hydra.compose("config", choices))
    assert isinstance(tree, dict)
    return sorted({*_dotted(tree), *groups})


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known word that is most like `word`, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _dotted(tree: dict[Any, Any], prefix: str = "") -> Iterable[str]:
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")


def _unknown_key(key: str, known: Sequence[str]) -> str:
    hint = nearest(key, known)
    if not hint:
        # `batch` is meant for `train.batch`: the last part says more than the whole.
        last = key.rsplit(".", 1)[-1]
        same = [other for other in known if other.rsplit(".", 1)[-1] == last]
        hint = f"; did you mean {' or '.join(repr(other) for other in same)}?" if same else ""
    return f"{key}: unknown setting{hint or '; all settings are in configs/config.yaml'}"


def _unknown_choice(found: str, text: str) -> str:
    group, _, choice = found.rpartition("/")
    choices = re.findall(r"^\t(\w\S*)$", text, flags=re.MULTILINE)
    if group == "hydra/launcher":
        return (
            f"{group}={choice}: not installed; there are {', '.join(choices)}, "
            "and pip install -r requirements-cluster.txt brings ray, submitit_slurm and submitit_local"
        )
    return f"{group}={choice}: unknown {group}{nearest(choice, choices)}; expected one of: {', '.join(choices)}"


def _parses(override: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    try:
        return bool(OverridesParser.create().parse_override(override).key_or_group)
    except HydraException:
        return False


def _schema_message(error: OmegaConfBaseException, composed: DictConfig) -> str:
    key = str(error.full_key or "")
    text = (str(error.msg) if error.msg else str(error)).split("\n", 1)[0]
    if "not in" in text and "Key" in text:
        tree = OmegaConf.to_container(OmegaConf.structured(Config))
        assert isinstance(tree, dict)
        return _unknown_key(key, sorted(_dotted(tree)))
    if "Missing mandatory value" in text or "Structured config of type" in text:
        return f"{key}: missing; every setting of configs/config.yaml needs a value"
    value = OmegaConf.select(composed, key) if key else None
    return f"{key}={value}: expected {checks.expected_type(key)}, found {type(value).__name__} {value!r}"
