"""Images of one's own: any folder through an ensemble, without labels and without a competition's layout."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from histofold import rle, slides
from histofold.competitions import images
from histofold.competitions.base import Image
from histofold.config import SubmitConfig
from histofold.errors import DataError
from histofold.files import atomic, digest, reading
from histofold.inference import planning
from histofold.inference.bandfile import BandFile
from histofold.inference.batches import CHUNK
from histofold.inference.ensemble import Ensemble
from histofold.inference.planning import SampleSize
from histofold.inference.predict import Job, predict_samples
from histofold.inference.sources import ArraySource, SlideSource, Source
from histofold.instances.secondlevel import decode
from histofold.limits import Plan
from histofold.report.overlay import outlines
from histofold.slides.reduce import reduce_array
from histofold.submission.encode import ROWS, cleaned, mask_text, write_labels
from histofold.submission.folder import PICTURES, claim, find_images, forget, place_of
from histofold.submission.geojson import write_geojson
from histofold.submission.place import Submission, part_of
from histofold.tiles.grid import reduced
from histofold.tiles.tissue import PIXEL, tissue_mask
from histofold.upsample import full_size

LARGE = 50_000_000
"""Pixels above which a TIFF is read as a slide, band by band, and gets no full-size overlay."""
MASK_BYTES, INSTANCE_BYTES, OVERLAY_BYTES = 24, 50, 10
"""Memory for a full-size pixel of an image while its labels and GeoJSON are made, and its overlay where it is whole."""
LABELS_WRITTEN, OVERLAY_WRITTEN = 0.4, 2.0
"""Bytes on disk for a full-size pixel of labels and GeoJSON, and of an overlay; labels are flat and photographs not."""
ADVICE = "cut the largest images into parts, as the labels of an image are held whole, or set limits.memory"
"""What to change when the memory for labels is short."""
STAINED = 0.005
"""Share of a slide that has to show colour for tiles without colour to count as glass; a scale bar does not."""
SCREEN = 2048
"""Pixels a side of what is looked at of a slide: its overlay, and the stratum that it shows."""


def predict_folder(submission: Submission, folder: Path) -> str:
    """Write band files, label TIFFs, GeoJSON and overlays for every image of a folder; gives a line that says where.

    Results of an image go before it is predicted anew, so that none of an older one stands beside newer ones.

    Raises:
        ConfigError: a setting is out of range.
        DataError: no image there, or some could not be read (the others are done).
        ResourceError: memory, disk or time would not suffice for what is still to do, labels of what is predicted
            already included; nothing was written.
    """
    paths = part_of(find_images(folder), submission.workspace.shard())
    shared = submission.workspace.shard() is not None
    place = place_of(submission.folder / "images", folder, shared)
    config = submission.workspace.config
    settings = submission.predictor()
    members, weights = submission.ensemble.load_members(config.path("oof"), settings.torch_device())
    scale = members[0].spec.scale if members[0].spec else 1.0
    jobs = [own_job(path, scale, settings.skip_background, place / "predictions") for path in paths]

    def check_room(todo: Sequence[Job]) -> None:
        names = {job.sample_id for job in todo}
        every, new = sizes_of(paths), sizes_of(path for path in paths if path.stem in names)
        plan = planning.plan(new, scale, members, settings) if new else Plan("predict", planning.resident(), 0, 0.0)
        if every:
            submission.require_room(with_labels(plan, every, submission.ensemble.instances is not None, new))
        claim(place, folder, shared)
        for job in todo:
            forget(place, job.sample_id)

    second = submission.ensemble.second_path(config.path("oof"))
    outcome = predict_samples(jobs, members, weights, settings, submission.fingerprint(), check_room)
    if len(outcome.kept) == len(jobs):
        check_room(())  # there was nothing to predict, but labels are made again
    done = [path for path in paths if path.stem not in outcome.failures]
    kind_of = submission.workspace.competition.kind_of
    failures = finish_all(submission.ensemble, done, place, config.submit, second, kind_of)
    outcome.without(failures).check()
    return f"{place}: {len(paths)} images, as predictions/ (bands), labels/, geojson/ (for QuPath) and overlays/"


def own_job(path: Path, scale: float, skip_background: bool, folder: Path) -> Job:
    """An image as a job of the predictor, stamped with the file that it is, as names may mean another one tomorrow."""
    status = path.stat()
    stamp = digest([str(path.resolve()), status.st_size, status.st_mtime_ns])
    opened = partial(open_image, path, scale, skip_background)
    return Job(path.stem, opened, folder / f"{path.stem}.tif", pixels_of(path, scale), stamp)


def pixels_of(path: Path, scale: float) -> int:
    """Pixels of an image at a reduction, by its header; a guess where that cannot be read, which its turn will tell."""
    try:
        size = size_of(path)
    except (DataError, OSError):
        return max(1, int(path.stat().st_size / scale**2))
    return reduced(size.height, scale) * reduced(size.width, scale)


def open_image(path: Path, scale: float, skip_background: bool = True) -> Source:
    """Open one image, small ones in memory and large ones as slides.

    Args:
        path: the image.
        scale: reduction ≥ 1.
        skip_background: whether tiles of a slide without colour would be left out; not done, and said so, where hardly
            any has colour, as in fluorescence: nothing at all would be predicted.

    Raises:
        DataError: it cannot be read.
    """
    if is_slide(path):
        with reading(path):
            slide = slides.open(path)
            sparse = skip_background and is_stained(slide)
        if skip_background and not sparse:
            share = f"less than {100 * STAINED:g} % of it shows colour (grey, fluorescence?)"
            tqdm.write(f"{path}: {share}, so no tile is skipped as background", sys.stderr)
        return SlideSource(slide, scale, sparse)
    image = whole_image(path)
    small = image if scale == 1 else reduce_array(image, scale)
    return ArraySource(small, scale, image.shape[:2])


def size_of(path: Path) -> SampleSize:
    """Size of an image from its header, and what its reader needs.

    Raises:
        DataError: it cannot be read.
    """
    if path.suffix.lower() in PICTURES:
        return SampleSize(*images.size(path))
    with reading(path), slides.open(path) as slide:
        if slide.height * slide.width <= LARGE:
            return SampleSize(slide.height, slide.width)
        return SampleSize(slide.height, slide.width, True, slide.memory(CHUNK))


def sizes_of(paths: Iterable[Path]) -> list[SampleSize]:
    """Sizes of images; those that cannot be read are left out here and told when their turn comes."""
    found = []
    for path in paths:
        try:
            found.append(size_of(path))
        except (DataError, OSError):
            continue
    return found


def is_slide(path: Path) -> bool:
    """Whether a file is read band by band.

    Raises:
        DataError: it cannot be read.
    """
    return path.suffix.lower() not in PICTURES and size_of(path).slide


def is_stained(slide: slides.Slide) -> bool:
    """Whether a slide shows colour in enough places to tell tissue from glass by it; reads no further than it must.

    Raises:
        DataError: the slide is damaged.
    """
    wanted = max(1.0, STAINED * reduced(slide.height, PIXEL) * reduced(slide.width, PIXEL))
    found = 0
    for _, rows in slide.bands(CHUNK, PIXEL):
        found += int(np.count_nonzero(tissue_mask(rows)))
        if found >= wanted:
            return True
    return False


def with_labels(
    plan: Plan, sizes: Sequence[SampleSize], instances: bool, new: Sequence[SampleSize] | None = None
) -> Plan:
    """A plan with what label images, GeoJSON and overlays need, which are made of one image after another at the end.

    Args:
        plan: of the predictions.
        sizes: of all images, at least one: also of those that are predicted already, whose labels are made again.
        instances: whether labels are instances, or a mask.
        new: those that have nothing on disk yet; by default all.
    """
    of_labels = INSTANCE_BYTES if instances else MASK_BYTES
    memory = max((of_labels + (0 if one.slide else OVERLAY_BYTES)) * one.height * one.width for one in sizes)
    new = sizes if new is None else new
    written = sum((LABELS_WRITTEN + (0 if one.slide else OVERLAY_WRITTEN)) * one.height * one.width for one in new)
    plan = replace(plan, disk=plan.disk + int(written))
    peak = planning.resident() + memory
    if peak <= plan.peak_memory:
        return plan
    return replace(plan, peak_memory=peak, advice={**plan.advice, "memory": ADVICE})


def finish_all(
    ensemble: Ensemble,
    paths: Sequence[Path],
    place: Path,
    cleaning: SubmitConfig,
    second: Path | None,
    kind_of: Callable[[Image], str] | None = None,
) -> dict[str, Exception]:
    """`finish` every image; gives the errors of those that failed, by name, which have no results then.

    A band file that turns out to be broken is deleted, so that the same command makes it anew. `kind_of` is the
    competition's: it is asked for the stratum of every image where strata have settings of their own.
    """
    failures: dict[str, Exception] = {}
    # A second level takes the decoder's place, whatever the stratum.
    with_strata = bool(ensemble.strata) and second is None
    shown: Counter[str] = Counter()
    for path in paths:
        try:
            stratum = kind_of(seen(path)) if with_strata and kind_of else ""
            finish(ensemble, path, place, cleaning, second, stratum)
            shown[stratum] += 1
        except (DataError, OSError) as error:
            failures[path.stem] = error
            print(f"{path.stem}: left out: {error}", file=sys.stderr)
            forget(place, path.stem)
            bands = place / "predictions" / f"{path.stem}.tif"
            if not readable(bands):
                bands.unlink(missing_ok=True)
    if with_strata and shown:
        print(settings_line(ensemble, shown if kind_of else None))
    return failures


def settings_line(ensemble: Ensemble, shown: Mapping[str, int] | None) -> str:
    """Which settings one's own images were decoded with, where strata have some of their own.

    Args:
        shown: stratum that the pixels show → images; None where nobody can tell.
    """
    if shown is None:
        return (
            f"{ensemble.name} has settings of their own for {', '.join(sorted(ensemble.strata))}; nothing tells the "
            "stratum of your own images, so all are decoded with the setting for all"
        )
    whose = {True: "its own setting", False: "the setting for all"}
    found = [f"{name} {count} with {whose[name in ensemble.strata]}" for name, count in sorted(shown.items())]
    return f"decoded by the image type that the pixels show: {', '.join(found)}"


def readable(path: Path) -> bool:
    """Whether every block of a band file can be decoded."""
    try:
        with BandFile(path) as file:
            for top in range(0, file.height, ROWS):
                file.rows(top, min(top + ROWS, file.height))
    except (DataError, OSError):
        return False
    return True


def finish(
    ensemble: Ensemble,
    path: Path,
    place: Path,
    cleaning: SubmitConfig,
    second: Path | None = None,
    stratum: str = "",
) -> None:
    """Write label image and GeoJSON (of any size) and, for what fits a screen, the overlay of one predicted image.

    Raises:
        DataError: the image or its band file cannot be read.
    """
    labels = labels_of(ensemble, place / "predictions" / f"{path.stem}.tif", path, second, cleaning, stratum)
    write_labels(place / "labels" / f"{path.stem}.tif", labels)
    write_geojson(place / "geojson" / f"{path.stem}.geojson", labels, ensemble.instances is not None)
    if is_slide(path):
        image, scale = slides.thumbnail(path, SCREEN)
        rows = np.minimum((np.arange(image.shape[0]) * scale).astype(int), labels.shape[0] - 1)
        columns = np.minimum((np.arange(image.shape[1]) * scale).astype(int), labels.shape[1] - 1)
        labels = labels[np.ix_(rows, columns)]
    else:
        image = whole_image(path)
    drawn = cv2.cvtColor(outlines(image, None, labels), cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", drawn)
    if not done:
        raise DataError(f"{path}: its overlay could not be encoded as PNG")
    with atomic(place / "overlays" / f"{path.stem}.png") as temporary:
        temporary.write_bytes(data.tobytes())


def seen(path: Path) -> Image:
    """What its stratum is told by: the pixels (H, W, 3) of an image, of a slide as many as fit a screen.

    Raises:
        DataError: it cannot be read.
    """
    if not is_slide(path):
        return whole_image(path)
    with reading(path):
        return slides.thumbnail(path, SCREEN)[0]


def whole_image(path: Path) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) of an image or slide.

    Raises:
        DataError: it cannot be read.
    """
    with reading(path):
        if path.suffix.lower() in images.SUFFIXES:
            return images.rgb(path)
        with slides.open(path) as slide:
            return slide.window(0, 0, slide.height, slide.width)


def labels_of(
    ensemble: Ensemble, path: Path, image: Path, second: Path | None, cleaning: SubmitConfig, stratum: str = ""
) -> NDArray[np.integer]:
    """Labels (H, W) of a band file at full size: instances, or 0 and 1.

    Args:
        ensemble: that predicted it.
        path: the band file.
        image: that was predicted; a second level looks at it.
        second: its file, None where there is none.
        cleaning: `submit.*`, of which small objects and holes count.
        stratum: of the image, whose setting counts where it has one; empty takes the setting for all.

    Raises:
        DataError: the band file, the second level or the image cannot be read.
    """
    with BandFile(path) as file:
        size = file.full_size
        setting = ensemble.decoder(stratum)
        if setting is None:
            assert ensemble.threshold is not None
            text = mask_text(file, ensemble.threshold, size, "rows", cleaning.min_area, cleaning.max_hole)
            return rle.decode(text, size, "rows")
        labels = decode(file.read(), setting, second, partial(whole_image, image), file.scale)
        labels = full_size(labels, file.scale, *size)
    return cleaned(labels, cleaning.min_area, cleaning.max_hole)
