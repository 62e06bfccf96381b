"""Which values settings may take: choices, ranges, and options that fit the class they are for."""

from __future__ import annotations

import difflib
import inspect
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, Literal, Union, get_args, get_origin

from histofold import options as known_options
from histofold.config import Config
from histofold.errors import ConfigError

CHOICES: dict[str, tuple[str, ...]] = {
    "resume": ("auto", "never"),
    "prepare.kind": ("whole", "tiles"),
    "train.precision": ("auto", "32-true", "16-mixed", "bf16-mixed"),
    "train.accelerator": ("auto", "cpu", "gpu", "cuda", "mps"),
    "predict.window": ("hann", "triangle", "flat"),
    "predict.tta": ("none", "flips", "dihedral"),
    "predict.precision": ("auto", "32-true", "16-mixed", "bf16-mixed"),
    "evaluate.search": ("equal", "greedy", "optimise", "best"),
    "evaluate.per_stratum": ("auto", "always", "never"),
    "evaluate.second_level": ("off", "auto", "on"),
}
"""Settings that are words, and the words that they know."""

LISTED: dict[str, tuple[str, ...]] = {
    "prepare.grids": ("grid", "shifted", "centred"),
    "train.loggers": ("tensorboard", "wandb", "mlflow"),
}
"""Settings that are lists of words."""

DEVICES = ("predict.device", "kernel.device")
"""Settings that name a device; whether it is there is found out where it is used, perhaps on another machine."""

OPTIONS: dict[str, type] = {
    "augment": known_options.AugmentOptions,
    "optimizer": known_options.OptimizerOptions,
}
"""Groups that are a dataclass each, whatever is chosen."""

PLACES = ("images", "file", "root", "train.start", "paths.input", "paths.prepared", "paths.oof", "paths.submissions")
"""Settings that are paths: an empty one would mean the current folder."""

RESERVED = "ensembles"
"""Folder of the ensembles beside the runs, which no run can be called."""

INFINITE = float("inf")
RANGES: dict[str, tuple[float, float]] = {
    "fold": (0, INFINITE),
    "seed": (0, 2**32 - 1),
    "prepare.tile": (16, INFINITE),
    "prepare.scale": (1, INFINITE),
    "prepare.min_tissue": (0, 1),
    "prepare.n_folds": (2, INFINITE),
    "prepare.fold_seed": (0, 2**32 - 1),
    "prepare.workers": (0, INFINITE),
    "train.epochs": (1, INFINITE),
    "train.samples_per_epoch": (1, INFINITE),
    "train.batch": (1, INFINITE),
    "train.crop": (16, INFINITE),
    "train.accumulate": (1, INFINITE),
    "train.clip": (0, INFINITE),
    "train.ema": (0, 0.999999),
    "train.devices": (1, INFINITE),
    "train.workers": (0, INFINITE),
    "train.validate_every": (0, INFINITE),
    "train.checkpoint_minutes": (0, INFINITE),
    "train.balance": (0, INFINITE),
    "train.even_strata": (0, 1),
    "predict.tile": (0, INFINITE),
    "predict.step": (0.05, 1),
    "predict.margin": (0, INFINITE),
    "predict.batch": (1, INFINITE),
    "predict.size": (0, INFINITE),
    "evaluate.bootstrap": (1, INFINITE),
    "evaluate.workers": (0, INFINITE),
    "evaluate.depths": (0, INFINITE),
    "submit.min_area": (0, INFINITE),
    "submit.max_hole": (0, INFINITE),
    "kernel.hours": (0.01, INFINITE),
    "limits.hours": (0, INFINITE),
}
"""Settings that are numbers, and the smallest and largest that make sense."""


def settings(config: Config) -> None:
    """Check choices, ranges and forms of everything that does not depend on data.

    Raises:
        ConfigError: names the first setting that does not fit, and what would.
    """
    _places(config)
    for key, words in CHOICES.items():
        _one_of(key, _get(config, key), words)
    for key, words in LISTED.items():
        for value in _get(config, key):
            _one_of(key, value, words)
    for key, (low, high) in RANGES.items():
        value = _get(config, key)
        if value is not None and not low <= value <= high:
            raise _out_of_range(key, value, low, high)
    for key in DEVICES:
        _device(key, _get(config, key))
    _groups(config)
    _tiles_alike(config)
    if config.shard is not None:
        _shard(config.shard)
    _folds(config.folds)
    for group in ("model", "target", "instances"):
        if not isinstance(getattr(config, group).get("name"), str):
            raise ConfigError(f"{group}.name: missing; choose one with {group}=NAME")
    _names(config)


def _names(config: Config) -> None:
    for key in ("run", "name"):
        value = getattr(config, key)
        if value is not None and not re.fullmatch(r"[\w][\w.+-]*", value):
            raise ConfigError(f"{key}={value}: expected a name for a folder: letters, digits, _ . + - and no more")
    if config.run_name().lower() == RESERVED:
        raise ConfigError(f"run={config.run_name()}: the ensembles' own folder is called so; choose another run=")


def options(group: str, given: Mapping[str, Any], known: Mapping[str, inspect.Parameter]) -> None:
    """Check the options of one choice against the signature of the class that they go to.

    Args:
        group: `model`, `target` or `instances`, for the message.
        given: the configuration of the group, with its `name`.
        known: the parameters of the class.

    Raises:
        ConfigError: an option does not exist or has the wrong type.
    """
    name = given.get("name")
    # A class that takes **options (smp) checks them itself, when it is built.
    open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values())
    for key, value in given.items():
        if key == "name" or (open_ended and key not in known):
            continue
        if key not in known:
            close = difflib.get_close_matches(key, list(known), n=1)
            hint = f"; did you mean {group}.{close[0]}?" if close else ""
            raise ConfigError(f"{group}.{key}: {name} has no such option{hint} (it has: {', '.join(known) or 'none'})")
        annotation = _annotation(known[key])
        if annotation is not None and not fits(value, annotation):
            raise ConfigError(
                f"{group}.{key}={value}: expected {_readable(annotation)}, found {type(value).__name__} {value!r}"
            )


def _groups(config: Config) -> None:
    """Check the options that the same classes take whatever is chosen, and the numbers of the loss."""
    for group in OPTIONS:
        _group(group, getattr(config, group))
    for key, value in config.loss.items():
        _within(f"loss.{key}", value, 0, INFINITE)


def _tiles_alike(config: Config) -> None:
    """Check that tiles of slides have one size where their pixels are enhanced: what comes out depends on all of them.

    Raises:
        ConfigError: a tile would be enhanced in training together with other pixels than in prediction.
    """
    on = [f"augment.{name}={config.augment[name]}" for name in ("stretch", "clahe") if config.augment.get(name, 0) > 0]
    tile, crop, predicted = config.prepare.tile, config.train.crop, config.predict.tile
    if config.prepare.kind == "tiles" and on and (tile != crop or predicted not in (0, crop)):
        raise ConfigError(
            f"{' '.join(on)}: looks at all of a tile, so slides need one size in training and prediction; found "
            f"prepare.tile={tile}, train.crop={crop}, predict.tile={predicted}; expected prepare.tile={crop} "
            "predict.tile=0, or augment.stretch=0 augment.clahe=0"
        )


def _group(group: str, given: Mapping[str, Any]) -> None:
    """Check the values of one of `OPTIONS` against its annotations, ranges and choices.

    Raises:
        ConfigError: names the first that does not fit, and what would.
    """
    known = typing.get_type_hints(OPTIONS[group])
    for name, value in given.items():
        key = f"{group}.{name}"
        if name not in known:
            close = difflib.get_close_matches(name, list(known), n=1)
            hint = f"; did you mean {group}.{close[0]}?" if close else f" (there are: {', '.join(known)})"
            raise ConfigError(f"{key}: no such option{hint}")
        if not fits(value, known[name]):
            raise ConfigError(
                f"{key}={value}: expected {_readable(known[name])}, found {type(value).__name__} {value!r}"
            )
        if key in known_options.CHOICES:
            _one_of(key, value, known_options.CHOICES[key])
        if key in known_options.RANGES and value is not None:
            _within(key, value, *known_options.RANGES[key])


def _within(key: str, value: Any, low: float, high: float) -> None:
    """Check a number, the two ends of a range of numbers, or one number for each channel.

    Raises:
        ConfigError: it is no finite number from `low` to `high`, or the range ends before it begins.
    """
    ends = value if isinstance(value, (list, tuple)) else [value]
    if not all(math.isfinite(end) and low <= end <= high for end in ends):
        raise _out_of_range(key, value, low, high)
    if len(ends) == 2 and list(ends) != sorted(ends):
        raise ConfigError(f"{key}={value}: expected the smaller number first")


def _out_of_range(key: str, value: Any, low: float, high: float) -> ConfigError:
    bound = f"at least {low:g}" if high == INFINITE else f"from {low:g} to {high:g}"
    return ConfigError(f"{key}={value}: out of range; expected {bound}")


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value read from YAML can stand where `annotation` is asked for; unknown annotations fit."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is Any or annotation is None:
        return True
    if origin in (Union, types.UnionType):
        return any(value is None if one is type(None) else fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin is dict or annotation is dict:
        return isinstance(value, Mapping)
    if origin is tuple and inner and Ellipsis not in inner:
        return isinstance(value, (list, tuple)) and len(value) == len(inner) and all(map(fits, value, inner))
    if origin in (list, tuple) or _is_sequence(origin or annotation):
        items = [one for one in inner if one is not Ellipsis]
        return isinstance(value, (list, tuple)) and all(fits(item, items[0]) for item in value if items)
    if annotation is bool or annotation is str:
        return isinstance(value, annotation)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return True


def expected_type(key: str) -> str:
    """What the schema wants for a dotted key, in plain words."""
    owner: Any = Config
    for part in key.split("."):
        part = part.split("[", 1)[0]
        if not is_dataclass(owner):
            break
        owner = typing.get_type_hints(owner)[part]
    if get_origin(owner) is dict and key.count("."):
        owner = get_args(owner)[1]
    return "a group of settings" if is_dataclass(owner) else _readable(owner)


def _readable(annotation: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    if annotation in words:
        return words[annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(_readable(one) for one in inner)
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin is tuple and inner and Ellipsis not in inner:
        return f"a list of {len(inner)} values"
    if origin in (list, tuple) or _is_sequence(origin or annotation):
        return "a list such as [a,b]"
    if origin is dict:
        return "a group of settings"
    return str(annotation)


def _is_sequence(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Sequence) and not issubclass(kind, (str, bytes))


def _annotation(parameter: inspect.Parameter) -> Any:
    """The parameter's annotation as a type; None where it has none, or only its text is known."""
    annotation = parameter.annotation
    return None if annotation is inspect.Parameter.empty or isinstance(annotation, str) else annotation


def _get(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _one_of(key: str, value: Any, words: tuple[str, ...]) -> None:
    if value not in words:
        close = difflib.get_close_matches(str(value), words, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"{key}={value}: expected one of {', '.join(words)}{hint}")


def _places(config: Config) -> None:
    for key in PLACES:
        if _get(config, key) == "":
            none = f", or {key}=null for none" if key in ("images", "file", "train.start") else ""
            raise ConfigError(f"{key}=: empty, as of a shell variable that is not set; expected a path{none}")


def _device(key: str, value: str) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        raise ConfigError(f"{key}={value}: expected auto, cpu, cuda or cuda:N, the N-th GPU from 0")


def _folds(folds: Any) -> None:
    fine = re.fullmatch(r"[^\W\d][\w.+-]*", folds) if isinstance(folds, str) else isinstance(folds, Sequence)
    if not fine:
        raise ConfigError(
            f"folds={folds}: expected all, a list such as [0,1] or the name of a fold set; fold=0 is one fold"
        )


def _shard(shard: str) -> None:
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not found or not int(found[1]) < int(found[2]):
        raise ConfigError(f"shard={shard}: expected i/n with 0 ≤ i < n, for example shard=0/4")
