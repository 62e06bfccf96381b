"""What the augmentation's options mean for a competition: its stain reference, and what may be mixed."""

from __future__ import annotations

from dataclasses import replace

from histofold import stain
from histofold.competitions.base import Competition
from histofold.errors import ConfigError
from histofold.options import AugmentOptions
from histofold.preprocess import Preprocess
from histofold.slides.reduce import reduce_array


def preprocess_of(options: AugmentOptions, competition: Competition, scale: float) -> Preprocess:
    """The preprocessing that the options ask for; the reference image is measured at the scale of the store.

    Only the reference's pixels are used, never its labels, so it may be in any fold.

    Raises:
        ConfigError: an unknown normalisation, one without a reference, or one of slides.
        DataError: there is no such sample, or Macenko's stains cannot be told apart in it.
    """
    given = {name: getattr(options, name) for name in ("mean", "std", "stretch", "clahe")}
    plain = Preprocess.from_dict({**given, "whole": competition.kind != "slides"})
    if options.normalise == "none":
        return plain
    if options.normalise not in stain.METHODS:
        known = ", ".join(("none", *stain.METHODS))
        raise ConfigError(f"augment.normalise={options.normalise}: expected {known}")
    if competition.kind == "slides":
        raise ConfigError(
            f"augment.normalise={options.normalise}: looks at whole images, and {competition.name} has slides that are "
            "read by window; use the stain augmentation (augment.stain)"
        )
    if not options.reference:
        raise ConfigError(
            f"augment.normalise={options.normalise}: needs augment.reference, the id of the sample to match"
        )
    image = competition.image(competition.sample(str(options.reference)).sample_id)
    numbers = stain.METHODS[options.normalise][0](image if scale == 1 else reduce_array(image, scale))
    return replace(plain, stain_method=options.normalise, stain_numbers=numbers)


def check_mixing(options: AugmentOptions, competition: Competition) -> None:
    """Refuse what cannot be mixed into crops.

    Raises:
        ConfigError: a probability is none, or nuclei are to be pasted where labels tell none apart.
    """
    for name, value in (("copy_paste", options.copy_paste), ("mosaic", options.mosaic)):
        if not 0 <= value <= 1:
            raise ConfigError(f"augment.{name}={value}: expected a probability, 0 to 1")
    if options.copy_paste > 0 and competition.truth != "instances":
        raise ConfigError(
            f"augment.copy_paste={options.copy_paste}: {competition.name} has masks without instances; take mosaic"
        )
