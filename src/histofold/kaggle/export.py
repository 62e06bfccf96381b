"""`kernel`: an ensemble as a Kaggle dataset and a notebook that runs it without a network; pushed when asked.

submissions/<competition>/<name>/kernel/
    notebook.ipynb, kernel-metadata.json
    dataset/    dataset-metadata.json, histofold-export.json (the manifest),
                package/ (the inference code), models/ (ensemble and weights), wheels/
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from histofold import competitions, limits
from histofold.config import Config
from histofold.errors import ConfigError, DataError, ResourceError
from histofold.files import read_json, scratch, sha256
from histofold.inference import checkpoint
from histofold.inference.ensemble import Ensemble
from histofold.inference.settings import Settings
from histofold.kaggle import credentials, notebook, package, wheels
from histofold.offline.manifest import MODELS, PACKAGE, WHEELS, Manifest, Wheel, stamp_of
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
    export = write(submission)
    print(f"{export.folder}: {notebook.NOTEBOOK} and dataset/ ({export.size / 1e6:.1f} MB)")
    _compare(submission)
    if not config.kernel.push or slug is None:
        print(f"kaggle datasets create -r zip -p {quote(str(export.dataset))}   (the first time; then: version -m new)")
        print(f"kaggle kernels push -p {quote(str(export.folder))}")
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
    owner, title = (
        owner_of(config),
        notebook.title_of(config.kernel.title or f"histofold {config.competition.name} {ensemble.name}"),
    )
    final = submission.folder / "kernel"
    with scratch(final) as folder:
        dataset = folder / "dataset"
        package.copy_modules([ENTRY], dataset / PACKAGE)
        models = copy_models(ensemble, config.path("oof"), dataset / MODELS)
        given, asked = _wheels(config, models)
        brought = wheels.gather(given, dataset / WHEELS, config.kernel.python, asked)
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
    given = config.kernel.wheels
    if given == "auto":
        return wheels.needed(models), False
    if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
        raise ConfigError(f"kernel.wheels={given}: expected auto, or a list of requirements and .whl files")
    return list(given), True


def _manifest(submission: Submission, dataset: Path, name: str, brought: list[Wheel]) -> Manifest:
    config = submission.workspace.config
    settings = Settings(**{**asdict(submission.predictor()), "device": config.kernel.device})
    files = {str(path.relative_to(dataset)): sha256(path) for path in sorted(dataset.rglob("*")) if path.is_file()}
    given = config.competition
    # A folder of this machine means nothing on Kaggle; the data is looked for under the competition's slug there.
    options = {key: value for key, value in given.options.items() if key not in ("folder", "sample")}
    listed = [wheel.name for wheel in brought if wheel.asked]
    return Manifest(
        dataset=name,
        stamp=stamp_of(files, asdict(settings), asdict(config.submit), config.kernel.hours, options, listed),
        name=submission.ensemble.name,
        competition={"name": given.name, "adapter": given.adapter, "slug": given.slug, "options": options},
        predict=asdict(settings),
        min_area=config.submit.min_area,
        max_hole=config.submit.max_hole,
        hours=config.kernel.hours,
        wheels=tuple(brought),
    )


def _note(ensemble: Ensemble, manifest: Manifest) -> str:
    score = ensemble.score.get("cross_fitted")
    cv = "" if score is None else f", {ensemble.metric} {score:.4f} cross-fitted"
    views = manifest.predict["tta"]
    return f"histofold, ensemble `{ensemble.name}`: {len(ensemble.checkpoints)} networks{cv}, views: {views}."


def _compare(submission: Submission) -> None:
    """Say when the test set was predicted with other settings here than the notebook will use."""
    path = submission.folder / "provenance.json"
    before: dict[str, Any] = read_json(path).get("predict", {}) if path.is_file() else {}
    now = vars(submission.workspace.config.predict)
    changed = [key for key in ("tile", "step", "margin", "window", "tta") if key in before and before[key] != now[key]]
    for key in changed:
        print(f"predict.{key}={now[key]} in the notebook; `predict` was run here with predict.{key}={before[key]}")
