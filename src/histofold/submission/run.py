"""`predict` and `submit`: the test set through the ensemble, and the file that Kaggle takes."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from histofold import given
from histofold.competitions.base import Sample
from histofold.config import Config
from histofold.errors import ConfigError, DataError
from histofold.evaluation import extents
from histofold.evaluation.table import mean_lines, pooled_lines
from histofold.files import atomic, read_json
from histofold.inference import planning
from histofold.inference.ensemble import Ensemble
from histofold.inference.predict import Job, predict_samples
from histofold.kaggle import csv, likeness, validate
from histofold.kaggle.csv import CsvFormat
from histofold.metrics.merged import NOTE, marked
from histofold.parallel import each
from histofold.sources import job, size_of
from histofold.submission.encode import Encoded, EncodeTask, encode
from histofold.submission.folder import find_images
from histofold.submission.origin import predict_again, require_own
from histofold.submission.own import predict_folder
from histofold.submission.place import Submission, now, part_of
from histofold.submission.room import workers_for
from histofold.workspace import Workspace


def predict(config: Config) -> None:
    """Predict the test set (or the images of a folder) with an ensemble, into band files.

    Raises:
        DataError: no image in the folder, no test sample, no ensemble, a checkpoint is not the one that was scored, or
            samples failed (the others are done).
        ResourceError: memory, disk or time would not suffice for what is still to do; nothing was written.
    """
    workspace = Workspace(config)
    if config.images is not None:
        find_images(Path(config.images))  # a folder that is not there is told before an ensemble is
    submission = Submission.of(workspace)
    print(f"{config.competition.name}: ensemble {title(submission.ensemble)} ({submission.ensemble.metric})")
    for line in submission.overruled():
        print(line)
    if config.images is not None:
        print(predict_folder(submission, Path(config.images)))
        return
    samples = part_of(samples_of(submission), workspace.shard())
    started, begun = now(), time.monotonic()
    settings = submission.predictor()
    members, weights = submission.ensemble.load_members(config.path("oof"), settings.torch_device())
    scale = members[0].spec.scale if members[0].spec else 1.0
    jobs = [job(workspace.competition, sample, scale, submission.predictions) for sample in samples]

    def check_room(todo: Sequence[Job]) -> None:
        names = {job.sample_id for job in todo}
        # What cannot be read has no size and needs nothing: it is told when its turn comes.
        known = [sample for sample in samples if sample.sample_id in names and sample.height * sample.width]
        if known:
            sizes = [size_of(workspace.competition, sample) for sample in known]
            submission.require_room(planning.plan(sizes, scale, members, settings))
        # Without a stamp nothing can be read of them at the moment, and their predictions stay.
        if any(job.stamp for job in todo):
            submission.outdate()

    outcome = predict_samples(jobs, members, weights, settings, submission.fingerprint(), check_room)
    seconds = round(time.monotonic() - begun, 3)
    remember(submission, len(outcome.made), started, seconds)
    print(
        f"{submission.predictions}: {len(outcome.made)} predicted, {len(outcome.kept)} kept, by {len(members)} networks"
    )
    outcome.check()


def samples_of(submission: Submission) -> list[Sample]:
    """The samples that are predicted and submitted.

    Raises:
        DataError: there are none, as in a folder set of training images; says how one's own images are predicted.
    """
    if samples := submission.samples():
        return samples
    name = submission.workspace.config.competition.name
    how = given.again("predict", name, f"name={submission.ensemble.name}", "images=FOLDER")
    raise DataError(
        f"{name}: there is no test sample to predict or submit; `{how}` makes labels and GeoJSON of any folder's images"
    )


def remember(submission: Submission, made: int, started: str, seconds: float) -> None:
    """Record what predicted; where nothing was made, what is recorded of the predictions and of `submit` stays.

    Sittings that make the predictions of one ensemble with one set of settings are added up.
    """
    before = submission.recorded()
    if not made:
        if not before.get("submit"):
            submission.record()
        return
    fingerprint, older = submission.fingerprint(), before.get("predict") or {}
    there = len(list(submission.predictions.glob("*.tif")))
    if older.get("fingerprint") == fingerprint and there > made:
        started, seconds = older["started"], round(older["seconds"] + seconds, 3)
    sitting = {"started": started, "seconds": seconds, "fingerprint": fingerprint}
    submission.record(predict={**sitting, **vars(submission.workspace.config.predict)})


def submit(config: Config) -> None:
    """Make instances, encode, write and validate `submission.csv`; score it where the truth is known; send it if asked.

    Raises:
        DataError: there is no test sample, one has no prediction of this ensemble, or the file breaks a rule of the
            competition.
        ResourceError: memory or disk would not suffice, even one sample after another.
    """
    workspace = Workspace(config)
    competition = workspace.competition
    if config.submit.send and (competition.csv is None or competition.slug is None):
        raise ConfigError(
            f"submit.send=true: {competition.name} is no Kaggle competition (competition.slug is not set)"
        )
    submission = Submission.of(workspace)
    if config.submit.send and config.competition.code:
        raise ConfigError(
            f"submit.send=true: {competition.name} is a code competition, which takes a notebook and no CSV; "
            f"send one with `{notebook_line(submission)}`"
        )
    samples = samples_of(submission)
    encoded = encode_all(submission, samples)
    scores = write_scores(submission, samples, encoded)
    if competition.csv is not None:
        rows = ((sample.sample_id, text) for sample in samples for text in encoded[sample.sample_id].texts)
        count = csv.write(submission.csv, competition.csv, rows)
        shapes = {sample.sample_id: (sample.height, sample.width) for sample in samples}
        validate.require(submission.csv, competition.csv, competition.submission_ids(), shapes)
        print(f"{submission.csv}: {count} rows for {len(samples)} samples, valid")
        for line in unlike(submission, competition.csv, shapes):
            print(f"look at it before you send it: {line}")
    else:
        print(f"{submission.labels}: {len(samples)} label images ({competition.name} takes no CSV)")
    if competition.kind == "images":
        print(f"{submission.folder / 'geojson'}: the objects for QuPath")
    if scores is not None:
        print(score_lines(scores, competition.metric, competition.merged))
        if competition.merged:
            print(NOTE)
    settings = config.submit
    submission.record(submit={"finished": now(), "min_area": settings.min_area, "max_hole": settings.max_hole})
    if competition.csv is not None and competition.slug is not None:
        hand_over(submission)


def encode_all(submission: Submission, samples: list[Sample]) -> dict[str, Encoded]:
    """Encode every sample, in as many processes as there is memory for.

    Raises:
        DataError: a sample has no prediction of this ensemble and of this input, or its file cannot be read any more;
            it is never filled silently.
        ResourceError: memory or disk would not suffice, even one sample after another.
    """
    require_all(submission, samples)
    second = submission.ensemble.second_path(submission.workspace.config.path("oof"))
    tasks = [task_of(submission, sample, second) for sample in samples]
    encoded: dict[str, Encoded] = {}
    for task, result in each(encode, tasks, workers_for(submission, samples), "encode"):
        if isinstance(result, Exception):
            raise result
        encoded[task.sample.sample_id] = result
    return encoded


def require_all(submission: Submission, samples: list[Sample]) -> None:
    """Look whether every sample has a prediction that stands for it.

    Raises:
        DataError: says which has none, cannot be read, or was predicted by other networks or from another input.
    """
    missing = [s.sample_id for s in samples if not (submission.predictions / f"{s.sample_id}.tif").exists()]
    if missing:
        names = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise DataError(
            f"{submission.predictions}: {len(missing)} of {len(samples)} samples have no prediction ({names}); "
            f"{predict_again(submission)}"
        )
    competition = submission.workspace.competition
    broken = [sample for sample in samples if not sample.height * sample.width]
    if broken:
        raise DataError(
            f"{competition.source(broken[0].sample_id)}: cannot be read, so the size of its mask is not known "
            f"({len(broken)} of {len(samples)} samples); copy or download it again"
        )
    require_own(submission, samples)


def task_of(submission: Submission, sample: Sample, second: Path | None) -> EncodeTask:
    """What a process needs to encode a sample; `second` is the file of the second level, None where there is none."""
    competition, settings = submission.workspace.competition, submission.workspace.config.submit
    return EncodeTask(
        competition,
        sample,
        submission.predictions / f"{sample.sample_id}.tif",
        submission.labels / f"{sample.sample_id}.tif" if competition.kind == "images" else None,
        submission.ensemble.threshold,
        submission.ensemble.decoder(sample.stratum),
        settings.min_area,
        settings.max_hole,
        second=second,
    )


def unlike(submission: Submission, format: CsvFormat, shapes: Mapping[str, tuple[int, int]]) -> list[str]:  # noqa: A002
    """In what the file differs from the ensemble's OOF predictions; an ensemble of older code has none to compare."""
    ensemble = submission.ensemble
    oof = extents.read(extents.place(submission.workspace.config.path("oof"), ensemble.competition, ensemble.name))
    return (
        likeness.warnings(likeness.area_statistics(submission.csv, format, shapes), {likeness.OOF: oof}) if oof else []
    )


def write_scores(submission: Submission, samples: list[Sample], encoded: dict[str, Encoded]) -> pd.DataFrame | None:
    """Write scores.csv for the samples whose truth is known; None when there is none."""
    rows = [
        {"sample_id": sample.sample_id, "split": sample.split, "stratum": sample.stratum, **known}
        for sample in samples
        if (known := encoded[sample.sample_id].scores) is not None
    ]
    if not rows:
        return None
    table = pd.DataFrame(rows)
    with atomic(submission.folder / "scores.csv") as temporary:
        table.to_csv(temporary, index=False)
    return table


def score_lines(scores: pd.DataFrame, metric: str, merged: bool = False) -> str:
    """Scores on the known truth as `evaluate` shows them: means by split and stratum, and each split's own pixels.

    Contests rank their splits apart (GlaS: testA and testB), so nothing is pooled over several of them.
    """
    several = [column for column in ("split", "stratum") if len(scores[column].unique()) > 1]
    name = marked(metric, merged)
    lines = [f"against the known truth: {name} {scores['score'].mean():.4f} over {len(scores)} samples"]
    lines += mean_lines(scores, metric, dict.fromkeys(several, ""), merged)
    if "split" not in several:
        return "\n".join([*lines, *pooled_lines(scores, merged)])
    for split, part in scores.groupby("split"):
        lines += [f"{split}: {line}" for line in pooled_lines(part, merged)]
    return "\n".join(lines)


def hand_over(submission: Submission) -> None:
    """Print the lines that submit the file (of a code competition, the one that submits a notebook), or send it."""
    config, slug = submission.workspace.config, submission.workspace.competition.slug
    message = config.submit.message or title(submission.ensemble)
    assert slug is not None
    if config.competition.code:
        print(f"{config.competition.name} takes a notebook and no CSV; this one is for validate and for comparing:")
        print(notebook_line(submission))
        return
    if not config.submit.send:
        print("send it, look at its score and keep both in log.csv:")
        print(given.again("submit", config.competition.name, f"name={submission.ensemble.name}", "submit.send=true"))
        print("or with Kaggle's own command, of which log.csv knows nothing:")
        # It is beside the interpreter, in an environment that need not be active.
        beside = Path(sys.executable).with_name("kaggle")
        kaggle = str(beside) if beside.is_file() else "kaggle"
        print(shlex.join([kaggle, "competitions", "submit", slug, "-f", str(submission.csv), "-m", message]))
        return
    from histofold.kaggle.send import Parcel, send

    cv = float(submission.ensemble.score["cross_fitted"])
    parcel = Parcel(submission.csv, submission.ensemble.name, cv, message)
    send(slug, parcel, submission.workspace.submissions / "log.csv")


def notebook_line(submission: Submission) -> str:
    """The command that submits a notebook with the settings that the test set was predicted and encoded with here."""
    from histofold.kaggle.export import COMPARED

    config, path = submission.workspace.config, submission.folder / "provenance.json"
    name, record = config.competition.name, read_json(path) if path.is_file() else {}
    typed = {given.key_of(word) for word in shlex.split(given.again("kernel", name))}
    used = []
    for verb, keys in COMPARED.items():
        before, now = record.get(verb) or {}, vars(getattr(config, verb))
        changed = [key for key in keys if key in before and before[key] != now[key]]
        # What was typed for `submit` just now is meant; of `predict.*` it reads nothing.
        used += [f"{verb}.{key}={before[key]}" for key in changed if verb == "predict" or f"{verb}.{key}" not in typed]
    return given.again("kernel", name, f"name={submission.ensemble.name}", *used, "kernel.push=true")


def title(ensemble: Ensemble) -> str:
    """How a submission is called on Kaggle unless the user says otherwise; only an honest score is called CV."""
    score = f"{ensemble.score['cross_fitted']:.4f}"
    return f"{ensemble.name}, {score}, {ensemble.optimism}" if ensemble.optimism else f"{ensemble.name}, CV {score}"
