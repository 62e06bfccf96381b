"""Checkpoints: weights with everything that rebuilds the network, its preprocessing and its target, and no code.

A file holds plain values and tensors only, so that it opens with `weights_only=True`: a checkpoint from a stranger
runs nothing on this machine.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from histofold.errors import DataError
from histofold.files import atomic

FORMAT = 1
KIND = "histofold checkpoint"


@dataclass(frozen=True)
class Spec:
    """What a checkpoint says about itself.

    Attributes:
        competition, run, fold: where it comes from.
        model, target: `name` and the options of `models.build` and `targets.build`.
        preprocess: `Preprocess.to_dict()`.
        tile: side of the training crops in pixels at `scale`.
        scale: reduction ≥ 1 that the network learned at.
        training: notes (epochs, seed), and `samples`: what the network has seen, which `train.start` asks for.
    """

    competition: str
    run: str
    fold: int
    model: dict[str, Any]
    target: dict[str, Any]
    preprocess: dict[str, Any]
    tile: int
    scale: float
    training: dict[str, Any] = field(default_factory=dict)


def save(path: Path, spec: Spec, state: Mapping[str, torch.Tensor]) -> None:
    """Write a checkpoint atomically; the tensors are moved to the CPU first.

    Raises:
        ResourceError: the disk is full; an older file at `path` stays whole.
        TypeError: the specification holds something else than plain values.
    """
    content = {
        "kind": KIND,
        "format": FORMAT,
        "spec": _plain(asdict(spec)),
        "state": {key: tensor.detach().cpu() for key, tensor in state.items()},
    }
    with atomic(path) as temporary:
        write(temporary, content)


def write(path: Path, values: Mapping[str, Any]) -> None:
    """`torch.save` that lets through what the system says.

    torch reports a full disk as a RuntimeError without a number. Through a stream of Python's, the OSError is what that
    error came of; to write into memory first would hold an optimiser's state twice.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        with path.open("wb") as stream:
            torch.save(values, stream)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def load(path: Path) -> tuple[Spec, dict[str, torch.Tensor]]:
    """Read a checkpoint on the CPU, never running code from it.

    Raises:
        DataError: no such file, no checkpoint of this project, or another format version.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such checkpoint; train that fold first")
    # Asked first, because torch has older formats, too, and warns of what it finds in them.
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not a {KIND} or a broken one; expected a model.ckpt that train wrote")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, OSError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path}: not a {KIND} or a broken one ({reason}); expected a model.ckpt that train wrote"
        ) from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise DataError(f"{path}: a torch file, but not a {KIND}; expected a model.ckpt that train wrote")
    if content.get("format") != FORMAT:
        raise DataError(
            f"{path}: checkpoint format {content.get('format')!r}, but this version reads format {FORMAT}; "
            "train the fold again or use the version that wrote it"
        )
    return _spec(path, content), content["state"]


def require(
    spec: Spec,
    *,
    path: Path | None = None,
    competition: str | None = None,
    target: str | None = None,
    scale: float | None = None,
) -> None:
    """Check that a checkpoint belongs to a competition, target and scale; what is None is not asked.

    Raises:
        DataError: naming what was expected and what was found.
    """
    asked = {"competition": competition, "target": target, "scale": scale}
    found = {"competition": spec.competition, "target": spec.target.get("name"), "scale": spec.scale}
    where = str(path) if path is not None else f"checkpoint {spec.competition}/{spec.run}/fold{spec.fold}"
    for key, value in asked.items():
        if value is not None and value != found[key]:
            raise DataError(
                f"{where}: made for {key} {found[key]!r}, expected {value!r}; choose a run that was trained for it"
            )


def _spec(path: Path, content: dict[str, Any]) -> Spec:
    values = content.get("spec")
    names = {item.name for item in fields(Spec)}
    if not isinstance(values, dict) or set(values) != names or not isinstance(content.get("state"), dict):
        found = sorted(values) if isinstance(values, dict) else type(values).__name__
        raise DataError(f"{path}: its description is damaged: expected the keys {sorted(names)}, found {found}")
    return Spec(**values)


def _plain(value: Any) -> Any:
    """Copy nested values with dict, list, str, int, float, bool and None only (what `weights_only` reads)."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [_plain(item) for item in value]
    raise TypeError(f"a checkpoint's specification takes plain values only, found {type(value).__name__}: {value!r}")
