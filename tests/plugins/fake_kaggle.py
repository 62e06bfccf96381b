"""A small local server that speaks the calls of Kaggle's client, and an environment with dummy credentials."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

SECRET = "0123456789abcdef-this-is-the-key"


@dataclass
class Failure:
    """An answer that stands in for the real one, `times` times."""

    status: int
    message: str = ""
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class FakeKaggle:
    """The server's state: what tests set and what they look at afterwards."""

    base: str = ""
    archive: bytes = b""
    etag: str = '"one"'
    drop_after: int | None = None  # bytes of the archive after which the connection breaks, once
    drop_uploads: int = 0  # uploads whose connection breaks
    scores: list[str] = field(default_factory=lambda: ["COMPLETE"])  # status at each look, the last one stays
    today: int = 0
    allowed: int = 5
    limited_by_total: bool = False
    lost_answer: bool = False  # CreateSubmission counts the submission and then fails
    failures: dict[str, Failure] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    uploads: list[bytes] = field(default_factory=list)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    authorised: list[str] = field(default_factory=list)
    looks: int = 0
    dataset: list[str] = field(default_factory=lambda: ["READY"])  # state at each look, the last one stays
    notebook: list[str] = field(default_factory=lambda: ["COMPLETE"])
    refused_sources: list[str] = field(default_factory=list)
    bodies: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # of the calls of datasets and notebooks

    def fail(self, call: str, status: int, message: str = "", times: int = 1, **headers: str) -> None:
        """Let a call fail."""
        self.failures[call] = Failure(status, message, times, {key.replace("_", "-"): headers[key] for key in headers})

    def next_failure(self, call: str) -> Failure | None:
        failure = self.failures.get(call)
        if failure is None or failure.times == 0:
            return None
        failure.times -= 1
        return failure

    def answer(self, call: str, body: dict[str, Any]) -> dict[str, Any]:
        """What Kaggle would answer."""
        if call == "StartSubmissionUpload":
            return {"token": "blob-token", "createUrl": f"{self.base}/upload?upload_id={SECRET}-upload"}
        if call == "CreateSubmission":
            self.submitted.append(body)
            self.today += 1
            self.allowed -= 1
            return {"message": "Successfully submitted to Demo", "ref": 40 + len(self.submitted)}
        if call == "GetSubmissionLimits":
            return {
                "numToday": self.today,
                "numTotal": self.today,
                "numAllowedNow": self.allowed,
                "limitedByTotal": self.limited_by_total,
            }
        if call != "ListSubmissions":
            self.bodies.setdefault(call, []).append(body)
            return self._code(call, body)
        return {"submissions": [self._submission(41 + index) for index in range(len(self.submitted))]}

    def _code(self, call: str, body: dict[str, Any]) -> dict[str, Any]:
        """Answers about datasets, notebooks and code submissions."""
        if call == "StartBlobUpload":
            return {"token": f"token-of-{body['name']}", "createUrl": f"{self.base}/upload?upload_id={SECRET}-upload"}
        if call == "GetDatasetStatus":
            return {"status": self.dataset.pop(0) if len(self.dataset) > 1 else self.dataset[0]}
        if call in ("CreateDataset", "CreateDatasetVersion"):
            return {"ref": "tester/files", "url": self.base, "status": "Ok"}
        if call == "SaveKernel":
            return {
                "ref": "/tester/notebook",
                "url": self.base,
                "versionNumber": 7,
                "invalidCompetitionSources": self.refused_sources,
            }
        if call == "GetKernelSessionStatus":
            state = self.notebook.pop(0) if len(self.notebook) > 1 else self.notebook[0]
            return {"status": state, "failureMessage": "it ran out of memory" if state == "ERROR" else ""}
        assert call == "CreateCodeSubmission", call
        self.submitted.append(body)
        return {"message": "Successfully submitted to Demo", "ref": 40 + len(self.submitted)}

    def _submission(self, ref: int) -> dict[str, Any]:
        status = self.scores[min(self.looks, len(self.scores) - 1)]
        self.looks += 1
        scored = {"publicScore": "0.91", "privateScore": "0.89"} if status == "COMPLETE" else {}
        return {"ref": ref, "status": status, "date": "2030-01-01T00:00:00.000Z", "fileName": "s.csv", **scored}


class Handler(BaseHTTPRequestHandler):
    """One request; the state hangs on the server."""

    protocol_version = "HTTP/1.1"

    @property
    def state(self) -> FakeKaggle:
        return self.server.state  # type: ignore[attr-defined,no-any-return]

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        call = self.path.rsplit("/", 1)[-1]
        self.state.calls.append(call)
        self.state.authorised.append(self.headers.get("Authorization", ""))
        failure = self.state.next_failure(call)
        if failure:
            if self.state.lost_answer and call in ("CreateSubmission", "CreateCodeSubmission"):
                self.state.answer(call, body)
            self.reply(failure.status, {"code": failure.status, "message": failure.message}, failure.headers)
        elif call == "DownloadDataFiles":
            self.reply(302, {}, {"Location": f"{self.state.base}/files/{body['competitionName']}.zip?sig={SECRET}-sig"})
        else:
            self.reply(200, self.state.answer(call, body))

    def do_PUT(self) -> None:
        self.state.calls.append("PUT")
        if self.state.drop_uploads > 0:
            self.state.drop_uploads -= 1
            self.rfile.read(1)
            self.close_connection = True
            self.connection.close()
            return
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        failure = self.state.next_failure("PUT")
        if failure:
            self.reply(failure.status, {})
            return
        self.state.uploads.append(data)
        self.reply(200, {})

    def do_GET(self) -> None:
        self.state.calls.append("GET")
        data, start, status = self.state.archive, 0, 200
        headers = {"Accept-Ranges": "bytes", "ETag": self.state.etag, "Content-Type": "application/zip"}
        headers["Last-Modified"] = "Tue, 01 Jan 2019 00:00:00 GMT"
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range") == self.state.etag:
            self.state.ranges.append(wanted)
            start, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data) - start)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.state.drop_after is not None:
            self.wfile.write(data[start : self.state.drop_after])
            self.state.drop_after = None
            self.close_connection = True
            self.connection.close()
        else:
            self.wfile.write(data[start:])

    def reply(self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        fixed = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        for key, value in {**fixed, **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment without any of Kaggle's credentials; gives the home folder."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def kaggle_server(monkeypatch: pytest.MonkeyPatch, no_credentials: Path) -> Iterator[FakeKaggle]:
    """The local server in the place of api.kaggle.com, and dummy credentials for it."""
    monkeypatch.setenv("KAGGLE_USERNAME", "tester")
    monkeypatch.setenv("KAGGLE_KEY", SECRET)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    from kagglesdk import kaggle_env

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state = FakeKaggle(base=f"http://127.0.0.1:{server.server_port}")
    server.state = state  # type: ignore[attr-defined]
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, state.base)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def secret() -> str:
    """What may never be printed."""
    return SECRET
