"""Whether the band files of a submission stand for its ensemble and its input, and were all made alike."""

from __future__ import annotations

from histofold import given
from histofold.competitions.base import Sample
from histofold.errors import DataError
from histofold.inference.predict import origin
from histofold.sources import stamp_of
from histofold.submission.place import Submission


def require_own(submission: Submission, samples: list[Sample]) -> None:
    """Look whether every band file was made by this ensemble, from this input, and with the settings of the others.

    The settings of `predict.*` may be any: a bare `submit` knows nothing of the views that `predict` was given.

    Raises:
        DataError: names the first file that does not belong, what was expected, and what to do.
    """
    members = submission.fingerprint().partition("-")[0]
    first = None
    for sample in samples:
        path = submission.predictions / f"{sample.sample_id}.tif"
        found = origin(path)
        if found is None:
            raise DataError(f"{path}: was predicted by an earlier version of histofold; {predict_again(submission)}")
        if found.members != members:
            raise DataError(
                f"{path}: was predicted by other networks (digest {found.members}) than those of ensemble "
                f"{submission.ensemble.name} as it is now ({members}); {predict_again(submission)}"
            )
        stamp = stamp_of(submission.workspace.competition, sample)
        if found.stamp != stamp:
            source = submission.workspace.competition.source(sample.sample_id)
            raise DataError(
                f"{path}: was predicted from another image (digest {found.stamp}) than {source} as it is now "
                f"({stamp}); {predict_again(submission)}"
            )
        first = first or (path, found.settings)
        if found.settings != first[1]:
            raise DataError(
                f"{path}: was predicted with other settings of predict.* (digest {found.settings}) than "
                f"{first[0].name} ({first[1]}); {predict_again(submission)}, with one set of settings for all samples"
            )


def predict_again(submission: Submission) -> str:
    """What to do about predictions that are not there or do not belong, with the command that makes them."""
    how = given.again("predict", submission.workspace.config.competition.name, f"name={submission.ensemble.name}")
    return f"run `{how}`"
