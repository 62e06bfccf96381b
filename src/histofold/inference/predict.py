"""Samples to band files: one, many with resume, or an array in memory."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from histofold.allocator import one_arena
from histofold.errors import DataError
from histofold.files import digest
from histofold.inference import sized
from histofold.inference.bandfile import BandFile, BandFileWriter
from histofold.inference.enhanced import require_alike
from histofold.inference.member import Member
from histofold.inference.readahead import ahead
from histofold.inference.settings import Settings
from histofold.inference.sources import ArraySource, Source
from histofold.inference.stream import output_bands
from histofold.progress import bar
from histofold.slides.tiff import require_whole

OUTPUT_AHEAD = 4
"""Finished rows that wait for the compressor while the networks go on."""


@dataclass(frozen=True)
class Job:
    """One sample to predict.

    Attributes:
        sample_id: its name in messages.
        open: gives the source when its turn comes (a slide is opened then, and not before).
        out: the band file to write.
        pixels: of the sample at the scale it is predicted at, for the progress bar.
        stamp: of the input, hexadecimal digits; a file that was made from another input is made anew.
    """

    sample_id: str
    open: Callable[[], Source]
    out: Path
    pixels: int
    stamp: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of many jobs: names of the samples made and kept, and the errors of the others."""

    made: tuple[str, ...]
    kept: tuple[str, ...]
    failures: dict[str, Exception]

    def without(self, failures: Mapping[str, Exception]) -> Outcome:
        """The same where samples that were predicted failed in what was made of them."""
        made, kept = (tuple(name for name in names if name not in failures) for names in (self.made, self.kept))
        return Outcome(made, kept, {**self.failures, **failures})

    def check(self) -> None:
        """Raise when a sample failed.

        Raises:
            DataError: naming the samples that failed and the first reason.
        """
        if self.failures:
            first = next(iter(self.failures.values()))
            raise DataError(
                f"{len(self.failures)} of {len(self.made) + len(self.kept) + len(self.failures)} samples failed "
                f"({', '.join(list(self.failures)[:10])}); the others are done. The first: {first}"
            )


def predict_array(
    image: NDArray[np.uint8],
    members: Sequence[Member],
    weights: Sequence[float] | None = None,
    settings: Settings | None = None,
) -> NDArray[np.uint8]:
    """Predict an RGB image (H, W, 3) uint8: codes uint8 (K, H, W) of `output_bands(members, settings)`."""
    settings = settings or Settings()
    source = ArraySource(image, next((member.spec.scale for member in members if member.spec), 1.0))
    require_alike(source, members, settings)
    codes = np.empty((len(output_bands(members, settings)), source.height, source.width), dtype=np.uint8)
    for first, rows in sized.rows(source, members, weights, settings):
        codes[:, first : first + rows.shape[1]] = rows
    return codes


def predict_sample(
    source: Source,
    members: Sequence[Member],
    weights: Sequence[float] | None,
    settings: Settings,
    out: Path,
    fingerprint: str = "",
    progress: Callable[[int], object] | None = None,
) -> None:
    """Predict one source into the band file `out`, in memory of a few rows of tiles.

    Args:
        source: image or slide.
        members: networks, each a module of its own.
        weights: of the members; None means equal.
        settings: tiles, views, device.
        out: the file; it appears when it is whole.
        fingerprint: kept in the file.
        progress: told the number of pixels whenever rows are done.

    Raises:
        ConfigError, DataError: as `require_alike` and `sized.rows` do.
    """
    require_alike(source, members, settings)
    writer = BandFileWriter(
        out,
        output_bands(members, settings),
        source.height,
        source.width,
        source.scale,
        source.full_height,
        source.full_width,
        fingerprint,
    )
    one_arena()
    # Computing runs ahead in a thread of its own, so that compressing does not hold it up.
    rows = ahead(sized.rows(source, members, weights, settings), OUTPUT_AHEAD)
    with closing(rows), writer:
        for first, codes in rows:
            writer.write_rows(first, codes)
            if progress is not None:
                progress(codes.shape[1] * codes.shape[2])


def predict_samples(
    jobs: Iterable[Job],
    members: Sequence[Member],
    weights: Sequence[float] | None,
    settings: Settings,
    fingerprint: str = "",
    before: Callable[[Sequence[Job]], object] | None = None,
) -> Outcome:
    """Predict many samples, with a progress bar in megapixels.

    A whole file of the same fingerprint is kept, so that a run that broke off goes on with the first unfinished
    sample. All other files of these jobs go before the first is predicted: what then fails, or is not reached, has no
    file rather than one of other networks. A sample that cannot be read does not stop the others; it is in
    `failures`. Trouble that would meet every sample alike (settings, memory, a full disk) is raised at once.

    Args:
        jobs: the samples.
        members: networks, each a module of its own.
        weights: of the members; None means equal.
        settings: tiles, views, device.
        fingerprint: of what predictions depend on (`fingerprint_of`), beside the stamp of each job.
        before: told what is still to do, where there is anything, before the first is opened; to refuse, it raises.
    """
    made: list[str] = []
    failures: dict[str, Exception] = {}
    jobs = list(jobs)
    done = {job.out for job in jobs if is_done(job.out, tag(fingerprint, job.stamp))}
    kept = [job.sample_id for job in jobs if job.out in done]
    todo = [job for job in jobs if job.out not in done]
    if todo and before is not None:
        before(todo)
    for job in todo:
        # What cannot be read at the moment, of a disk that is not there, may be what it was: `submit` asks again.
        if job.stamp or not _made_alike(job.out, fingerprint):
            job.out.unlink(missing_ok=True)
    meter: tqdm[Any] = bar(total=sum(job.pixels for job in todo), text="predict", unit="px")
    meter.unit_scale = True  # megapixels
    with meter as progress:
        for job in todo:
            try:
                with closing(job.open()) as source:
                    predict_sample(
                        source, members, weights, settings, job.out, tag(fingerprint, job.stamp), progress.update
                    )
                made.append(job.sample_id)
            except (DataError, OSError) as error:
                failures[job.sample_id] = error
                progress.write(f"{job.sample_id}: left out: {error}", file=sys.stderr)
    return Outcome(tuple(made), tuple(kept), failures)


def is_done(path: Path, fingerprint: str) -> bool:
    """Whether a whole band file with this `tag` is there."""
    if not path.exists():
        return False
    try:
        # The tags stand at the head: they can be read of a file that was cut off behind them.
        require_whole(path)
        with BandFile(path) as file:
            return file.fingerprint == fingerprint
    except (DataError, OSError):
        return False


def _made_alike(path: Path, fingerprint: str) -> bool:
    """Whether a whole band file is there that these networks and settings made, of whatever input."""
    try:
        found = origin(path) if path.exists() else None
    except (DataError, OSError):
        return False
    return found is not None and f"{found.members}-{found.settings}" == fingerprint


class Origin(NamedTuple):
    """What a band file was made from, a digest each: the networks, the settings, and the input (empty: not known)."""

    members: str
    settings: str
    stamp: str


def tag(fingerprint: str, stamp: str) -> str:
    """What a band file says of its origin: `<members>-<settings>-<stamp>`, the first two from `fingerprint_of`."""
    return f"{fingerprint}-{stamp}"


def origin(path: Path) -> Origin | None:
    """What a band file was made from; None where it is from before files said so in parts.

    Raises:
        DataError: it is missing or broken.
    """
    with BandFile(path) as file:
        found = re.fullmatch(r"([0-9a-f]{16})-([0-9a-f]{16})-([0-9a-f]*)", file.fingerprint)
    return Origin(*found.groups()) if found else None


def fingerprint_of(hashes: Sequence[str], weights: Sequence[float], settings: Settings) -> str:
    """What predictions depend on beside their input, as two digests of 16 hexadecimal digits: `<members>-<settings>`.

    The first is of checkpoint hashes, weights, and what an ensemble prescribes (spread and size); the second of what
    each `predict` may choose. Device, precision and batch are left out: they change nothing but rounding, and a run may
    go on elsewhere.
    """
    members = [list(hashes), [float(weight) for weight in weights], settings.spread, float(settings.size)]
    chosen = [settings.tile, settings.step, settings.margin, settings.window, settings.tta, settings.skip_background]
    return f"{digest(members)}-{digest(chosen)}"


def members_of(sha256: str, size: float) -> set[str]:
    """What `Origin.members` may be of one checkpoint's predictions, with the band `spread` or without it.

    Args:
        sha256: of the checkpoint's file.
        size: `predict.size` that they were made with.
    """
    ways = [Settings(spread=spread, size=size) for spread in (False, True)]
    return {fingerprint_of([sha256], [1.0], way).partition("-")[0] for way in ways}
