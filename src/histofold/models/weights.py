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
