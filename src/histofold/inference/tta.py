"""Test-time augmentation by the symmetries of the square: all views in few batches, averaged after turning back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from histofold.errors import ConfigError

VECTOR_Y, VECTOR_X = "flow_y", "flow_x"
"""Names of bands that are components of a vector: they turn with the image, and their signs and order with them."""


@dataclass(frozen=True)
class View:
    """One of the eight symmetries: an optional transposition, then optional flips."""

    transpose: bool = False
    flip_y: bool = False
    flip_x: bool = False

    def apply(self, batch: torch.Tensor) -> torch.Tensor:
        """Turn (B, C, H, W); the sides are swapped by a transposition."""
        turned = batch.transpose(2, 3) if self.transpose else batch
        return turned.flip(self._axes()) if self._axes() else turned

    def invert(self, batch: torch.Tensor, names: Sequence[str] = ()) -> torch.Tensor:
        """Turn bands (B, K, H, W) of a view back; `names` of the bands say which of them are vectors."""
        back = batch.flip(self._axes()) if self._axes() else batch
        back = back.transpose(2, 3) if self.transpose else back
        if VECTOR_Y in names and VECTOR_X in names and self != View():
            back = self._turn_vectors(back, names.index(VECTOR_Y), names.index(VECTOR_X))
        return back

    def _axes(self) -> list[int]:
        return [axis for axis, flipped in ((2, self.flip_y), (3, self.flip_x)) if flipped]

    def _turn_vectors(self, bands: torch.Tensor, y: int, x: int) -> torch.Tensor:
        along_y = -bands[:, y] if self.flip_y else bands[:, y]
        along_x = -bands[:, x] if self.flip_x else bands[:, x]
        turned = bands.clone()
        turned[:, y], turned[:, x] = (along_x, along_y) if self.transpose else (along_y, along_x)
        return turned


_FLIPS = tuple(View(False, y, x) for y in (False, True) for x in (False, True))
VIEWS: dict[str, tuple[View, ...]] = {
    "none": (View(),),
    "flips": _FLIPS,
    "dihedral": (*_FLIPS, *(View(True, view.flip_y, view.flip_x) for view in _FLIPS)),
}


def views(name: str) -> tuple[View, ...]:
    """The views called `name`: none (1), flips (4) or dihedral (8).

    Raises:
        ConfigError: no such choice.
    """
    if name not in VIEWS:
        raise ConfigError(f"predict.tta={name!r} is unknown; choose one of {', '.join(VIEWS)}")
    return VIEWS[name]


def mean(
    function: Callable[[torch.Tensor], torch.Tensor],
    stacked: Stacked,
    names: Sequence[str] = (),
    most: int | None = None,
) -> torch.Tensor:
    """Average of `function` (B, C, H, W) → (B, K, H, W) over all views, turned back.

    Square tiles go through as one batch, oblong ones as two (upright and lying).

    Args:
        function: gives each image of a batch the bands that it gives it alone.
        stacked: the views.
        names: those of the K bands.
        most: images that `function` is given at once; where the views have more, it gets some of the views at a time,
            and at least one. None: no limit.
    """
    total: torch.Tensor | None = None
    for group, batch in stacked.groups:
        for part, images in _parts(group, batch, most):
            for view, bands in zip(part, function(images).chunk(len(part)), strict=True):
                back = view.invert(bands, names)
                total = back if total is None else total + back
    assert total is not None
    return total if stacked.count == 1 else total / stacked.count


def _parts(
    group: Sequence[View], batch: torch.Tensor, most: int | None
) -> Iterator[tuple[Sequence[View], torch.Tensor]]:
    """The views of a group with their images, as equal parts as can be of at most `most` images (or of one view)."""
    tiles = len(batch) // len(group)
    at_once = len(group) if most is None else max(1, most // tiles)
    passes = -(-len(group) // at_once)
    first = 0
    for number in range(passes):
        last = (number + 1) * len(group) // passes
        yield group[first:last], batch[first * tiles : last * tiles]
        first = last


@dataclass(frozen=True)
class Stacked:
    """All views of a batch, ready to go through any number of networks."""

    groups: tuple[tuple[tuple[View, ...], torch.Tensor], ...]
    count: int


def stack(batch: torch.Tensor, chosen: Sequence[View]) -> Stacked:
    """Lay the views of (B, C, H, W) one after another along the batch axis, those of equal shape together."""
    square = batch.shape[2] == batch.shape[3]
    groups: dict[bool, list[View]] = {}
    for view in chosen:
        groups.setdefault(view.transpose and not square, []).append(view)
    return Stacked(
        tuple(
            (tuple(group), _laid(group, batch).contiguous(memory_format=torch.channels_last))
            for group in groups.values()
        ),
        len(chosen),
    )


def _laid(group: Sequence[View], batch: torch.Tensor) -> torch.Tensor:
    turned = [view.apply(batch) for view in group]
    return turned[0] if len(turned) == 1 else torch.cat(turned)
