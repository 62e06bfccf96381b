"""A competition of drawn nuclei whose predictions are drawn, too: evaluate and submit without any training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import rasterio
from numpy.typing import NDArray

from histofold import compose, targets
from histofold.cli import main
from histofold.competitions import images
from histofold.files import write_json, write_text
from histofold.inference.bandfile import BandFileWriter
from histofold.inference.predict import tag
from histofold.sources import stamp_of
from histofold.submission.place import Submission
from histofold.workspace import Workspace

SIDE = 48
LEVELS = {"dark": 0.59, "light": 0.36}
"""Stratum → the foreground threshold that finds its nuclei as they are."""


def nuclei(seed: int) -> NDArray[np.uint16]:
    """Three discs, two of them touching."""
    labels = np.zeros((SIDE, SIDE), np.uint16)
    random = np.random.default_rng(seed)
    for label, (x, y) in enumerate([(12, 12), (25, 14), (30, 36)], 1):
        shift = random.integers(-2, 3, 2)
        cv2.circle(labels, (int(x + shift[0]), int(y + shift[1])), 7, label, -1)
    return labels


def bands(labels: NDArray[np.uint16], level: float, seed: int) -> NDArray[np.uint8]:
    """Foreground and border (2, H, W) as codes: a blurred rim puts the right outline at `level`, with some noise."""
    random = np.random.default_rng(seed)
    inside = cv2.distanceTransform((labels > 0).astype(np.uint8), cv2.DIST_L2, 3)
    outside = cv2.distanceTransform((labels == 0).astype(np.uint8), cv2.DIST_L2, 3)
    foreground = np.clip(level + 0.06 * (np.maximum(inside - 0.5, 0) - np.maximum(outside - 0.5, 0)), 0, 1)
    border = targets.build("border").encode(labels)[1] * 0.9
    noise = random.normal(0, 0.01, (2, SIDE, SIDE))
    return np.clip(np.rint((np.stack([foreground, border]) + noise) * 255), 0, 255).astype(np.uint8)


def write_bands(path: Path, codes: NDArray[np.uint8]) -> None:
    """Write a band file of a target `border` at full size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with BandFileWriter(path, targets.build("border").bands, SIDE, SIDE, 1.0, SIDE, SIDE) as writer:
        writer.write_rows(0, codes)


def retag(path: Path, text: str) -> None:
    """Let a band file say that it was made of something else."""
    with rasterio.open(path, "r+") as file:
        file.update_tags(HISTOFOLD_FINGERPRINT=text)


class Drawn:
    """Folders with images, truth, folds and the predictions of one run; the verbs on them."""

    def __init__(self, root: Path, *options: str) -> None:
        self.root, self.options = root, options
        self.oof, self.submission = root / "oof" / "custom", root / "submissions" / "custom" / "one"

    def run(self, verb: str, *more: str) -> int:
        """Run a verb in this process; gives the exit code. Whatever the ensemble is by now, it made the predictions."""
        if verb == "submit":
            self.tag()
        return main(verb, self.overrides(*more))

    def overrides(self, *more: str) -> list[str]:
        """Overrides of every verb: this world's places, then `more`."""
        places = [f"paths.{name}={self.root / name}" for name in ("input", "prepared", "oof", "submissions")]
        quiet = ["evaluate.workers=1", "evaluate.bootstrap=20", "prepare.workers=1", "prepare.n_folds=2", "name=one"]
        return ["competition=folders", *self.options, *places, *quiet, *more]

    def submission_of(self, *more: str) -> Submission:
        """The submission as the verbs open it."""
        return Submission.of(Workspace(compose.load(compose.compose(self.overrides(*more)))))

    def tag(self, *more: str) -> None:
        """Let the predictions say that the ensemble made them of the images that there are."""
        submission = self.submission_of(*more)
        for sample in submission.samples():
            stamp = stamp_of(submission.workspace.competition, sample)
            retag(submission.predictions / f"{sample.sample_id}.tif", tag(submission.fingerprint(), stamp))

    def truth(self, sample_id: str) -> NDArray[Any]:
        """Labels (H, W) of a sample."""
        return images.integers(self.root / "input" / "custom" / "labels" / f"{sample_id}.png")


@pytest.fixture(scope="session")
def draw(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Drawn]:
    """Draw a competition: `draw(images of each stratum, Hydra options)`."""

    def make(count: int, *options: str, seed: int = 0) -> Drawn:
        world = Drawn(tmp_path_factory.mktemp("drawn"), *options)
        place = world.root / "input" / "custom"
        rows: list[dict[str, Any]] = []
        for folder in ("images", "labels"):
            (place / folder).mkdir(parents=True)
        for stratum in LEVELS:
            for number in range(count + 2):
                name, split = f"{stratum}{number:02}", "train" if number < count else "test"
                labels = nuclei(1000 * seed + 10 * len(rows))
                shade = np.where(labels[..., None] > 0, 90, 220).astype(np.uint8)
                cv2.imwrite(str(place / "images" / f"{name}.png"), np.repeat(shade, 3, axis=2))
                cv2.imwrite(str(place / "labels" / f"{name}.png"), labels)
                rows.append({"id": name, "group": name, "type": stratum, "split": split})
        pd.DataFrame(rows).to_csv(place / "index.csv", index=False)
        assert world.run("prepare") == 0
        _predict(world)
        return world

    return make


def _predict(world: Drawn) -> None:
    """Write a run with the OOF predictions of both folds, and the predictions of the test images."""
    table = pd.read_csv(world.root / "prepared" / "custom" / "folds.csv", dtype={"sample_id": str})
    columns = (table[name] for name in ("sample_id", "split", "stratum", "fold"))
    for seed, (sample_id, split, stratum, fold) in enumerate(zip(*columns, strict=True)):
        place = world.oof / "run" / f"fold{fold}" if split == "train" else world.submission
        codes = bands(world.truth(sample_id), LEVELS[stratum], seed)
        write_bands(place / "predictions" / f"{sample_id}.tif", codes)
    for number in (0, 1):
        folder = world.oof / "run" / f"fold{number}"
        part = table[(table["split"] == "train") & (table["fold"] == number)]
        part.assign(score=0.5, aji=0.5).to_csv(folder / "scores.csv", index=False)
        write_text(folder / "config.yaml", "run: run\nfolds: default\nmodel: {name: unet}\n")
        write_json(folder / "model.ckpt", {"fold": number})
