"""Sending through the real client: what is looked up before, what is shown, what is logged, what may go wrong."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from histofold.errors import DataError
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


def entry_of(name: str, ref: str) -> log.Entry:
    return log.Entry("2030-01-01", name, f"{name}.csv", name * 8, "", "0.5", ref=ref)


def test_what_others_log_during_the_wait_stays(kaggle_server: Any, parcel: Parcel) -> None:
    path = parcel.file.parent / "log.csv"
    kaggle_server.scores = ["PENDING", "COMPLETE"]

    def other(seconds: float) -> None:
        log.once(path, "other" * 8, lambda: entry_of("other", "77"))

    send(SLUG, parcel, path, Client(SLUG, other), 60.0)
    assert [(entry.name, entry.ref, entry.public) for entry in log.read(path)] == [
        ("best", "41", "0.91"),
        ("other", "77", ""),
    ]


def test_only_ones_own_rows_are_renewed(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log.write(path, [entry_of("a", "1"), entry_of("b", ""), entry_of("c", "3"), entry_of("d", "")])
    log.renew(path, [entry_of("c", "3").scored("complete", "0.5", ""), entry_of("d", "")])
    assert [(entry.name, entry.public) for entry in log.read(path)] == [("a", ""), ("b", ""), ("c", "0.5"), ("d", "")]


MANY = """
import sys
from pathlib import Path
from histofold.kaggle import log
for number in range(25):
    name = f"{sys.argv[2]}-{number}"
    entry = log.Entry("2030", name, "", name, "", "", ref=name)
    log.once(Path(sys.argv[1]), name, lambda: entry)
    log.renew(Path(sys.argv[1]), [entry.scored("complete", "1", "")])
    log.once(Path(sys.argv[1]), f"both-{number}", lambda: log.Entry("2030", "both", "", f"both-{number}", "", ""))
"""


def test_two_processes_lose_nothing_and_send_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    commands = [[sys.executable, "-c", MANY, str(path), name] for name in "ab"]
    environment = {**os.environ, "PYTHONPATH": str(Path(log.__file__).parents[2])}
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for command in commands]
    assert [process.wait() for process in processes] == [0, 0]
    entries = log.read(path)
    assert sorted(entry.sha256 for entry in entries) == sorted(
        f"{name}-{number}" for name in ("a", "b", "both") for number in range(25)
    )
    assert all(entry.public == "1" for entry in entries if entry.ref)


def test_a_log_that_a_spreadsheet_saved(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    entry = replace(entry_of("a", "1"), message="über")
    log.write(path, [entry])
    text = path.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8-sig")
    assert log.read(path) == [entry]
    for broken in (text.encode("cp1252"), text.encode("utf-16")):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"log\.csv: expected a CSV in UTF-8.*save it again"):
            log.read(path)
    path.write_text(text.replace(",", ";"), encoding="utf-8")
    with pytest.raises(DataError, match="separated by commas"):
        log.read(path)


def test_a_log_with_a_missing_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("date,name\n2030,x\n")
    with pytest.raises(Exception, match="column 'file' is missing"):
        log.read(path)
