"""Which ensemble a submission comes from, where its files are, and what it was made of."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import torch
from omegaconf import OmegaConf

from histofold import __version__, given, limits
from histofold.competitions.base import Competition, Sample
from histofold.errors import ConfigError, DataError
from histofold.files import digest, read_json, write_json
from histofold.inference import planning
from histofold.inference.ensemble import Ensemble
from histofold.inference.predict import fingerprint_of
from histofold.inference.settings import Settings
from histofold.inference.stream import SPREAD
from histofold.limits import Plan
from histofold.sources import stamp_of
from histofold.training.oof import settings_of
from histofold.workspace import Workspace

T = TypeVar("T")

ANEW = "predicted_anew"
"""Key of `submit` in provenance.json: since when its files are of predictions that are there no more."""


@dataclass(frozen=True)
class Submission:
    """One folder `submissions/<competition>/<name>`.

    Attributes:
        ensemble: what predicts.
        folder: where everything goes.
    """

    workspace: Workspace
    ensemble: Ensemble
    folder: Path

    @classmethod
    def of(cls, workspace: Workspace) -> Submission:
        """The submission of `name=`, or of the only ensemble there is.

        Raises:
            ConfigError: several ensembles and no `name`.
            DataError: no such ensemble, or none at all; says which other competitions have some.
        """
        folder = workspace.oof / "ensembles"
        names = sorted(path.stem for path in folder.glob("*.json"))
        name = workspace.config.name or (names[0] if len(names) == 1 else None)
        if not names:
            how = given.again("evaluate", workspace.config.competition.name, "runs=[…]")
            others = elsewhere(workspace.config.path("oof"))
            raise DataError(f"{folder}: no ensemble yet; make one with `{how}`{others}")
        if name is None:
            raise ConfigError(f"name: several ensembles are there ({', '.join(names)}); choose one with name=")
        if name not in names:
            raise DataError(f"{folder / name}.json: no such ensemble; there are {', '.join(names)}")
        return cls(workspace, Ensemble.read(folder / f"{name}.json"), workspace.submissions / name)

    @property
    def predictions(self) -> Path:
        """Folder of the band files."""
        return self.folder / "predictions"

    @property
    def labels(self) -> Path:
        """Folder of the label images."""
        return self.folder / "labels"

    @property
    def csv(self) -> Path:
        """The submission file."""
        return self.folder / "submission.csv"

    @property
    def provenance(self) -> Path:
        """The record of what it was made of."""
        return self.folder / "provenance.json"

    def predictor(self) -> Settings:
        """Settings of the predictor, with the bands and the size that the ensemble was evaluated with.

        Raises:
            ConfigError: a value is out of range.
        """
        settings = settings_of(self.workspace.config)
        return replace(settings, spread=SPREAD.name in self.ensemble.bands, size=self.ensemble.size)

    def overruled(self) -> list[str]:
        """A line for each setting of `predict.*` that was asked for and that the ensemble decides otherwise."""
        asked, used = settings_of(self.workspace.config), self.predictor()
        name, lines = self.ensemble.name, []
        if asked.size and asked.size != used.size:
            lines.append(f"predict.size={asked.size:g} is not used: {name} was evaluated with {used.size:g}")
        if asked.spread and not used.spread:
            lines.append(f"predict.spread=true is not used: {name} was evaluated without it")
        return [f"{line}; give it in training, whose out-of-fold predictions settle it" for line in lines]

    def fingerprint(self) -> str:
        """What its predictions depend on beside their input, as band files say it (`fingerprint_of`).

        Raises:
            ConfigError: a setting of the predictor is out of range.
            DataError: the ensemble's runs and checkpoints do not fit.
        """
        pairs = zip(self.ensemble.checkpoints, self.ensemble.weights(), strict=True)
        used = [(item.sha256, weight) for item, weight in pairs if weight > 0]
        return fingerprint_of([sha for sha, _ in used], [weight for _, weight in used], self.predictor())

    def samples(self) -> list[Sample]:
        """What is to be predicted: the submission's ids, or every sample outside of training where there is no CSV."""
        competition = self.workspace.competition
        if competition.csv is not None:
            return [competition.sample(sample_id) for sample_id in competition.submission_ids()]
        return [sample for sample in competition.samples() if sample.split != "train"]

    def require_room(self, plan: Plan) -> None:
        """Print what a step is expected to need beside `limits.*`; `plan` counts what this process holds already.

        Raises:
            ConfigError: a limit cannot be read.
            ResourceError: it does not fit; says what is short, and what to change.
        """
        plan.check(limits.of(self.workspace.config.limits, self.folder, planning.resident()))

    def record(self, **more: Any) -> None:
        """Write or extend `provenance.json`: what this submission was made of, by what, and when."""
        values = {
            **self.recorded(),
            "ensemble": asdict(self.ensemble),
            "config": OmegaConf.to_container(OmegaConf.structured(self.workspace.config)),
            "version": __version__,
            "commit": commit(Path(self.workspace.config.root)),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "input": fingerprint(self.workspace.competition, self.samples()),
            **more,
        }
        write_json(self.provenance, values)

    def recorded(self) -> dict[str, Any]:
        """What `provenance.json` says; empty where there is none.

        Raises:
            DataError: it is broken.
        """
        values: dict[str, Any] = read_json(self.provenance) if self.provenance.exists() else {}
        return values

    def outdate(self) -> None:
        """Record, before predictions change, that what `submit` wrote is not of them, and which ensemble it was of."""
        values = self.recorded()
        submitted = values.get("submit")
        if submitted and ANEW not in submitted:
            values["submit"] = {**submitted, ANEW: now(), "ensemble": values.get("ensemble")}
            write_json(self.provenance, values)


def elsewhere(oof: Path) -> str:
    """Which competitions have ensembles below the folder `oof`, and how to choose them; empty where none has any."""
    found: dict[str, list[str]] = {}
    for path in sorted(oof.glob("*/ensembles/*.json")):
        found.setdefault(path.parts[-3], []).append(path.stem)
    known = [f"{', '.join(names)} with {' '.join(given.choice(name))}" for name, names in found.items()]
    return f"; there are: {'; '.join(known)}" if known else ""


def part_of(items: Sequence[T], shard: tuple[int, int] | None) -> list[T]:
    """The i-th of n equal parts, dealt out in turn so that big and small ones mix; all of them without a shard."""
    return list(items if shard is None else items[shard[0] :: shard[1]])


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def commit(root: Path) -> str | None:
    """The code's git commit, with a + when files differ from it; None outside of a checkout."""
    try:
        text = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return text.stdout.strip()


def fingerprint(competition: Competition, samples: list[Sample]) -> str:
    """What identifies the input, by what the files hold (of large ones: their sizes and pieces of them)."""
    return digest([[sample.sample_id, stamp_of(competition, sample)] for sample in samples])
