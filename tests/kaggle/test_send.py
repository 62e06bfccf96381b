"""Sending through the real client: what is looked up before, what is shown, what is logged, what may go wrong."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

import pytest

from histofold.kaggle import log
from histofold.kaggle.client import ATTEMPTS, Client
from histofold.kaggle.credentials import KaggleError
from histofold.kaggle.send import Parcel, send

SLUG = "demo-competition"


def nap(seconds: float) -> None:
    """No time to wait in tests."""


@pytest.fixture
def parcel(tmp_path: Path) -> Parcel:
    file = tmp_path / "submission.csv"
    file.write_text("ImageId,EncodedPixels\na,1 2\n")
    return Parcel(file, "best", 0.8765)


def sent(parcel: Parcel, wait: float = 1.0) -> log.Entry:
    return send(SLUG, parcel, parcel.file.parent / "log.csv", Client(SLUG, nap), wait)


def test_success_is_shown_and_logged_beside_the_cv(
    kaggle_server: Any, parcel: Parcel, capfd: pytest.CaptureFixture[str], secret: str
) -> None:
    entry = sent(parcel)
    assert kaggle_server.uploads == [parcel.file.read_bytes()]
    assert kaggle_server.submitted[0]["competitionName"] == SLUG
    assert kaggle_server.submitted[0]["blobFileTokens"] == "blob-token"
    assert kaggle_server.submitted[0]["submissionDescription"] == "best, CV 0.8765"
    calls = kaggle_server.calls
    assert calls.index("GetSubmissionLimits") < calls.index("StartSubmissionUpload") < calls.index("PUT")
    assert log.read(parcel.file.parent / "log.csv") == [entry]
    assert (entry.cv, entry.public, entry.private, entry.status, entry.ref) == (
        "0.876500",
        "0.91",
        "0.89",
        "complete",
        "41",
    )
    output = capfd.readouterr()
    for shown in (SLUG, "submission.csv", "best, CV 0.8765", "5 more today", "public 0.91, private 0.89"):
        assert shown in output.out
    assert secret not in output.out + output.err


def test_the_same_file_is_not_sent_twice(kaggle_server: Any, parcel: Parcel) -> None:
    kaggle_server.scores = ["PENDING"]
    assert sent(parcel, wait=0).status == "pending"
    kaggle_server.scores = ["COMPLETE"]
    entry = sent(parcel)
    assert entry.status == "complete"
    assert len(kaggle_server.submitted) == 1
    assert [item.public for item in log.read(parcel.file.parent / "log.csv")] == ["0.91"]


def test_waits_for_the_score(kaggle_server: Any, parcel: Parcel) -> None:
    kaggle_server.scores = ["PENDING", "PENDING", "COMPLETE"]
    assert sent(parcel, wait=60).public == "0.91"


def test_a_file_that_kaggle_cannot_score(kaggle_server: Any, parcel: Parcel) -> None:
    kaggle_server.scores = ["ERROR"]
    with pytest.raises(KaggleError, match="could not score submission 41"):
        sent(parcel)
    assert [entry.status for entry in log.read(parcel.file.parent / "log.csv")] == ["error"]


def test_daily_limit_is_told_before_anything_is_sent(kaggle_server: Any, parcel: Parcel) -> None:
    kaggle_server.today, kaggle_server.allowed = 5, 0
    with pytest.raises(KaggleError, match=r"no submission left today, 5 were made.*0:00 UTC.*nothing was sent"):
        sent(parcel)
    assert "StartSubmissionUpload" not in kaggle_server.calls
    assert not (parcel.file.parent / "log.csv").exists()


def test_total_limit_is_told(kaggle_server: Any, parcel: Parcel) -> None:
    kaggle_server.today, kaggle_server.allowed, kaggle_server.limited_by_total = 5, 0, True
    with pytest.raises(KaggleError, match="total is used up"):
        sent(parcel)


def test_a_teams_first_submission_has_no_limits_yet(kaggle_server: Any, parcel: Parcel) -> None:
    kaggle_server.today, kaggle_server.allowed = 0, 0
    assert sent(parcel).status == "complete"


@pytest.mark.parametrize("call", ["StartSubmissionUpload", "CreateSubmission"])
@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (401, "Unauthorized", r"401.*settings/api"),
        (403, "accept the rules", r"403: accept the rules.*/rules"),
        (404, "not found", r"404: not found"),
        (400, "daily Submission allowance (5) used", r"400: daily Submission allowance \(5\) used"),
    ],
)
def test_refused(kaggle_server: Any, parcel: Parcel, call: str, status: int, message: str, expected: str) -> None:
    kaggle_server.fail(call, status, message, times=99)
    with pytest.raises(KaggleError, match=expected) as caught:
        sent(parcel)
    assert "\n" not in str(caught.value)
    assert kaggle_server.calls.count(call) == 1
    assert not (parcel.file.parent / "log.csv").exists()


@pytest.mark.parametrize("call", ["StartSubmissionUpload", "CreateSubmission"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble(kaggle_server: Any, parcel: Parcel, call: str, status: int) -> None:
    kaggle_server.fail(call, status, "later", times=2)
    assert sent(parcel).status == "complete"
    assert len(kaggle_server.submitted) == 1


def test_a_lost_answer_does_not_send_twice(kaggle_server: Any, parcel: Parcel) -> None:
    kaggle_server.lost_answer = True
    kaggle_server.fail("CreateSubmission", 502, "bad gateway")
    assert sent(parcel).ref == "41"
    assert len(kaggle_server.submitted) == 1


@pytest.mark.parametrize("status", [400, 500, 503])
def test_a_refused_upload_is_tried_again_and_then_told(
    kaggle_server: Any, parcel: Parcel, status: int, capfd: pytest.CaptureFixture[str], secret: str
) -> None:
    kaggle_server.fail("PUT", status, times=99)
    with pytest.raises(KaggleError, match=rf"the upload broke off {ATTEMPTS} times; nothing was handed in"):
        sent(parcel)
    assert kaggle_server.submitted == []
    assert not (parcel.file.parent / "log.csv").exists()
    output = capfd.readouterr()
    assert secret not in output.out + output.err


def test_an_upload_whose_connection_breaks_is_tried_again(
    kaggle_server: Any, parcel: Parcel, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], secret: str
) -> None:
    module = importlib.import_module("kaggle.api.kaggle_api_extended")

    # The client's own patience with a dead connection is minutes.
    monkeypatch.setattr(module, "Retry", functools.partial(lambda retry, **given: retry(total=0), module.Retry))
    kaggle_server.drop_uploads = 2
    assert sent(parcel).status == "complete"
    assert kaggle_server.uploads == [parcel.file.read_bytes()]
    output = capfd.readouterr()
    assert "broke off 1 times" in output.err
    assert secret not in output.out + output.err


def test_the_log_keeps_what_was_sent_when_the_score_cannot_be_fetched(kaggle_server: Any, parcel: Parcel) -> None:
    kaggle = Client(SLUG, nap)
    original = kaggle.submit

    def submit(path: Path, message: str) -> int:
        ref = original(path, message)
        kaggle_server.fail("ListSubmissions", 500, "down", times=99)
        return ref

    kaggle.submit = submit  # type: ignore[method-assign]
    path = parcel.file.parent / "log.csv"
    with pytest.raises(KaggleError, match="has trouble"):
        send(SLUG, parcel, path, kaggle, 1.0)
    assert [(entry.status, entry.ref) for entry in log.read(path)] == [("pending", "41")]


def test_a_log_with_a_missing_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("date,name\n2030,x\n")
    with pytest.raises(Exception, match="column 'file' is missing"):
        log.read(path)
