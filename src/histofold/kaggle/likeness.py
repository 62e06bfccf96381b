"""Does a submission look like the training truth and the OOF predictions? Areas, counts and empty samples of each.

Nothing here says that a submission is good. It catches what passes every rule and is still wrong: empty masks from a
threshold that nothing reaches, masks of another reduction or orientation, noise instead of objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from histofold import parallel
from histofold.errors import DataError
from histofold.evaluation import extents
from histofold.evaluation.extents import Extent
from histofold.files import atomic
from histofold.kaggle import csv
from histofold.kaggle.csv import CsvFormat
from histofold.rle import RleError, RunMask

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from histofold.competitions.base import Competition

DRAWS = 4000
TAIL = 0.005
"""Share of the draws that may lie beyond each end of what is expected."""
SLACK = 1.25
"""Factor by which a median may lie beyond that: another hospital's tissue is not a fault."""
EMPTY_SLACK = 0.05
SUBMISSION, TRUTH, OOF = "submission", "training truth", "out-of-fold predictions"
"""A submission and what it is compared with."""

References = Mapping[str, Sequence[Extent]]
"""What a submission is compared with, by its name."""


@dataclass(frozen=True)
class Comparison:
    """One quantity of a submission beside what as many samples of a reference would give."""

    reference: str
    quantity: str
    found: float
    expected: float
    low: float
    high: float

    @property
    def alike(self) -> bool:
        """Whether the submission lies within what is expected."""
        return self.low <= self.found <= self.high

    def __str__(self) -> str:
        """One line for people."""
        verdict = f"as in the {self.reference}" if self.alike else f"UNLIKE the {self.reference}"
        expected = f"{self.reference} {self.expected:.4g} (expected {self.low:.4g} to {self.high:.4g})"
        return f"{self.quantity}: {self.found:.4g}, {expected}: {verdict}"


def area_statistics(path: Path, format: CsvFormat, shapes: Mapping[str, tuple[int, int]]) -> list[Extent]:  # noqa: A002
    """Measure each sample of a CSV that keeps the rules; samples without a shape are left out.

    Raises:
        DataError: the file is not readable, or a text is faulty (use `validate` first).
    """
    found: dict[str, tuple[int, int]] = {}
    for line, sample_id, text in csv.numbered(path, format):
        if sample_id not in shapes:
            continue
        try:
            mask = RunMask(text, shapes[sample_id], format.dialect)
        except RleError as error:
            raise DataError(f"{path}, line {line}, sample {sample_id!r}: {error}") from error
        objects = int(mask.area > 0) if format.per_instance else len(mask.boxes())
        area, count = found.get(sample_id, (0, 0))
        found[sample_id] = area + mask.area, count + objects
    sizes = {sample_id: shapes[sample_id] for sample_id in found}
    return [Extent(name, height * width, *found[name]) for name, (height, width) in sizes.items()]


def of_labels(sample_id: str, labels: NDArray[Any], truth: str = "instances") -> Extent:
    """Measure an (H, W) label image; with `truth="mask"` its 8-connected objects count as instances."""
    return of_mask(sample_id, RunMask.from_mask(labels)) if truth == "mask" else extents.of_instances(sample_id, labels)


def of_mask(sample_id: str, mask: RunMask) -> Extent:
    """Measure a slide's mask; its 8-connected objects count as instances."""
    return Extent(sample_id, mask.height * mask.width, mask.area, len(mask.boxes()))


def of_training(competition: Competition, workers: int = 0) -> list[Extent]:
    """Measure the truth of every training sample, in worker processes, with a progress bar.

    Raises:
        HistofoldError: a sample's truth is broken or missing.
    """
    samples = [sample.sample_id for sample in competition.samples() if sample.split == "train"]
    found = {}
    for sample_id, extent in parallel.each(partial(_of_sample, competition), samples, workers, "measure the truth"):
        if isinstance(extent, Exception):
            raise extent
        if extent is not None:
            found[sample_id] = extent
    return [found[sample_id] for sample_id in samples if sample_id in found]


def _of_sample(competition: Competition, sample_id: str) -> Extent | None:
    if competition.kind == "slides":
        mask = competition.mask(sample_id)
        return None if mask is None else of_mask(sample_id, mask)
    labels = competition.labels(sample_id)
    return None if labels is None else of_labels(sample_id, labels, competition.truth)


def compare(
    submission: Sequence[Extent], reference: Sequence[Extent], name: str = TRUTH, seed: int = 0
) -> list[Comparison]:
    """Compare the share of empty samples, and the medians of foreground share and instances a sample.

    What is expected comes from drawing as many samples as the submission has from the reference, `DRAWS` times; the
    range of the middle 99 % is widened by `SLACK`, so that few reference samples do not make it too narrow.
    Instances are left out where the reference's were not counted.

    Raises:
        DataError: one of them is empty.
    """
    if not submission or not reference:
        which = name if submission else SUBMISSION
        raise DataError(f"{which}: no sample whose size is known, so there is nothing to compare")
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(reference), (DRAWS, len(submission)))
    result = []
    for quantity, value, middle, widen in _QUANTITIES:
        known = np.array([value(extent) for extent in reference])
        if np.isnan(known).any():
            continue
        found = float(middle(np.array([value(extent) for extent in submission]), axis=0))
        low, high = np.quantile(middle(known[drawn], axis=1), [TAIL, 1 - TAIL])
        limits = widen(float(low), float(high))
        result.append(Comparison(name, quantity, found, float(middle(known, axis=0)), *limits))
    return result


def compare_all(submission: Sequence[Extent], references: References) -> list[Comparison]:
    """Compare with each reference, as `compare` does."""
    return [one for name, reference in references.items() for one in compare(submission, reference, name)]


def _by_factor(low: float, high: float) -> tuple[float, float]:
    return low / SLACK, high * SLACK


def _by_difference(low: float, high: float) -> tuple[float, float]:
    return max(0.0, low - EMPTY_SLACK), min(1.0, high + EMPTY_SLACK)


def _count(extent: Extent) -> float:
    return np.nan if extent.instances is None else float(extent.instances)


Quantity = tuple[str, Callable[[Extent], float], Callable[..., Any], Callable[[float, float], tuple[float, float]]]
_QUANTITIES: list[Quantity] = [
    ("share of samples without foreground", lambda extent: float(extent.area == 0), np.mean, _by_difference),
    ("foreground share of a sample, median", lambda extent: extent.share, np.median, _by_factor),
    ("instances in a sample, median", _count, np.median, _by_factor),
]


def warnings(submission: Sequence[Extent], references: References) -> list[str]:
    """One line for each quantity in which a submission is unlike a reference."""
    return [str(comparison) for comparison in compare_all(submission, references) if not comparison.alike]


def picture(submission: Sequence[Extent], references: References, path: Path) -> Path:
    """Draw all distributions of foreground share and instances, and the empty samples, as a PNG at `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    empty, area, count = figure.subplots(1, 3)
    unlike = [one for one in compare_all(submission, references) if not one.alike]
    every = {**references, SUBMISSION: submission}
    shares = [np.mean([one.area == 0 for one in each]) for each in every.values()]
    empty.bar(["\n".join(name.split()) for name in every], shares, color=[_COLOURS[name] for name in every])
    empty.set_ylim(0, 1)
    _distributions(area, {name: [100 * one.share for one in each if one.area] for name, each in every.items()})
    _distributions(count, {name: [_count(one) for one in each if one.area] for name, each in every.items()})
    titles = ("samples without foreground, share", "foreground of the others, % (log)", "instances of the others (log)")
    for axes, title, (quantity, *_) in zip((empty, area, count), titles, _QUANTITIES, strict=True):
        names = [one.reference for one in unlike if one.quantity == quantity]
        axes.set_title("\n".join([title, *(f"UNLIKE the {name}" for name in names)]), color="red" if names else "black")
    figure.legend(*area.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return path


_COLOURS = {TRUTH: "tab:gray", OOF: "tab:blue", SUBMISSION: "tab:orange"}


def _distributions(axes: Axes, values: Mapping[str, Iterable[float]]) -> None:
    """Histograms over common logarithmic bins, each as a share of its samples; those that nobody counted stay away."""
    arrays = {name: np.asarray(list(each), float) for name, each in values.items()}
    arrays = {name: each for name, each in arrays.items() if each.size and not np.isnan(each).any()}
    if arrays:
        together = np.concatenate(list(arrays.values()))
        low, high = np.log10(together.min()), np.log10(together.max())
        bins = np.logspace(low - 0.05, high + 0.05, 25).tolist()
        for name, each in arrays.items():
            # Three filled ones would hide each other: OOF, which lies between the two, is an outline.
            shape: dict[str, Any] = {"histtype": "step", "linewidth": 2} if name == OOF else {"alpha": 0.6}
            weights = np.full(each.size, 1 / each.size)
            axes.hist(each, bins, weights=weights, label=name, color=_COLOURS[name], **shape)
        axes.set_xscale("log")
    axes.set_ylabel("share of the samples")
