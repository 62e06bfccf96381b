"""`kernel`: an ensemble as a Kaggle dataset and a notebook that runs it without a network; pushed when asked.

submissions/<competition>/<name>/kernel/
    notebook.ipynb, kernel-metadata.json
    dataset/    dataset-metadata.json, histofold-export.json (the manifest),
                package/ (the inference code), models/ (ensemble and weights), wheels/
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from histofold import competitions, given, limits
from histofold.competitions.base import Place
from histofold.config import Config
from histofold.errors import ConfigError, DataError, ResourceError
from histofold.files import read_json, scratch, sha256
from histofold.inference import checkpoint
from histofold.inference.ensemble import Ensemble
from histofold.inference.settings import Settings
from histofold.kaggle import credentials, notebook, package, wheels
from histofold.offline.manifest import FOLDER, MODELS, PACKAGE, WHEELS, Manifest, Wheel, stamp_of
from histofold.submission.place import Submission
from histofold.workspace import Workspace

ENTRY = "histofold.offline.run"


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        folder: of the notebook, `kernel/`.
        manifest: what the notebook reads.
        notebook: `owner/slug`.
        size: bytes of the dataset.
    """

    folder: Path
    manifest: Manifest
    notebook: str
    size: int

    @property
    def dataset(self) -> Path:
        """Folder of the dataset."""
        return self.folder / "dataset"


def kernel(config: Config) -> None:
    """Write the notebook and its dataset, and with `kernel.push=true` send, run and submit them.

    Raises:
        ConfigError: a setting is wrong, or Kaggle's name of the owner is unknown.
        DataError: no ensemble, a checkpoint is missing, or the competition has no CSV.
        KaggleError: a wheel cannot be fetched, or Kaggle refused something.
        ResourceError: larger than what Kaggle takes.
    """
    submission = Submission.of(Workspace(config))
    slug = submission.workspace.config.competition.slug
    if config.kernel.push and slug is None:
        raise ConfigError(
            f"kernel.push=true: {config.competition.name} is no competition of Kaggle's (its slug is null)"
        )
    differences = _differences(submission)
    if config.kernel.push:
        _require_typed(submission, differences)
    export = write(submission)
    print(f"{export.folder}: {notebook.NOTEBOOK} and dataset/ ({export.size / 1e6:.1f} MB)")
    for difference in differences:
        print(difference)
    if not config.kernel.push or slug is None:
        _hand_over(export)
        return
    from histofold.kaggle.push import push

    message = config.kernel.message or f"{submission.ensemble.name}, notebook"
    cv = submission.ensemble.score.get("cross_fitted")
    push(slug, export, message, None if cv is None else float(cv), submission.workspace.submissions / "log.csv")


def write(submission: Submission) -> Export:
    """Write everything below `kernel/` anew; an older one is replaced when the new one is whole."""
    config, ensemble = submission.workspace.config, submission.ensemble
    if competitions.open(config.competition, config.path("input")).csv is None:
        raise ConfigError(
            f"competition.name={config.competition.name}: takes no CSV, so there is nothing for a notebook to do"
        )
    asked, owner = config.kernel.title, owner_of(config)
    title = notebook.title_of(asked) if asked else notebook.title_for(config.competition.name, ensemble.name)
    final = submission.folder / "kernel"
    with scratch(final) as folder:
        dataset = folder / "dataset"
        package.copy_modules([ENTRY], dataset / PACKAGE)
        models = copy_models(ensemble, config.path("oof"), dataset / MODELS)
        listed, by_user = _wheels(config, models)
        brought = wheels.gather(listed, dataset / WHEELS, config.kernel.python, by_user)
        manifest = _manifest(submission, dataset, notebook.dataset_of(owner, title), brought)
        manifest.write(dataset)
        size = check_size(dataset, config.kernel.limit)
        notebook.write_dataset_metadata(dataset, owner, title)
        notebook.write_notebook(folder, manifest.dataset, manifest.stamp, _note(ensemble, manifest))
        content = notebook.write_kernel_metadata(folder, owner, title, config.competition.slug, config.kernel.gpu)
        shutil.rmtree(final, ignore_errors=True)
        folder.rename(final)
    return Export(final, manifest, content["id"], size)


def owner_of(config: Config) -> str:
    """Kaggle's name of the user.

    Raises:
        ConfigError: it is neither set nor among the credentials.
    """
    owner = config.kernel.owner or credentials.user()
    if not owner:
        raise ConfigError(
            "kernel.owner=null: a notebook belongs to somebody; say kernel.owner=NAME, as in kaggle.com/NAME "
            "(a username among Kaggle's credentials is found by itself)"
        )
    return owner


def copy_models(ensemble: Ensemble, oof: Path, folder: Path) -> set[str]:
    """Copy the ensemble and the checkpoints that have a weight; gives the names of their networks.

    Raises:
        DataError: a checkpoint is missing, or is not the one that was scored.
    """
    used = set()
    for item, weight in zip(ensemble.checkpoints, ensemble.weights(), strict=True):
        if weight == 0:
            continue
        path = oof / ensemble.competition / item.path
        if not path.is_file() or sha256(path) != item.sha256:
            raise DataError(f"{path}: not the checkpoint that {ensemble.name} was scored with; run evaluate again")
        spec, _ = checkpoint.load(path)
        used.add(str(spec.model["name"]))
        target = folder / ensemble.competition / item.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    ensemble.write(folder)
    second = ensemble.second_path(oof)
    if second is not None:
        target = Ensemble.second_place(folder, ensemble.competition, ensemble.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(second, target)
    return used


def check_size(dataset: Path, limit: str) -> int:
    """Bytes of the dataset.

    Raises:
        ResourceError: more than `kernel.limit`.
    """
    size = sum(path.stat().st_size for path in dataset.rglob("*") if path.is_file())
    most = limits.size(limit, "kernel.limit")
    if size > most:
        raise ResourceError(
            f"{dataset}: {size / 1e9:.2f} GB, and Kaggle takes {most / 1e9:.2f} GB (kernel.limit); "
            "take fewer members (evaluate runs=[…]) or smaller networks"
        )
    return size


def _wheels(config: Config, models: set[str]) -> tuple[list[str], bool]:
    """Requirements and files of wheels, and whether the user listed them."""
    listed = config.kernel.wheels
    if listed == "auto":
        return wheels.needed(models), False
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise ConfigError(f"kernel.wheels={listed}: expected auto, or a list of requirements and .whl files")
    return list(listed), True


def _manifest(submission: Submission, dataset: Path, name: str, brought: list[Wheel]) -> Manifest:
    config = submission.workspace.config
    settings = Settings(**{**asdict(submission.predictor()), "device": config.kernel.device})
    files = {str(path.relative_to(dataset)): sha256(path) for path in sorted(dataset.rglob("*")) if path.is_file()}
    chosen = config.competition
    options = options_there(submission.workspace.competition.place, chosen.options)
    listed = [wheel.name for wheel in brought if wheel.asked]
    # Of `submit` what the result depends on: another message makes no other export.
    cleanup = {"min_area": config.submit.min_area, "max_hole": config.submit.max_hole}
    return Manifest(
        dataset=name,
        stamp=stamp_of(files, asdict(settings), cleanup, config.kernel.hours, options, listed),
        name=submission.ensemble.name,
        competition={"name": chosen.name, "adapter": chosen.adapter, "slug": chosen.slug, "options": options},
        predict=asdict(settings),
        **cleanup,
        hours=config.kernel.hours,
        wheels=tuple(brought),
    )


def options_there(place: Place, options: dict[str, Any]) -> dict[str, Any]:
    """The competition's options as they hold in a notebook.

    A folder of this machine means nothing there. The data is looked for under the competition's name, and what lies in
    it counts from `{folder}`.

    Raises:
        ConfigError: an option names a place outside of the data.
    """
    found = {key: value for key, value in options.items() if key not in ("folder", "sample")}
    root, inputs = _plain(place.root), _plain(place.input)
    for key, value in found.items():
        if not isinstance(value, str):
            continue
        path = _plain(inputs / Path(value).expanduser())
        absolute = Path(value).expanduser().is_absolute()
        # Of the relative ones, `test` alone counts from all competitions' folder, the others from the data.
        if path.is_relative_to(root) and (absolute or (key == "test" and root != inputs)):
            found[key] = f"{FOLDER}/{path.relative_to(root).as_posix()}"
        elif absolute or not path.is_relative_to(inputs):
            raise ConfigError(
                f"competition.options.{key}={value}: a place of this machine, which a notebook does not have; put it "
                f"into the data's folder {place.root} and name it there, or take it out with "
                f"competition.options.{key}=null where prediction does not need it"
            )
    return found


def _plain(path: Path) -> Path:
    """Without `..`; links stay as they are, because the data may be some."""
    return Path(os.path.normpath(path))


def _note(ensemble: Ensemble, manifest: Manifest) -> str:
    score = ensemble.score.get("cross_fitted")
    cv = "" if score is None else f", {ensemble.metric} {score:.4f} cross-fitted"
    views = manifest.predict["tta"]
    return f"histofold, ensemble `{ensemble.name}`: {len(ensemble.checkpoints)} networks{cv}, views: {views}."


@dataclass(frozen=True)
class Difference:
    """A setting that the test set was predicted or encoded with here, and another one that the notebook will use."""

    verb: str
    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key}={self.now} in the notebook; `{self.verb}` was run here with {self.key}={self.before}"


COMPARED = {"predict": ("tile", "step", "margin", "window", "tta"), "submit": ("min_area", "max_hole")}
"""Verb → settings that its result depends on, which provenance.json records."""


def _differences(submission: Submission) -> list[Difference]:
    path = submission.folder / "provenance.json"
    record: dict[str, Any] = read_json(path) if path.is_file() else {}
    found = []
    for verb, keys in COMPARED.items():
        before, now = record.get(verb) or {}, vars(getattr(submission.workspace.config, verb))
        changed = [key for key in keys if key in before and before[key] != now[key]]
        found += [Difference(verb, f"{verb}.{key}", before[key], now[key]) for key in changed]
    return found


def _require_typed(submission: Submission, differences: list[Difference]) -> None:
    """Look whether a notebook that is submitted differs from the file that was looked at only where somebody said so.

    Raises:
        ConfigError: a setting of the notebook differs, and was not on the command line; it would cost a submission.
    """
    name, ensemble = submission.workspace.config.competition.name, f"name={submission.ensemble.name}"
    typed = {given.key_of(word) for word in shlex.split(given.again("kernel", name))}
    silent = [difference for difference in differences if difference.key not in typed]
    if not silent:
        return

    def command(side: str) -> str:
        settings = [f"{difference.key}={getattr(difference, side)}" for difference in silent]
        return given.again("kernel", name, ensemble, "kernel.push=true", *settings)

    raise ConfigError(
        f"kernel.push=true: {'; '.join(map(str, silent))}; nothing was sent. Submit what was looked at with "
        f"`{command('before')}`, or the other on purpose with `{command('now')}`"
    )


def _hand_over(export: Export) -> None:
    """Print the commands that send an export; comments have lines of their own, which every shell can be given."""
    # It is beside the interpreter, in an environment that need not be active.
    beside = Path(sys.executable).with_name("kaggle")
    kaggle = str(beside) if beside.is_file() else "kaggle"
    print("# the dataset, the first time and later:")
    print(shlex.join([kaggle, "datasets", "create", "-r", "zip", "-p", str(export.dataset)]))
    print(shlex.join([kaggle, "datasets", "version", "-m", "new", "-r", "zip", "-p", str(export.dataset)]))
    print("# the notebook, when Kaggle has unpacked the dataset:")
    print(shlex.join([kaggle, "kernels", "push", "-p", str(export.folder)]))
