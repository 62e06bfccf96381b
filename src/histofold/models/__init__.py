"""The networks: `build(name, outputs, **options)` makes one, input float (B, 3, H, W), output raw (B, outputs, H, W).

Raw means without activation: which one belongs to it, the target says. In eval mode every network gives one tensor; a
network with deep supervision gives a tuple in train mode, shallow first. Every network has `divisor`: sides that are
multiples of it lose nothing to rounding, so the predictor pads to it.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
from typing import Any

from torch import nn

from histofold.errors import ConfigError

# Asks the system for large pages: on a CPU, half the time of a large network goes into touching fresh memory page by
# page. torch reads this once, when it first needs much memory; who has set it otherwise keeps that.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_CLASSES = {
    "unet": "histofold.models.unet:UNet",
    "smp": "histofold.models.zoo:SmpNet",
    "kidney_segnet": "histofold.models.kidney_segnet:KidneySegNet",
    "fullnet": "histofold.models.fullnet:FullNet",
    "glomerulus_unet": "histofold.models.glomerulus_unet:GlomerulusUNet",
    "unetpp": "histofold.models.unetpp:UNetPlusPlus",
}
"""Module and class of every network; imported when asked for, so that none pays for another's imports."""


def names() -> list[str]:
    """Names that `build` knows."""
    return sorted(_CLASSES)


def network_class(name: str) -> type[nn.Module]:
    """The class behind a name.

    Raises:
        ConfigError: no network has this name.
    """
    if name not in _CLASSES:
        close = difflib.get_close_matches(name, _CLASSES, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ConfigError(f"model.name: unknown network {name!r}; known are {', '.join(names())}.{hint}")
    module, attribute = _CLASSES[name].split(":")
    found: type[nn.Module] = getattr(importlib.import_module(module), attribute)
    return found


def options(name: str) -> dict[str, inspect.Parameter]:
    """The options of a network with their types and defaults, as its class's signature states them.

    A parameter of kind VAR_KEYWORD means that further options are taken and checked by the class itself (`smp`).
    """
    parameters = inspect.signature(network_class(name).__init__, eval_str=True).parameters
    return {key: value for key, value in parameters.items() if key not in ("self", "outputs")}


def build(name: str, outputs: int, **given: Any) -> nn.Module:
    """Make a network with random weights (but for `smp` with `weights`), in train mode.

    Args:
        name: one of `names()`.
        outputs: channels C of the raw output (B, C, H, W).
        given: the network's own options, see `options`.

    Raises:
        ConfigError: unknown network, unknown option, an option out of range, or outputs < 1.
    """
    network = network_class(name)
    if outputs < 1:
        raise ConfigError(f"model {name}: outputs must be at least 1, found {outputs}")
    known = options(name)
    open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values())
    for key in given:
        if key not in known and not open_ended:
            raise ConfigError(f"model.{key}: {name} has no such option; it has {', '.join(known) or 'none'}")
        if key in known:
            _check_type(key, given[key], known[key].annotation)
    return network(outputs, **given)


def _check_type(key: str, value: Any, wanted: Any) -> None:
    """Refuse a value that is not of the plain type that the signature states; an int may stand for a float."""
    if wanted not in (int, float, str, bool):
        return
    allowed = (int, float) if wanted is float else (wanted,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and wanted is not bool):
        raise ConfigError(f"model.{key}: expected {wanted.__name__}, found {type(value).__name__} {value!r}")


def offline(model: dict[str, Any]) -> dict[str, Any]:
    """The same model description with no pretrained weights to fetch: what a checkpoint's network is rebuilt from."""
    return {**model, "weights": "none"} if "weights" in options(str(model["name"])) else dict(model)
