"""Test samples in, submission.csv out: what `predict` and `submit` do, one sample at a time and never giving up.

A sample that cannot be read, or has no time left, becomes an empty row and a loud line: Kaggle scores the others.
"""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from histofold import competitions
from histofold.competitions import images
from histofold.competitions.base import Competition, Sample
from histofold.config import CompetitionConfig
from histofold.errors import DataError, ResourceError
from histofold.files import digest
from histofold.inference.ensemble import Ensemble
from histofold.inference.member import Member
from histofold.inference.predict import predict_sample
from histofold.inference.settings import Settings
from histofold.kaggle import csv, validate
from histofold.kaggle.csv import CsvFormat
from histofold.offline.budget import Budget, OutOfTimeError, TooSlowError
from histofold.offline.manifest import FOLDER, MARKER, MODELS, Manifest
from histofold.offline.speed import Speed, settle
from histofold.rle.dialects import find
from histofold.sources import open_source
from histofold.submission.encode import EncodeTask, encode

KEPT = 0.97
"""Share of the hours after which no new pixel is predicted, so that the file is still written."""


def main(export: Path, inputs: Path, working: Path, begun: float | None = None) -> Path:
    """Predict every sample of the submission and write `<working>/submission.csv`; gives its path.

    Args:
        export: the dataset that `./run.sh kernel` wrote.
        inputs: where Kaggle mounts data, read-only.
        working: where the notebook's output goes.
        begun: what `time.monotonic()` showed when the notebook started.

    Raises:
        DataError: the competition's files or the networks are missing, or not one sample could be predicted.
    """
    manifest = Manifest.read(export)
    competition = open_competition(manifest, inputs)
    worker = Worker.of(manifest, competition, export, begun)
    samples, rows, failed = worker.samples(), [], []
    for index, sample in enumerate(samples):
        texts, reason = worker.texts(sample, samples[index + 1 :])
        if reason:
            failed.append(sample.sample_id)
            loud(f"{sample.sample_id}: an EMPTY ROW: {reason}")
        rows += [(sample.sample_id, text) for text in texts]
        say(f"{index + 1} of {len(samples)}: {sample.sample_id}, {worker.budget.left / 3600:.2f} h left")
    path = working / "submission.csv"
    csv.write(path, worker.format, rows)
    shapes = {sample.sample_id: (sample.height, sample.width) for sample in samples if sample.height}
    for fault in validate.validate(path, worker.format, [sample.sample_id for sample in samples], shapes):
        loud(f"{path}: {fault}")
    if len(failed) == len(samples):
        raise DataError(
            f"{path}: all {len(samples)} rows are empty, because every sample failed; the reasons are above"
        )
    say(f"{path}: {len(rows)} rows, {len(samples) - len(failed)} of {len(samples)} samples predicted")
    return path


def open_competition(manifest: Manifest, inputs: Path) -> Competition:
    """The competition's files, wherever below `inputs` Kaggle has mounted them.

    Raises:
        DataError: there is no such folder.
    """
    values = manifest.competition
    name = str(values["slug"] or values["name"])
    mounted = [path for pattern in (name, f"*/{name}", f"*/*/{name}") for path in sorted(inputs.glob(pattern))]
    # The networks in an export lie below the competition's name, too.
    found = [path for path in mounted if not any((above / MARKER).exists() for above in path.parents)]
    if not found:
        raise DataError(f"{inputs}: no folder {name} in it; add the competition's data to the notebook")
    options = {key: _there(value, found[0]) for key, value in values["options"].items()}
    options["folder"] = str(found[0])
    config = CompetitionConfig(str(values["name"]), str(values["adapter"]), values["slug"], options)
    return competitions.open(config, inputs)


def _there(value: Any, folder: Path) -> Any:
    """An option's value where the competition's data is in `folder`."""
    inside = isinstance(value, str) and value.startswith(f"{FOLDER}/")
    return str(folder / value.removeprefix(f"{FOLDER}/")) if inside else value


@dataclass
class Worker:
    """Everything that the samples share.

    Attributes:
        format: of the submission.
        settings: of the predictor, with the views that were asked for.
    """

    competition: Competition
    ensemble: Ensemble
    format: CsvFormat
    manifest: Manifest
    settings: Settings
    members: list[Member]
    weights: list[float]
    budget: Budget
    speed: Speed
    second: Path | None = None

    @classmethod
    def of(cls, manifest: Manifest, competition: Competition, export: Path, begun: float | None) -> Worker:
        """Load the networks and look how fast they are here.

        Raises:
            DataError: a checkpoint is missing, or the competition has no CSV.
        """
        if competition.csv is None:
            raise DataError(f"{competition.name}: takes no CSV, so there is nothing to write")
        models = export / MODELS
        ensemble = Ensemble.read(Ensemble.place(models, competition.name, manifest.name))
        settings = Settings(**manifest.predict)
        second = ensemble.second_path(models)
        members, weights = ensemble.load_members(models, "cpu")
        settings = settle(members, settings, loud)
        say(f"{len(members)} networks on {settings.torch_device()}, predict.tta={settings.tta}")
        speed = Speed(members, settings, competition.kind == "slides")
        budget = Budget(KEPT * 3600 * manifest.hours, settings.tta, speed.seconds, time.monotonic, begun)
        return cls(competition, ensemble, competition.csv, manifest, settings, members, weights, budget, speed, second)

    def samples(self) -> list[Sample]:
        """The submission's samples in its order; height 0 where the file cannot be opened."""
        found = []
        for sample_id in self.competition.submission_ids():
            try:
                height, width = images.size(self.competition.source(sample_id))
            except Exception as error:
                loud(f"{sample_id}: its size cannot be read: {error}")
                height = width = 0
            self.speed.sizes[sample_id] = (height, width)
            found.append(Sample(sample_id, "test", height, width, "", self._stratum(sample_id)))
        return found

    def _stratum(self, sample_id: str) -> str:
        """The sample's stratum where the ensemble has settings for some; empty where it cannot be told."""
        if not self.ensemble.strata:
            return ""
        try:
            # Of this image alone: a notebook has no time to look at all of them.
            return self.competition.stratum(sample_id)
        except Exception as error:
            loud(f"{sample_id}: its stratum cannot be told, so it is decoded with the setting of all: {error}")
            return ""

    def texts(self, sample: Sample, others: list[Sample]) -> tuple[tuple[str, ...], str]:
        """Run-length texts of a sample, one a row, and why there is only an empty one where that is so."""
        nothing = (find(self.format.dialect).empty,)
        names = [sample.sample_id, *(other.sample_id for other in others)]
        while True:
            if self.budget.left <= 0:
                return nothing, "the time is over"
            views = self.budget.choose(names)
            if views != self.settings.tta:
                loud(f"{sample.sample_id}: the time is short, predict.tta={views} instead of {self.settings.tta}")
            try:
                return self._predicted(sample, names[1:], replace(self.settings, tta=views)), ""
            except TooSlowError:
                say(f"{sample.sample_id}: too slow with predict.tta={views}, starting again with fewer views")
                self.budget.wanted = self.budget.ladder()[self.budget.ladder().index(views) + 1]
            except OutOfTimeError:
                return nothing, "the time is over"
            except ResourceError as error:
                if not self._smaller(error):
                    return nothing, str(error)
            except Exception as error:  # one bad sample must not cost the others
                traceback.print_exc()
                return nothing, f"{type(error).__name__}: {error}"

    def _predicted(self, sample: Sample, others: list[str], settings: Settings) -> tuple[str, ...]:
        """Predict into a band file of a temporary folder, encode it, and delete it with the folder."""
        start = time.monotonic()
        scale = self.members[0].spec.scale if self.members[0].spec else 1.0
        with tempfile.TemporaryDirectory(prefix="histofold-bands-") as folder:
            path = Path(folder, f"{digest(sample.sample_id)}.tif")
            with closing(open_source(self.competition, sample, scale)) as source:
                pixels = source.height * source.width
                watch = self.budget.watch(sample.sample_id, others, settings.tta, pixels)
                predict_sample(source, self.members, self.weights, settings, path, progress=watch)
            texts = encode(self._task(sample, path)).texts
        self.budget.measured(sample.sample_id, settings.tta, time.monotonic() - start)
        return texts

    def _task(self, sample: Sample, path: Path) -> EncodeTask:
        return EncodeTask(
            competition=self.competition,
            sample=sample,
            path=path,
            labels=None,
            threshold=self.ensemble.threshold,
            instances=self.ensemble.decoder(sample.stratum),
            min_area=self.manifest.min_area,
            max_hole=self.manifest.max_hole,
            scored=False,
            second=self.second,
        )

    def _smaller(self, error: ResourceError) -> bool:
        """Halve the batch of a GPU that has too little memory, then go to the CPU; False when nothing is left."""
        if self.settings.torch_device().type == "cpu":
            return False
        batch = self.settings.batch
        self.settings = replace(self.settings, **({"batch": batch // 2} if batch > 1 else {"device": "cpu"}))
        loud(f"{error}; going on with predict.batch={self.settings.batch} on {self.settings.torch_device()}")
        return True


def say(text: str) -> None:
    """A line that is seen at once."""
    print(f"histofold: {text}", flush=True)


def loud(text: str) -> None:
    """A line that nobody misses."""
    print(f"\n!!! histofold: {text}\n", file=sys.stderr, flush=True)
