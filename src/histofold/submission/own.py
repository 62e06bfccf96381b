"""Images of one's own: any folder through an ensemble, without labels and without a competition's layout."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from histofold import rle, slides
from histofold.competitions import images
from histofold.errors import DataError
from histofold.files import atomic
from histofold.inference.bandfile import BandFile
from histofold.inference.ensemble import Ensemble
from histofold.inference.predict import Job, fingerprint_of, predict_samples
from histofold.inference.sources import ArraySource, SlideSource, Source
from histofold.instances.secondlevel import decode
from histofold.report.overlay import outlines
from histofold.slides.reduce import reduce_array
from histofold.submission.encode import ROWS, write_labels
from histofold.submission.geojson import write_geojson
from histofold.submission.place import Submission
from histofold.upsample import full_size

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".svs", ".ndpi", ".mrxs", ".scn", ".vms")
LARGE = 50_000_000
"""Pixels above which a TIFF is read as a slide, band by band, and gets no full-size overlay."""


def predict_folder(submission: Submission, folder: Path) -> str:
    """Write band files, label TIFFs, GeoJSON and overlays for every image of a folder; gives a line that says where.

    Raises:
        DataError: no image there, or some could not be read (the others are done).
    """
    paths = find_images(folder)
    place = submission.folder / "images" / folder.resolve().name
    config = submission.workspace.config
    settings = submission.predictor()
    members, weights = submission.ensemble.load_members(config.path("oof"), settings.torch_device())
    scale = members[0].spec.scale if members[0].spec else 1.0
    bands = place / "predictions"
    jobs = [
        Job(path.stem, partial(open_image, path, scale), bands / f"{path.stem}.tif", _pixels(path, scale))
        for path in paths
    ]
    hashes = [item.sha256 for item in submission.ensemble.checkpoints]
    second = submission.ensemble.second_path(config.path("oof"))
    outcome = predict_samples(jobs, members, weights, settings, fingerprint_of(hashes, weights, settings))
    for path in paths:
        if path.stem not in outcome.failures:
            finish(submission.ensemble, path, place, second)
    outcome.check()
    return f"{place}: {len(paths)} images, as predictions/ (bands), labels/, geojson/ (for QuPath) and overlays/"


def find_images(folder: Path) -> list[Path]:
    """Images of a folder, sorted.

    Raises:
        DataError: no such folder, none in it, or two that differ in their ending only.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; images= takes a folder of images")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if not paths:
        raise DataError(f"{folder}: no image there; known endings are {' '.join(ENDINGS)}")
    stems = [path.stem for path in paths]
    double = [stem for stem in stems if stems.count(stem) > 1]
    if double:
        raise DataError(f"{folder}: several images are called {double[0]}; rename all but one")
    return paths


def open_image(path: Path, scale: float) -> Source:
    """Open one image, small ones in memory and large TIFFs as slides.

    Raises:
        DataError: it cannot be read.
    """
    if is_slide(path):
        return SlideSource(slides.open(path), scale)
    image = images.rgb(path)
    small = image if scale == 1 else reduce_array(image, scale)
    return ArraySource(small, scale, image.shape[:2])


def is_slide(path: Path) -> bool:
    """Whether a file is read band by band."""
    if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp"):
        return False
    with slides.open(path) as slide:
        return slide.height * slide.width > LARGE


def _pixels(path: Path, scale: float) -> int:
    """A guess for the progress bar, from the size of the file, where the image was not read yet."""
    return max(1, int(path.stat().st_size / scale**2))


def finish(ensemble: Ensemble, path: Path, place: Path, second: Path | None = None) -> None:
    """Write label image and GeoJSON (of any size) and, for what fits a screen, the overlay of one predicted image."""
    labels = labels_of(ensemble, place / "predictions" / f"{path.stem}.tif", path, second)
    write_labels(place / "labels" / f"{path.stem}.tif", labels)
    write_geojson(place / "geojson" / f"{path.stem}.geojson", labels, ensemble.instances is not None)
    if is_slide(path):
        image, scale = slides.thumbnail(path, 2048)
        rows = np.minimum((np.arange(image.shape[0]) * scale).astype(int), labels.shape[0] - 1)
        columns = np.minimum((np.arange(image.shape[1]) * scale).astype(int), labels.shape[1] - 1)
        labels = labels[np.ix_(rows, columns)]
    else:
        image = images.rgb(path)
    drawn = cv2.cvtColor(outlines(image, None, labels), cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", drawn)
    if not done:
        raise DataError(f"{path}: its overlay could not be encoded as PNG")
    with atomic(place / "overlays" / f"{path.stem}.png") as temporary:
        temporary.write_bytes(data.tobytes())


def whole_image(path: Path) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) of an image or slide."""
    if not is_slide(path):
        return images.rgb(path)
    with slides.open(path) as slide:
        return slide.window(0, 0, slide.height, slide.width)


def labels_of(ensemble: Ensemble, path: Path, image: Path, second: Path | None) -> NDArray[np.integer]:
    """Labels (H, W) of a band file at full size: instances, or 0 and 1.

    Args:
        image: that was predicted; a second level looks at it.
        second: its file, None where there is none.
    """
    with BandFile(path) as file:
        height, width = file.full_size
        if ensemble.instances is not None:
            pixels = partial(whole_image, image)
            labels = decode(file.read(), ensemble.instances, second, pixels, file.scale)
            return full_size(labels, file.scale, height, width)
        assert ensemble.threshold is not None
        index = [band.name for band in file.bands].index("foreground")
        rows = (file.rows(top, min(top + ROWS, file.height))[index] for top in range(0, file.height, ROWS))
        parts = list(rle.upsample_bands(rows, file.scale, height, width, ensemble.threshold))
    return np.vstack(parts).astype(np.uint8)
