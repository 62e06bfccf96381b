"""Does a submission look like the training truth? Areas, counts and empty samples of both, compared and drawn.

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


@dataclass(frozen=True)
class Extent:
    """How much of one sample is foreground.

    Attributes:
        pixels: height × width.
        area: foreground pixels.
        instances: instances, or 8-connected objects where the truth is one mask.
    """

    sample_id: str
    pixels: int
    area: int
    instances: int

    @property
    def share(self) -> float:
        """Foreground as a share of the pixels, 0..1."""
        return self.area / self.pixels if self.pixels else 0.0


@dataclass(frozen=True)
class Comparison:
    """One quantity of a submission beside what as many samples of the training truth would give."""

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
        verdict = "as in the training truth" if self.alike else "UNLIKE the training truth"
        values = f"{self.found:.4g}, training truth {self.expected:.4g} (expected {self.low:.4g} to {self.high:.4g})"
        return f"{self.quantity}: {values}: {verdict}"


def area_statistics(path: Path, format: CsvFormat, shapes: Mapping[str, tuple[int, int]]) -> list[Extent]:  # noqa: A002
    """Measure each sample of a CSV that keeps the rules; samples without a shape are left out.

    Raises:
        DataError: the file is not readable, or a text is faulty (use `validate` first).
    """
    found: dict[str, Extent] = {}
    for line, sample_id, text in csv.numbered(path, format):
        if sample_id not in shapes:
            continue
        try:
            mask = RunMask(text, shapes[sample_id], format.dialect)
        except RleError as error:
            raise DataError(f"{path}, line {line}, sample {sample_id!r}: {error}") from error
        objects = int(mask.area > 0) if format.per_instance else len(mask.boxes())
        before = found.get(sample_id, Extent(sample_id, mask.height * mask.width, 0, 0))
        found[sample_id] = Extent(sample_id, before.pixels, before.area + mask.area, before.instances + objects)
    return list(found.values())


def of_labels(sample_id: str, labels: NDArray[Any], truth: str = "instances") -> Extent:
    """Measure an (H, W) label image; with `truth="mask"` its 8-connected objects count as instances."""
    if truth == "mask":
        return of_mask(sample_id, RunMask.from_mask(labels))
    instances = np.count_nonzero(np.unique(labels))
    return Extent(sample_id, labels.size, int(np.count_nonzero(labels)), int(instances))


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


def compare(submission: Sequence[Extent], reference: Sequence[Extent], seed: int = 0) -> list[Comparison]:
    """Compare the share of empty samples, and the medians of foreground share and instances a sample.

    What is expected comes from drawing as many samples as the submission has from the reference, `DRAWS` times; the
    range of the middle 99 % is widened by `SLACK`, so that few reference samples do not make it too narrow.

    Raises:
        DataError: one of them is empty.
    """
    if not submission or not reference:
        which = "submission" if not submission else "training truth"
        raise DataError(f"the {which} has no sample whose size is known: nothing to compare")
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(reference), (DRAWS, len(submission)))
    result = []
    for quantity, value, middle, widen in _QUANTITIES:
        known = np.array([value(extent) for extent in reference])
        found = float(middle(np.array([value(extent) for extent in submission]), axis=0))
        low, high = np.quantile(middle(known[drawn], axis=1), [TAIL, 1 - TAIL])
        result.append(Comparison(quantity, found, float(middle(known, axis=0)), *widen(float(low), float(high))))
    return result


def _by_factor(low: float, high: float) -> tuple[float, float]:
    return low / SLACK, high * SLACK


def _by_difference(low: float, high: float) -> tuple[float, float]:
    return max(0.0, low - EMPTY_SLACK), min(1.0, high + EMPTY_SLACK)


Quantity = tuple[str, Callable[[Extent], float], Callable[..., Any], Callable[[float, float], tuple[float, float]]]
_QUANTITIES: list[Quantity] = [
    ("share of samples without foreground", lambda extent: float(extent.area == 0), np.mean, _by_difference),
    ("foreground share of a sample, median", lambda extent: extent.share, np.median, _by_factor),
    ("instances in a sample, median", lambda extent: float(extent.instances), np.median, _by_factor),
]


def warnings(submission: Sequence[Extent], reference: Sequence[Extent]) -> list[str]:
    """One line for each quantity in which a submission is unlike the training truth."""
    return [str(comparison) for comparison in compare(submission, reference) if not comparison.alike]


def picture(submission: Sequence[Extent], reference: Sequence[Extent], path: Path) -> Path:
    """Draw both distributions of foreground share and instances, and the empty samples, as a PNG at `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    empty, area, count = figure.subplots(1, 3)
    comparisons = compare(submission, reference)
    both = {"training truth": reference, "submission": submission}
    shares = [np.mean([extent.area == 0 for extent in extents]) for extents in both.values()]
    empty.bar(list(both), shares, color=_COLOURS)
    empty.set_ylim(0, 1)
    _distributions(area, {name: [100 * e.share for e in extents if e.area] for name, extents in both.items()})
    _distributions(count, {name: [e.instances for e in extents if e.area] for name, extents in both.items()})
    titles = ("samples without foreground, share", "foreground of the others, % (log)", "instances of the others (log)")
    for axes, title, comparison in zip((empty, area, count), titles, comparisons, strict=True):
        axes.set_title(title if comparison.alike else f"{title}: UNLIKE", color="black" if comparison.alike else "red")
    area.legend()
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return path


_COLOURS = ("tab:gray", "tab:orange")


def _distributions(axes: Axes, values: Mapping[str, Iterable[float]]) -> None:
    """Histograms over common logarithmic bins, each as a share of its samples."""
    arrays = {name: np.asarray(list(each), float) for name, each in values.items()}
    together = np.concatenate(list(arrays.values()))
    if together.size:
        low, high = np.log10(together.min()), np.log10(together.max())
        bins = np.logspace(low - 0.05, high + 0.05, 25).tolist()
        for (name, each), colour in zip(arrays.items(), _COLOURS, strict=True):
            if each.size:
                axes.hist(each, bins, weights=np.full(each.size, 1 / each.size), alpha=0.6, label=name, color=colour)
        axes.set_xscale("log")
    axes.set_ylabel("share of the samples")
