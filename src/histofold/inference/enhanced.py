"""Whether pixels are enhanced at prediction as they were in training: in whole images, or in tiles of one size."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tqdm import tqdm

from histofold.errors import ConfigError, DataError
from histofold.inference.member import Member
from histofold.inference.settings import Settings, divisor_of
from histofold.inference.sources import Source
from histofold.preprocess import Preprocess


def require_alike(source: Source, members: Sequence[Member], settings: Settings) -> None:
    """Refuse pixels that a member learned to see otherwise; says so where an older checkpoint does not tell.

    Stain normalisation, contrast stretch and CLAHE depend on all that they see at once, and what comes out differs by
    many grey levels between an image and a part of it.

    Raises:
        DataError: a member learned from whole images and the source is read by window, or the other way round.
        ConfigError: tiles have another size than those that a member learned from.
    """
    for member in members:
        if not member.preprocess.enhances:
            continue
        name = f"{member.spec.run} fold {member.spec.fold}" if member.spec else type(member.network).__name__
        look = f"{name} ({described(member.preprocess)})"
        if member.preprocess.whole is None:
            if not source.whole:
                tqdm.write(f"{look}: does not say whether it learned from whole images; here it sees tiles", sys.stderr)
        elif member.preprocess.whole and not source.whole:
            raise DataError(
                f"{look}: learned from images that were enhanced as a whole, but slides and large images are read by "
                "window, which gives other pixels; cut them into images, or choose a run that was trained with "
                "augment.normalise=none augment.stretch=0 augment.clahe=0"
            )
        elif source.whole and not member.preprocess.whole:
            raise DataError(
                f"{look}: learned from tiles of slides that were enhanced one by one, but this image is enhanced as a "
                "whole, which gives other pixels; choose a run that was trained with augment.stretch=0 augment.clahe=0"
            )
        elif not source.whole:
            _require_size(look, member, members, settings)


def _require_size(look: str, member: Member, members: Sequence[Member], settings: Settings) -> None:
    """Refuse tiles of another size than `member` learned from, but for what the networks' layers round it up by.

    Raises:
        ConfigError: naming both sizes.
    """
    if member.spec is None:
        return
    tile, divisor = settings.tile_for(members), divisor_of(members)
    if tile != -(-member.spec.tile // divisor) * divisor:
        raise ConfigError(
            f"predict.tile={settings.tile}: {look} learned from tiles of {member.spec.tile} pixels that were enhanced "
            f"one by one, and tiles of {tile} give other pixels; expected predict.tile=0 and, in an ensemble, runs of "
            "one train.crop"
        )


def described(preprocess: Preprocess) -> str:
    """The settings that enhance pixels, such as `augment.stretch=0.1 augment.clahe=2`."""
    words = [f"augment.normalise={preprocess.stain_method}"] if preprocess.stain_method != "none" else []
    amounts = (("stretch", preprocess.stretch), ("clahe", preprocess.clahe))
    return " ".join([*words, *(f"augment.{name}={value:g}" for name, value in amounts if value > 0)])
