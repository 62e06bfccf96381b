"""Pushing an export through the real client: each step in its order, and what may go wrong on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from histofold.kaggle import log, notebook
from histofold.kaggle.codeclient import CodeClient
from histofold.kaggle.credentials import KaggleError
from histofold.kaggle.export import Export
from histofold.kaggle.push import push
from histofold.offline.manifest import Manifest

SLUG = "demo-competition"
TITLE = "histofold demo tiny"
DATASET = "tester/histofold-demo-tiny-files"


@pytest.fixture
def export(tmp_path: Path) -> Export:
    folder = tmp_path / "kernel"
    dataset = folder / "dataset"
    (dataset / "package").mkdir(parents=True)
    (dataset / "package" / "code.py").write_text("print()\n")
    manifest = Manifest(DATASET, "feed", "tiny", {}, {"tta": "none"}, 0, 0, 9.0)
    manifest.write(dataset)
    notebook.write_dataset_metadata(dataset, "tester", TITLE)
    notebook.write_notebook(folder, DATASET, "feed", "a note")
    content = notebook.write_kernel_metadata(folder, "tester", TITLE, SLUG, True)
    return Export(folder, manifest, content["id"], 1000)


def pushed(export: Export) -> log.Entry:
    path = export.folder.parent / "log.csv"
    return push(SLUG, export, "tiny, notebook", 0.75, path, CodeClient(SLUG, lambda _: None), 1.0)


def test_a_first_push(kaggle_server: Any, export: Export, capfd: pytest.CaptureFixture[str], secret: str) -> None:
    kaggle_server.fail("GetDatasetStatus", 404, "no such dataset", times=2)
    kaggle_server.dataset = ["BLOBS_RECEIVED", "READY"]
    kaggle_server.notebook = ["QUEUED", "RUNNING", "COMPLETE"]
    entry = pushed(export)
    calls = kaggle_server.calls
    order = ["GetSubmissionLimits", "CreateDataset", "SaveKernel", "GetKernelSessionStatus", "CreateCodeSubmission"]
    assert [calls.index(call) for call in order] == sorted(calls.index(call) for call in order)
    (dataset,) = kaggle_server.bodies["CreateDataset"]
    assert dataset["isPrivate"] is True
    assert {one["token"] for one in dataset["files"]} == {"token-of-histofold-export.json", "token-of-package.zip"}
    (kernel,) = kaggle_server.bodies["SaveKernel"]
    assert (kernel["isPrivate"], kernel["enableInternet"], kernel["enableGpu"]) == (True, False, True)
    assert kernel["datasetDataSources"] == [DATASET]
    assert kernel["competitionDataSources"] == [SLUG]
    assert json.loads(kernel["text"])["metadata"]["kernelspec"]["name"] == "python3"
    (sent,) = kaggle_server.submitted
    assert (sent["kernelOwner"], sent["kernelSlug"]) == ("tester", "histofold-demo-tiny")
    assert (sent["kernelVersion"], sent["fileName"], sent["competitionName"]) == (7, "submission.csv", SLUG)
    assert (entry.file, entry.sha256, entry.public, entry.cv) == (
        "tester/histofold-demo-tiny version 7", "feed", "0.91", "0.750000",
    )  # fmt: skip
    assert log.read(export.folder.parent / "log.csv") == [entry]
    output = capfd.readouterr()
    assert "submitted version 7 of tester/histofold-demo-tiny" in output.out
    assert secret not in output.out + output.err


def test_a_second_push_makes_a_version(kaggle_server: Any, export: Export) -> None:
    pushed(export)
    assert "CreateDataset" not in kaggle_server.calls
    (version,) = kaggle_server.bodies["CreateDatasetVersion"]
    assert version["body"]["versionNotes"] == "feed"


def test_the_same_export_is_not_submitted_twice(kaggle_server: Any, export: Export) -> None:
    pushed(export)
    assert pushed(export).public == "0.91"
    assert len(kaggle_server.submitted) == 1
    assert kaggle_server.calls.count("SaveKernel") == 1


def test_what_others_submit_while_the_notebook_runs_is_kept_and_not_submitted_again(
    kaggle_server: Any, export: Export
) -> None:
    path = export.folder.parent / "log.csv"
    kaggle_server.notebook = ["RUNNING", "COMPLETE"]

    def other(seconds: float) -> None:
        for name, ref, stamp in (("other", "77", "beef"), ("same", "78", "feed")):
            log.once(path, stamp, lambda: log.Entry("2030", name, "", stamp, "", "", ref=ref))  # noqa: B023

    entry = push(SLUG, export, "tiny, notebook", 0.75, path, CodeClient(SLUG, other), 1.0)
    assert entry.ref == "78"
    assert kaggle_server.submitted == []
    assert [entry.name for entry in log.read(path)] == ["other", "same"]


def test_a_pending_submission_of_the_notebook_is_found_whatever_was_exported_since(
    kaggle_server: Any, export: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle_server.scores = ["PENDING"]
    assert pushed(export).status == "pending"
    newer = replace(export, manifest=replace(export.manifest, stamp="beef"))
    kaggle_server.scores = ["COMPLETE"]
    assert pushed(newer).public == "0.91"
    assert "an earlier export was submitted on" in capsys.readouterr().out
    assert len(kaggle_server.submitted) == 1
    pushed(newer)
    assert len(kaggle_server.submitted) == 2


def test_a_notebook_that_fails_is_not_submitted(kaggle_server: Any, export: Export) -> None:
    kaggle_server.notebook = ["RUNNING", "ERROR"]
    with pytest.raises(KaggleError, match=r"ended as error \(it ran out of memory\); nothing was submitted"):
        pushed(export)
    assert kaggle_server.submitted == []
    assert not (export.folder.parent / "log.csv").exists()


def test_a_notebook_that_never_ends_is_given_up(kaggle_server: Any, export: Export) -> None:
    kaggle_server.notebook = ["RUNNING"]
    quick = Export(export.folder, Manifest(DATASET, "feed", "tiny", {}, {}, 0, 0, -0.99), export.notebook, 1)
    with pytest.raises(KaggleError, match="not done after"):
        pushed(quick)


def test_a_dataset_that_cannot_be_unpacked(kaggle_server: Any, export: Export) -> None:
    kaggle_server.dataset = ["READY", "FAILED"]
    with pytest.raises(KaggleError, match=r"could not unpack the dataset \(failed\)"):
        pushed(export)
    assert "SaveKernel" not in kaggle_server.calls


def test_rules_that_were_not_accepted(kaggle_server: Any, export: Export) -> None:
    kaggle_server.refused_sources = [SLUG]
    with pytest.raises(KaggleError, match=r"did not give the notebook the competition demo-competition.*rules"):
        pushed(export)
    assert kaggle_server.submitted == []


def test_a_file_that_does_not_arrive_is_no_dataset(kaggle_server: Any, export: Export) -> None:
    kaggle_server.fail("PUT", 400, times=99)
    with pytest.raises(KaggleError, match=r"the upload of .* broke off"):
        pushed(export)
    assert not {"CreateDatasetVersion", "SaveKernel"} & set(kaggle_server.calls)


def test_the_daily_limit_is_looked_up_first(kaggle_server: Any, export: Export) -> None:
    kaggle_server.today, kaggle_server.allowed = 5, 0
    with pytest.raises(KaggleError, match="no submission left today"):
        pushed(export)
    assert kaggle_server.bodies == {}


@pytest.mark.parametrize("call", ["GetDatasetStatus", "SaveKernel", "GetKernelSessionStatus", "CreateCodeSubmission"])
@pytest.mark.parametrize("status", [429, 503])
def test_passing_trouble_of_notebooks(kaggle_server: Any, export: Export, call: str, status: int) -> None:
    kaggle_server.fail(call, status, "later", times=2)
    assert pushed(export).status == "complete"
    assert len(kaggle_server.submitted) == 1


def test_a_lost_answer_does_not_submit_twice(kaggle_server: Any, export: Export) -> None:
    kaggle_server.lost_answer = True
    kaggle_server.fail("CreateCodeSubmission", 502, "bad gateway")
    assert pushed(export).ref == "41"
    assert len(kaggle_server.submitted) == 1


@pytest.mark.parametrize(
    ("call", "status", "expected"),
    [
        ("SaveKernel", 401, r"401.*settings/api"),
        ("SaveKernel", 403, r"refused pushing the notebook \(403: no.*kernel\.owner"),
        ("CreateDatasetVersion", 403, r"refused sending the dataset \(403: no.*kernel\.owner"),
        ("CreateCodeSubmission", 403, r"403: no.*/rules"),
        ("CreateCodeSubmission", 400, r"refused the submission \(400: no"),
    ],
)
def test_refused_notebooks(kaggle_server: Any, export: Export, call: str, status: int, expected: str) -> None:
    kaggle_server.fail(call, status, "no", times=99)
    with pytest.raises(KaggleError, match=expected) as caught:
        pushed(export)
    assert "\n" not in str(caught.value)
    assert kaggle_server.submitted == []
