"""From YAML and overrides to one checked `Config`; whatever is wrong becomes a ConfigError of one line."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
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

TEXTS = (
    *("images", "file", "root", "train.start", "paths.", "competition.options.folder"),
    *("submit.message", "kernel.message", "kernel.title"),
)
"""Settings that are paths or texts, a dot ends a group of them: they may hold what means something to Hydra."""

LISTS = ("kernel.wheels",)
"""Settings that are lists of such texts."""


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
    """An override as Hydra takes it.

    `model.X=…` goes through also where the YAML does not list X; the class's signature decides later. Paths
    and messages are taken as they were typed, whatever characters they hold, and so are requirements such as
    `rasterio>=1.3`.
    """
    key, sign, value = override.partition("=")
    if override.split(".", 1)[0] in OPEN_GROUPS and "." in key:
        return f"++{override}"
    name = key.lstrip("+")
    if sign and _is_text(name):
        return f"{key}={_quoted(value)}" if not _sweeps(override) else override
    if name in LISTS and value.startswith("[") and value.endswith("]") and not _parses(override):
        return f"{key}=[{','.join(_quoted(item) for item in _items(value[1:-1]))}]"
    return override


def _is_text(key: str) -> bool:
    return any(key == text or (text.endswith(".") and key.startswith(text)) for text in TEXTS)


def _quoted(text: str) -> str:
    """A text in quotes for Hydra; what it is quoted in already, and what stands for nothing, stays."""
    if text in ("", "null") or (len(text) > 1 and text[0] == text[-1] and text[0] in "'\""):
        return text
    return QuotedString(text, Quote.single).with_quotes()


def _items(text: str) -> list[str]:
    """Parts of a list at its commas, but for those inside of a requirement: `a>=1,<2,b` → `a>=1,<2`, `b`."""
    return [item.strip() for item in re.split(r",(?!\s*[<>=!~])", text) if item.strip()]


def _sweeps(override: str) -> bool:
    """Whether Hydra takes it for several values, each for a job of its own."""
    try:
        return OverridesParser.create().parse_override(override).is_sweep_override()
    except HydraException:
        return False


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
    config.images = config.images and str(Path(config.images).expanduser().absolute())
    config.file = config.file and str(Path(config.file).expanduser().absolute())
    if config.train.start is not None and config.train.start_is_file():
        config.train.start = _start(config.train.start, Path(config.root))
    checks.settings(config)
    return config


def _start(start: str, root: Path) -> str:
    """The file of `train.start` as runs are compared by it: from the root where it is typed so and below, else whole.

    It counts from the current folder; where there is no such file, it is left to count from the root.
    """
    path = Path(start).expanduser().absolute()
    if not path.is_file():
        return start
    return str(path.relative_to(root)) if path.is_relative_to(root) and not Path(start).is_absolute() else str(path)


def explain(error: Exception, overrides: Sequence[str], configs: Path = CONFIGS) -> str:
    """Say in one line what Hydra found wrong with `overrides`."""
    text = str(error)
    if found := re.search(r"Could not find '([^']+)'", text):
        return _unknown_choice(found[1], text)
    if found := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(found[1], known_keys(overrides, configs))
    if found := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{found[1]}: several values; -m before it runs one job for each{_as_one(found[1])}"
    if found := re.search(r"Multiple values for ([\w/@.]+)", text):
        return f"{found[1]}: chosen twice"
    for override in overrides:
        if not _parses(opened(override)):
            return f"{override}: not understood; expected key=value, with odd characters quoted: key='\"a (b), c\"'"
    return text.split("\n", 1)[0]


def _as_one(override: str) -> str:
    """How what has a comma is typed as one value, ready for a shell; nothing where no single value has any."""
    key, _, value = override.partition("=")
    name = key.lstrip("+")
    if _is_text(name):
        return f", {shlex.quote(f'{key}={QuotedString(value, Quote.double).with_quotes()}')} means one text"
    if _may_be_list(name):
        return f", {shlex.quote(f'{key}=[{value}]')} means a list"
    return ""


def _may_be_list(key: str) -> bool:
    """Whether the schema wants a list, or leaves it to a class what it wants."""
    try:
        kind = checks.expected_type(key)
    except KeyError:
        return False
    return "a list" in kind or kind == str(Any)


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
    try:
        return bool(OverridesParser.create().parse_override(override).key_or_group)
    except HydraException:
        return False


def _schema_message(error: OmegaConfBaseException, composed: DictConfig) -> str:
    key = str(error.full_key or "")
    if found := re.search(r"(?:Missing mandatory value: |Interpolation key ')([\w.]+)", str(error)):
        # An interpolation (model.size is train.crop) is not what is missing, but what it refers to.
        return f"{found[1]}: missing; every setting of configs/config.yaml needs a value"
    text = (str(error.msg) if error.msg else str(error)).split("\n", 1)[0]
    if "not in" in text and "Key" in text:
        tree = OmegaConf.to_container(OmegaConf.structured(Config))
        assert isinstance(tree, dict)
        return _unknown_key(key, sorted(_dotted(tree)))
    if "Missing mandatory value" in text or "Structured config of type" in text:
        return f"{key}: missing; every setting of configs/config.yaml needs a value"
    value = OmegaConf.select(composed, key) if key else None
    return f"{key}={value}: expected {checks.expected_type(key)}, found {type(value).__name__} {value!r}"
