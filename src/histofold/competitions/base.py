"""What a competition tells the rest of the pipeline: its samples, their truth, what may not leak, metric and CSV."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from histofold import given
from histofold.errors import ConfigError, DataError

if TYPE_CHECKING:
    from histofold.kaggle.csv import CsvFormat
    from histofold.rle import RunMask

Image = NDArray[np.uint8]
Labels = NDArray[np.integer[Any]]
UNREADABLE = "unreadable"
"""Stratum of an image that cannot be read where the pixels tell group and stratum: it has a group of its own till then,
and folds.csv leaves it out, as in any fold it might give another image away."""


@dataclass(frozen=True)
class Sample:
    """One image or slide.

    Attributes:
        sample_id: its name, unique in the competition and usable as a file name.
        split: `train`, `test`, or the name of an official split such as `testA`.
        height, width: in pixels of the full-size image, read from the file and never from a table; both are 0 where the
            file cannot be read, so that one broken file does not stop the listing: it is told when its turn comes.
        group: samples of one group share a fold, because one would give the other away (patient, field, organ).
        stratum: folds get equal shares of every stratum (image type, grade, stain); see `UNREADABLE`.
    """

    sample_id: str
    split: str
    height: int
    width: int
    group: str
    stratum: str


@dataclass(frozen=True)
class Place:
    """Where one competition's files are.

    Attributes:
        name, slug: the project's and Kaggle's name of the competition.
        root: folder that the raw files were unpacked into.
        input: folder of all competitions, from which relative options count.
        options: the adapter's own.
    """

    name: str
    slug: str | None
    root: Path
    input: Path
    options: dict[str, Any] = field(default_factory=dict)


class Competition(ABC):
    """One competition's files, read lazily; picklable, so that worker processes can have one each.

    Attributes:
        last: the file that an embedded sample writes last, so where it is the sample is whole.
        kind: `slides` (TIFFs too large for memory, read by window) or `images` (read whole).
        truth: `mask` (foreground) or `instances` (every object its own label).
        metric: name of the metric that ranks submissions, as in `histofold.metrics`.
        merged: the labels are components of a binary mask, so touching objects are one: instance scores mean less.
        csv: the submission format, None where there is no submission.
    """

    kind: ClassVar[str]
    last: ClassVar[str] = ""
    defaults: ClassVar[dict[str, Any]] = {}
    truth: str
    metric: str
    merged: bool = False
    csv: CsvFormat | None = None

    def __init__(self, place: Place) -> None:
        unknown = sorted(set(place.options) - set(type(self).defaults))
        if unknown:
            raise ConfigError(
                f"competition.options.{unknown[0]}: unknown; competition {place.name} knows "
                + ", ".join(sorted(type(self).defaults))
            )
        self.place = place
        self.settings: dict[str, Any] = {**type(self).defaults, **place.options}

    @property
    def name(self) -> str:
        """Name in folders and configuration, such as `dsb2018`."""
        return self.place.name

    @property
    def slug(self) -> str | None:
        """Kaggle's name of the competition, None when it is not Kaggle's."""
        return self.place.slug

    @property
    def root(self) -> Path:
        """Folder of the raw files."""
        return self.place.root

    def provide(self) -> bool:
        """Draw the embedded sample where `options.sample` names one and it is not there; True when it was drawn.

        Raises:
            DataError: the folder cannot be written.
        """
        name = self.settings.get("sample")
        if not name or (self.root / self.last).is_file():
            return False
        from histofold import sample

        try:
            sample.draw(str(name), self.root)
        except PermissionError as error:
            raise DataError(
                f"{self.root}: cannot be written, so no sample can be drawn there; set paths.input"
            ) from error
        return True

    @abstractmethod
    def check(self) -> None:
        """Look whether the raw files are there and whole, without reading pixels.

        Raises:
            DataError: names what is missing and how to get it.
        """

    @abstractmethod
    def samples(self) -> list[Sample]:
        """Every sample of every split, sorted by id; the first call may take a while, later ones are free.

        A file that is there and cannot be read is listed with a size of 0, see `Sample`.

        Raises:
            DataError: a file is missing or does not fit the others.
        """

    def notes(self) -> list[str]:
        """What a person should know of the samples before folds are made of them, a line each.

        Raises:
            DataError: as `samples`, or the truth cannot be what the settings say it is.
        """
        return []

    def remark(self, sample_id: str) -> str:
        """What is odd about the truth of one sample and yet no error; empty where nothing is.

        Asked when a sample is prepared, and not when it is kept: it may take a second.

        Raises:
            DataError: the sample's file is broken.
        """
        return ""

    def doubts(self, counts: Mapping[str, Mapping[str, int]]) -> list[str]:
        """What the truth of all samples together makes doubtful, a line each; asked when all of them are prepared.

        Args:
            counts: of each sample, see `histofold.competitions.instances.contacts`; without them where it was prepared
                before there were any.
        """
        return []

    @abstractmethod
    def source(self, sample_id: str) -> Path:
        """The file that the pixels come from; the slide itself for `kind == "slides"`."""

    def files(self, sample_id: str) -> list[Path]:
        """Every file that the pixels and the truth of one sample come from, for fingerprints."""
        return [self.source(sample_id)]

    def truth_digest(self, sample_id: str) -> str:
        """Digest of what a table says of the truth of one image, which `files` does not hold; empty where none does.

        Raises:
            DataError: the table is broken.
        """
        return ""

    def image(self, sample_id: str) -> Image:
        """Pixels (H, W, 3) uint8 RGB of one image; only for `kind == "images"`.

        Raises:
            DataError: the file is broken.
        """
        raise NotImplementedError(f"{self.name} has slides: use histofold.slides.open(competition.source(sample_id))")

    def labels(self, sample_id: str) -> Labels | None:
        """Truth (H, W): 0 background, 1..n instances (0/1 for `truth == "mask"`); None when it is unknown.

        Raises:
            DataError: the truth is broken or its size differs from the image's.
        """
        raise NotImplementedError(f"{self.name} has slides: use competition.mask(sample_id)")

    def mask(self, sample_id: str) -> RunMask | None:
        """Truth of one slide as runs, never as pixels; None when it is unknown.

        Raises:
            DataError: the truth is broken or runs past the slide's end.
        """
        raise NotImplementedError(f"{self.name} has images: use competition.labels(sample_id)")

    @abstractmethod
    def submission_ids(self) -> list[str]:
        """Ids of the submission in the order of the sample submission, or the test ids where there is none."""

    def sample(self, sample_id: str) -> Sample:
        """One sample by its id.

        Raises:
            DataError: there is no such sample.
        """
        if "_by_id" not in self.__dict__:
            self.__dict__["_by_id"] = {sample.sample_id: sample for sample in self.samples()}
        by_id: dict[str, Sample] = self.__dict__["_by_id"]
        if sample_id not in by_id:
            raise DataError(f"{self.root}: no sample {sample_id!r}; {self.name} has {len(by_id)} samples")
        return by_id[sample_id]

    def stratum(self, sample_id: str) -> str:
        """The stratum of one sample; where pixels tell it, from those of this image alone, and no other is read.

        Raises:
            DataError: there is no such sample, or its file is broken.
        """
        return self.sample(sample_id).stratum

    @property
    def kind_of(self) -> Callable[[Image], str] | None:
        """What tells the stratum of any image (H, W, 3) by its pixels, one's own included; None where nothing does."""
        return None

    def missing(self, what: str) -> DataError:
        """The error for absent raw files: what is missing, where it was looked for, and how to get it."""
        if self.slug:
            advice = f"get it with `{given.again('download', self.name)}` or unpack Kaggle's {self.slug} there"
        else:
            advice = f"put the files of {self.name} there, or set competition.options.folder=PATH"
        return DataError(f"{self.root}: {what}; {advice}")
