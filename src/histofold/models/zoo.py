"""Any architecture of segmentation-models-pytorch on any of its encoders or timm's, by name."""

from __future__ import annotations

import difflib
import inspect
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn

from histofold.errors import ConfigError, DataError, ResourceError
from histofold.models.weights import load_encoder

_OWN = ("encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params")
"""Arguments of an architecture that this wrapper sets itself."""
_HALVED = {smp.PAN: 8}
"""Cells of the encoder's coarsest map that a decoder needs along a side; PAN halves them three times."""


class SmpNet(nn.Module):
    """A network of segmentation-models-pytorch (Iakubovskii, 2019) with an ImageNet encoder of theirs or of timm.

    Input (B, 3, H, W) with sides that are multiples of `divisor` (32 for most encoders) and at least `smallest`; output
    raw (B, outputs, H, W). `arch` is one of theirs, in any case (Unet, UnetPlusPlus, FPN, DeepLabV3Plus, Segformer …);
    `encoder` is one of theirs (resnet18) or any of timm's that gives features, with `tu-` before its name
    (tu-convnext_tiny). `weights` is `none` (random), `imagenet` (fetched once from the hub) or a file with the
    encoder's weights (.pth, .pt, .safetensors). Any further option goes to the architecture, for instance
    `decoder_channels=[128, 64, 32, 16, 8]` or `decoder_attention_type="scse"`.

    What differs from theirs: the head's bias starts at zero and its output is linear, so it can not die and is left
    alone; an unknown option is an error here (they ignore some).

    Example:
        >>> SmpNet(outputs=2, arch="Unet", encoder="resnet18")(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 2, 64, 64])
    """

    def __init__(
        self, outputs: int, arch: str = "Unet", encoder: str = "resnet18", weights: str = "none", **further: Any
    ) -> None:
        """Make the network; see the class for the options.

        Raises:
            ConfigError: unknown architecture, encoder or option.
            DataError: the weights file is missing or does not fit the encoder.
            ResourceError: the weights can not be fetched.
        """
        super().__init__()
        network_class = _architecture(arch)
        _check_encoder(encoder)
        known = inspect.signature(network_class.__init__).parameters
        for key in further:
            if key in _OWN or key not in known:
                raise ConfigError(f"model.{key}: {arch} has no such option; it has {', '.join(_options_of(known))}")
        self.net = _create(network_class, encoder, weights, classes=outputs, **further)
        self.divisor = int(self.net.encoder.output_stride)
        self.smallest = _HALVED.get(network_class, 1) * self.divisor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Raw output (B, outputs, H, W) of a batch (B, 3, H, W)."""
        raw: torch.Tensor = self.net(x)
        return raw


def _architecture(arch: str) -> Any:
    """The class of an architecture by its name, in any case."""
    known = smp.MODEL_ARCHITECTURES_MAPPING
    if arch.lower() not in known:
        listed = ", ".join(found.__name__ for found in known.values())
        raise ConfigError(f"model.arch: unknown architecture {arch!r}; known are {listed}")
    return known[arch.lower()]


def _options_of(parameters: Any) -> list[str]:
    """Names of the options that a user may give."""
    return [key for key in parameters if key not in (*_OWN, "self", "kwargs")]


def _check_encoder(encoder: str) -> None:
    """Refuse an encoder that neither library knows, with the nearest names."""
    if encoder.startswith("tu-"):
        if timm.is_model(encoder[3:].split(".")[0]):
            return
        close = [f"tu-{name}" for name in difflib.get_close_matches(encoder[3:], timm.list_models(), n=3)]
    else:
        known = smp.encoders.get_encoder_names()
        if encoder in known:
            return
        close = difflib.get_close_matches(encoder, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "see segmentation-models-pytorch, or tu-NAME for timm's"
    raise ConfigError(f"model.encoder: unknown encoder {encoder!r}; {hint}")


def _create(network_class: Any, encoder: str, weights: str, **options: Any) -> Any:
    """Build the network, and load the encoder's weights by name or from a file."""
    fetched: str | bool | None = "imagenet" if weights == "imagenet" else None
    if fetched and encoder.startswith("tu-"):
        fetched = True  # what timm's encoders want to hear
    try:
        net = network_class(encoder_name=encoder, encoder_weights=fetched, in_channels=3, **options)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).strip("'\"").split("\n")[0]
        raise ConfigError(f"model: {network_class.__name__} with encoder {encoder!r}: {reason}") from error
    except OSError as error:  # the hub's errors and the network's are all of this kind
        raise ResourceError(
            f"model.weights: the weights of {encoder} can not be fetched ({type(error).__name__}); "
            "use weights=none or give the path of a local file"
        ) from error
    if weights not in ("imagenet", "none"):
        if not Path(weights).is_file():
            raise DataError(f"model.weights: expected imagenet, none or a file; there is no file {weights}")
        load_encoder(net.encoder, Path(weights))
    return net
