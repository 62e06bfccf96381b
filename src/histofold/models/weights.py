"""Weights that others made: encoder weights from a local file, and foreign state dicts through a key map."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from histofold.errors import DataError

_WRAPPERS = ("state_dict", "model_state_dict", "model", "model_state", "net")
"""Names under which people keep the state dict inside a larger file."""

_PREFIXES = ("module.", "_orig_mod.", "net.", "encoder.", "model.", "backbone.")
"""What trainers put before a parameter's name."""


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict from a .pth, .pt, .ckpt or .safetensors file; no code in the file is ever run.

    Raises:
        DataError: the file is missing, holds something else than tensors by name, or wants to run code.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = str(error).split("\n")[0][:160]
        raise DataError(f"{path}: not readable as a file of plain weights ({reason})") from error
    except Exception as error:  # safetensors raises a class of its own without a common base
        raise DataError(f"{path}: not readable as a file of plain weights ({error})") from error
    return _tensors(path, content)


def _tensors(path: Path, content: object) -> dict[str, torch.Tensor]:
    """The state dict inside what was read, however deep it is wrapped."""
    while isinstance(content, Mapping) and not any(isinstance(value, torch.Tensor) for value in content.values()):
        inner = next((content[key] for key in _WRAPPERS if key in content), None)
        if inner is None:
            break
        content = inner
    items = content.items() if isinstance(content, Mapping) else ()
    tensors = {str(name): value for name, value in items if isinstance(value, torch.Tensor)}
    if not tensors:
        raise DataError(f"{path}: expected a state dict (tensors by name), found none")
    return tensors


def _bare(name: str) -> str:
    """A parameter's name without what trainers put before it."""
    while True:
        prefix = next((p for p in _PREFIXES if name.startswith(p)), None)
        if prefix is None:
            return name
        name = name[len(prefix) :]


def load_encoder(encoder: nn.Module, path: Path) -> list[str]:
    """Load an encoder's weights from a file of a whole classifier or segmenter; gives the unused names.

    Names are compared without wrappers such as `module.` or `encoder.`; a classifier's last layers are unused.

    Raises:
        DataError: a weight of the encoder is missing in the file or has another shape.
    """
    state = {_bare(name): value for name, value in read_state(path).items()}
    wanted = encoder.state_dict()
    found: dict[str, torch.Tensor] = {}
    for name, value in wanted.items():
        given = state.pop(_bare(name), None)
        if given is None:
            if name.endswith("num_batches_tracked"):
                given = value
            else:
                raise DataError(f"{path}: the encoder's {name} is missing; is this file of another encoder?")
        if given.shape != value.shape:
            raise DataError(
                f"{path}: {name} is {tuple(given.shape)}, the encoder wants {tuple(value.shape)}; "
                "is this file of another encoder?"
            )
        found[name] = given
    encoder.load_state_dict(found)
    return sorted(state)


_DICE_PARTS = {
    "channel": "conv_channel.weight",
    "height": "conv_height.weight",
    "width": "conv_width.weight",
    "views.": "br_act.br.",
    "fuse.": "weight_avg_layer.cbr.",
    "project.": "proj_layer.cbr.",
    "gate.": "linear_comb_layer.",
}
_GATE_PARTS = {
    "from_skip.": "lx.",
    "from_coarse.": "lg.",
    "up.": "upconv.",
    "attend.": "lmid.",
    "spread.": "resamp.",
}
_DEAD = ("upconv1.", "upconv2.", "upconv3.")
"""Layers that the authors' Kidney-SegNet holds and never calls."""


def _authors_prefixes() -> dict[str, tuple[str, dict[str, str]]]:
    """For every part of our Kidney-SegNet the authors' prefix, and how names go on behind it."""
    plain = {"": ""}
    prefixes = {"stem.": ("conv1a.", plain), "stem_norm.": ("bn1a.", plain), "head.": ("seg_map_conv.", plain)}
    stages = {"encoder.0.0.": "1b"}
    for level in (1, 2, 3):
        stages |= {f"encoder.{level}.0.": f"{level + 1}a", f"encoder.{level}.1.": f"{level + 1}b"}
    for step in (0, 1, 2):
        stages |= {f"decoder.{step}.units.0.": f"{step + 6}a", f"decoder.{step}.units.1.": f"{step + 6}b"}
        prefixes[f"decoder.{step}.gate."] = (f"att{step + 1}.", _GATE_PARTS)
    for ours, theirs in stages.items():
        prefixes[f"{ours}unit."] = (f"conv{theirs}.", _DICE_PARTS)
        prefixes[f"{ours}norm."] = (f"bn{theirs}.", plain)
    for branch in range(4):
        prefixes[f"aspp.branches.{branch}."] = (f"aspp.branch{branch + 1}.", _DICE_PARTS)
    prefixes["aspp.join."] = ("aspp.final_layer.", plain)
    return prefixes


def authors_name(ours: str) -> str:
    """What the authors' Kidney-SegNet calls our parameter or buffer.

    Raises:
        KeyError: theirs has no such part (the deep feature of decoder="unet").
    """
    for prefix, (theirs, parts) in _authors_prefixes().items():
        if ours.startswith(prefix):
            rest = ours[len(prefix) :]
            part = next(part for part in parts if rest.startswith(part))
            return theirs + parts[part] + rest[len(part) :]
    raise KeyError(ours)


def load_kidney_segnet(model: nn.Module, path: Path) -> None:
    """Load the weights of the authors' Kidney-SegNet class; its three dead layers are dropped.

    Raises:
        DataError: not a file of theirs, another size, or a decoder that is not theirs.
    """
    state = {name.removeprefix("module."): value for name, value in read_state(path).items()}
    found: dict[str, torch.Tensor] = {}
    for name, value in model.state_dict().items():
        try:
            given = state.pop(authors_name(name))
        except KeyError as error:
            advice = "use decoder=gated" if error.args == (name,) else "is this file of their Kidney-SegNet?"
            raise DataError(f"{path}: nothing in it for {name}; {advice}") from error
        if given.shape != value.shape:
            raise DataError(
                f"{path}: {name} is {tuple(given.shape)}, the network wants {tuple(value.shape)}; "
                "set model.size (theirs is 512), model.width (32) and decoder=gated as the file was trained"
            )
        found[name] = given
    unknown = [name for name in state if not name.startswith(_DEAD)]
    if unknown:
        raise DataError(f"{path}: {unknown[0]} belongs to no part of Kidney-SegNet")
    model.load_state_dict(found)
