"""The losses: `build(terms, target)` makes a weighted sum of named terms, `loss(raw, batch)` gives a scalar.

`batch` is a dict with `truth`: (B, C, H, W) float for sigmoid and regression targets, (B, H, W) int64 for softmax
targets; `weight` (B, 1, H, W) float, optional, zero on padding; `instances` (B, H, W) int, optional, the objects of
each crop, 0 for background. A tuple of raw outputs (deep supervision) is averaged over its heads.

Dice, Tversky and Lovász leave out the channels that a target names as soft (`border_distance`: the distance; `flow`:
the vectors), unless `steepen` asks Dice and Tversky to count them. They need one of the other terms beside them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import nn

from histofold.errors import ConfigError
from histofold.losses.pixel import CrossEntropy, Focal, Regression
from histofold.losses.region import HardChannels, Lovasz, Tversky
from histofold.losses.varce import VarCE
from histofold.losses.weight_map import WeightMap

Term = Callable[[torch.Tensor, Mapping[str, torch.Tensor]], torch.Tensor]


class TargetLike(Protocol):
    """What a loss wants to know of a target."""

    @property
    def name(self) -> str:
        """As in `target=`."""
        ...

    @property
    def soft(self) -> tuple[int, ...]:
        """Channels whose truth lies between 0 and 1, of a sigmoid target."""
        ...

    @property
    def activation(self) -> str:
        """The activation that belongs to the raw output: sigmoid, softmax, softplus, relu or linear."""
        ...


_TERMS: dict[str, Callable[[str, dict[str, float]], Term]] = {
    "bce": lambda activation, o: CrossEntropy(activation),
    "dice": lambda activation, o: Tversky(activation, smooth=o["smooth"], per_image=bool(o["per_image"])),
    "focal": lambda activation, o: Focal(activation, gamma=o["gamma"]),
    "lovasz": lambda activation, o: Lovasz(activation, per_image=bool(o["per_image"])),
    "tversky": lambda activation, o: Tversky(
        activation, alpha=o["alpha"], beta=o["beta"], smooth=o["smooth"], per_image=bool(o["per_image"])
    ),
    "mse": lambda activation, o: Regression(activation, "mse"),
    "smooth_l1": lambda activation, o: Regression(activation, "smooth_l1"),
    "varce": lambda activation, o: VarCE(activation, alpha=o["variance"]),
}

_REGIONS = ("dice", "tversky", "lovasz")
"""Terms that cannot learn a soft truth; the least of all others is at the truth, whatever it is."""

_SHORTHANDS = {"bce_dice": ("bce", "dice")}

_OPTIONS: dict[str, float] = {
    "smooth": 1.0,  # dice, tversky: added above and below the fraction
    "per_image": 0.0,  # dice, tversky, lovasz: 1 scores each image by itself, 0 the batch as one
    "gamma": 2.0,  # focal: how strongly easy pixels fade
    "alpha": 0.3,  # tversky: weight of false positives
    "beta": 0.7,  # tversky: weight of false negatives
    "steepen": 0.0,  # dice, tversky: 1 counts soft channels, too, which drives depths towards 0 and 1
    "variance": 1.0,  # varce: weight of the variance within instances
    "sigma": 0.0,  # pixels; above 0, the weight map between neighbours (5 for nuclei, 20 for glands)
    "weight0": 10.0,  # the weight map's height
}
"""Options that may stand beside the terms, with their defaults."""


class Loss(nn.Module):
    """A weighted sum of terms; `needs` names what the loader must put into the batch beside the truth.

    `needs` is a subset of {"weight_map", "instances"}; with "weight_map", `weight_map` is the callable that makes it
    from an instance label image (H, W): multiply its result into `weight`.
    """

    def __init__(
        self, terms: Mapping[str, tuple[float, Term]], needs: frozenset[str], weight_map: WeightMap | None
    ) -> None:
        """Make the sum; `build` is the way to call this."""
        super().__init__()
        self.terms = dict(terms)
        self.needs = needs
        self.weight_map = weight_map

    def forward(self, raw: torch.Tensor | tuple[torch.Tensor, ...], batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss of raw outputs (B, C, H, W), or of a tuple of them, as a scalar in float32."""
        heads = raw if isinstance(raw, tuple) else (raw,)
        # Losses are sums over many pixels: below float32 they lose what small nuclei contribute.
        losses = [weight * term(head.float(), batch) for head in heads for weight, term in self.terms.values()]
        return torch.stack(losses).sum() / len(heads)

    def parts(self, raw: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """Each term by its name, unweighted, of one raw output; for logs."""
        with torch.no_grad():
            return {name: float(term(raw.float(), batch)) for name, (_, term) in self.terms.items()}


def names() -> list[str]:
    """Names of the terms that `build` knows."""
    return sorted([*_TERMS, *_SHORTHANDS])


def build(terms: Mapping[str, float], target: TargetLike, **options: float) -> Loss:
    """Make a loss.

    Args:
        terms: weight of each term (`bce`: .5, `dice`: .5); options of `_OPTIONS` may stand among them.
        target: its activation decides between sigmoid, softmax and regression forms; terms of regions leave out its
            soft channels.
        options: as in `terms`, and stronger.

    Raises:
        ConfigError: unknown term or option, no term, a weight that is not positive, a term that does not go with the
            target's activation, or none that learns its soft channels.
    """
    settings = {**_OPTIONS, **{key: value for key, value in terms.items() if key in _OPTIONS}}
    for key, value in options.items():
        if key not in _OPTIONS:
            raise ConfigError(f"loss.{key}: unknown option; known are {', '.join(_OPTIONS)}")
        settings[key] = value
    weights = _expand({key: value for key, value in terms.items() if key not in _OPTIONS})
    built = {name: (weight, _term(name, target, settings)) for name, weight in weights.items()}
    _require_soft(target, list(built))
    weight_map = WeightMap(settings["sigma"], settings["weight0"]) if settings["sigma"] > 0 else None
    needs = {"weight_map"} if weight_map else set[str]()
    if "varce" in built:
        needs.add("instances")
    return Loss(built, frozenset(needs), weight_map)


def _term(name: str, target: TargetLike, settings: dict[str, float]) -> Term:
    """One term, on the channels of the target that it can learn."""
    term = _TERMS[name](target.activation, settings)
    steep = bool(settings["steepen"]) and name != "lovasz"  # under Lovász deeper pixels would not even score higher
    return HardChannels(term, target.soft) if target.soft and name in _REGIONS and not steep else term


def _require_soft(target: TargetLike, terms: list[str]) -> None:
    """Refuse terms that all leave out a target's soft channels: nothing would ever be learned there."""
    if target.soft and all(name in _REGIONS for name in terms):
        raise ConfigError(
            f"loss: expected a term that learns the soft truth of target={target.name} (a depth or a direction), found "
            f"only {', '.join(terms)} (for a truth of 0 or 1); add loss.bce=1"
        )


def _expand(terms: Mapping[str, float]) -> dict[str, float]:
    """Check the terms, and write shorthands out."""
    weights: dict[str, float] = {}
    for name, weight in terms.items():
        if name not in _TERMS and name not in _SHORTHANDS:
            close = difflib.get_close_matches(name, names(), n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ConfigError(f"loss.{name}: unknown term; known are {', '.join(names())}.{hint}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or weight < 0:
            raise ConfigError(f"loss.{name}: expected a weight of at least 0, found {weight!r}")
        if weight == 0:  # how an override switches off a term of a file
            continue
        for part in _SHORTHANDS.get(name, (name,)):
            weights[part] = weights.get(part, 0.0) + float(weight)
    if not weights:
        raise ConfigError(f"loss: expected at least one term with a weight above 0; known are {', '.join(names())}")
    return weights


def describe(loss: Loss) -> dict[str, Any]:
    """The terms and their weights, for a run's log."""
    return {name: weight for name, (weight, _) in loss.terms.items()}
