"""How much of each sample is foreground, and how many instances it has: of the truth, of OOF, of a submission.

`evaluate` keeps what an ensemble's cross-fitted OOF predictions have, so that a submission can be held against them:
they come from the same networks and settings, which a submission's samples should look like even where both differ
from the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histofold.errors import DataError
from histofold.files import atomic

COLUMNS = ["sample_id", "pixels", "area", "instances"]


@dataclass(frozen=True)
class Extent:
    """How much of one sample is foreground.

    Attributes:
        pixels: height × width.
        area: foreground pixels.
        instances: instances, or 8-connected objects where the truth is one mask; None where nobody counted.
    """

    sample_id: str
    pixels: int
    area: int
    instances: int | None

    @property
    def share(self) -> float:
        """Foreground as a share of the pixels, 0..1."""
        return self.area / self.pixels if self.pixels else 0.0


def of_instances(sample_id: str, labels: NDArray[Any]) -> Extent:
    """Measure labels (H, W) of instances; 0 is background."""
    return Extent(sample_id, labels.size, int(np.count_nonzero(labels)), int(np.count_nonzero(np.unique(labels))))


def of_histogram(sample_id: str, counts: NDArray[np.int64], level: int) -> Extent:
    """Measure the mask (code ≥ level) from its histogram (2, 256) at full size; its objects are not counted."""
    return Extent(sample_id, int(counts.sum()), int(counts[:, level:].sum()), None)


def place(oof: Path, competition: str, name: str) -> Path:
    """Where the extents of an ensemble's OOF predictions lie below the folder `oof`."""
    return oof / competition / "ensembles" / "extents" / f"{name}.csv"


def write(path: Path, extents: Sequence[Extent]) -> None:
    """Write a row a sample, atomically; instances are empty where they were not counted."""
    table = pd.DataFrame([[getattr(one, name) for name in COLUMNS] for one in extents], columns=COLUMNS)
    with atomic(path) as temporary:
        table.astype({"instances": "Int64"}).to_csv(temporary, index=False, lineterminator="\n")


def read(path: Path) -> list[Extent] | None:
    """Read what `write` wrote; None when there is no such file.

    Raises:
        DataError: it is damaged.
    """
    if not path.is_file():
        return None
    try:
        # Texts first: an id may be "NA", and only an empty count is none.
        table = pd.read_csv(path, dtype=str, keep_default_na=False)[COLUMNS]
        return [_extent(*map(str, row)) for row in table.to_numpy()]
    except (ValueError, KeyError) as error:
        raise DataError(f"{path}: damaged ({' '.join(str(error).split())}); run evaluate again") from error


def _extent(sample_id: str, pixels: str, area: str, instances: str) -> Extent:
    return Extent(sample_id, int(pixels), int(area), int(instances) if instances else None)
