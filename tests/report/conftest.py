"""A small competition with runs, an ensemble and a submission, all made up; and a real browser without a window."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from histofold.competitions.base import Competition, Place, Sample
from histofold.files import write_json
from histofold.inference.bandfile import BandFileWriter
from histofold.kaggle import log
from histofold.kaggle.csv import CsvFormat
from histofold.targets.base import Band

STRATA = ("dark", "purple", "<script>alert('stratum')</script> & co")  # the last must come out as text
SIDE = 64


class Invented(Competition):
    """Twelve training and four test images of discs; the truth of the tests is known for two of them."""

    kind = "images"

    def __init__(self) -> None:
        super().__init__(Place("invented", "invented-slug", Path("nowhere"), Path("nowhere")))
        self.truth, self.metric = "instances", "dsb"
        self.csv = CsvFormat("ImageId", "EncodedPixels", "columns", True)

    def check(self) -> None:
        """Nothing can be missing."""

    def samples(self) -> list[Sample]:
        train = [Sample(f"train_{i:02}", "train", SIDE, SIDE, f"g{i // 2}", STRATA[i % 3]) for i in range(12)]
        return train + [Sample(f"test_{i:02}", "test", SIDE, SIDE, f"t{i}", "dark") for i in range(4)]

    def source(self, sample_id: str) -> Path:
        return Path(sample_id)

    def image(self, sample_id: str) -> np.ndarray:
        grey = np.where(discs(sample_id) > 0, 90, 20).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)

    def labels(self, sample_id: str) -> np.ndarray | None:
        return None if sample_id in ("test_02", "test_03") else discs(sample_id)

    def submission_ids(self) -> list[str]:
        return [sample.sample_id for sample in self.samples() if sample.split == "test"]


def discs(name: str, shift: int = 0) -> np.ndarray:
    """Four discs (H, W) int32 with labels 1..4, placed by the name; one image has none."""
    labels = np.zeros((SIDE, SIDE), np.int32)
    if name == "train_11":
        return labels
    random = np.random.default_rng(sum(map(ord, name)))
    y, x = np.mgrid[:SIDE, :SIDE]
    for label, (cy, cx) in enumerate(((16, 16), (16, 48), (48, 16), (48, 48)), start=1):
        labels[(y - cy) ** 2 + (x - cx - shift) ** 2 < random.integers(25, 120)] = label
    return labels


def write_bands(path: Path, labels: np.ndarray) -> None:
    """A band file of a foreground that is right but for a soft edge."""
    rows = np.where(labels > 0, 230, 12).astype(np.uint8)[None]
    with BandFileWriter(path, (Band("foreground", 0.0, 1.0),), *labels.shape) as writer:
        writer.write_rows(0, rows)


def write_run(oof: Path, name: str, shift: int, seed: int = 0, folds: tuple[int, ...] = (0, 1)) -> pd.DataFrame:
    """A run folder as training leaves it; gives the scores of all folds."""
    samples = [sample for sample in Invented().samples() if sample.split == "train"]
    tables = []
    for fold in folds:
        folder = oof / "invented" / name / f"fold{fold}"
        own = [sample for index, sample in enumerate(samples) if (index // 2) % 2 == fold]
        for sample in own:
            write_bands(folder / "predictions" / f"{sample.sample_id}.tif", discs(sample.sample_id, shift))
        rows = [
            {
                "sample_id": s.sample_id,
                "fold": fold,
                "stratum": s.stratum,
                "group": s.group,
                "height": SIDE,
                "width": SIDE,
            }
            | dict.fromkeys(("score", "dsb"), round(0.9 - 0.05 * i - 0.05 * shift, 4))
            | {"dice": 0.9 - 0.02 * i}
            for i, s in enumerate(own)
        ]
        tables.append(pd.DataFrame(rows))
        tables[-1].to_csv(folder / "scores.csv", index=False)
        curve = [f"{e},{e * 10},0.001,{1 / e},{0.1 * e if e % 2 else ''},3,40" for e in range(1, 7)]
        (folder / "metrics.csv").write_text("\n".join(["epoch,step,lr,loss,score,seconds,images_per_second", *curve]))
        config = {"model": {"name": "unet"}, "target": {"name": "foreground"}, "seed": seed, "run": name}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return pd.concat(tables, ignore_index=True)


def write_ensemble(oof: Path, scores: pd.DataFrame, name: str = "duo", **more: Any) -> dict[str, Any]:
    """An ensemble's JSON and CSV."""
    mean = float(scores["score"].mean())
    score: dict[str, Any] = {"optimistic": mean + 0.01, "cross_fitted": mean, "interval": [mean - 0.05, mean + 0.05]}
    score["per_run"] = {"first": mean - 0.01, "second": mean - 0.03}
    record: dict[str, Any] = {
        **{"format": 1, "competition": "invented", "name": name, "metric": "dsb", "folds": [0, 1], "partial": False},
        "created": "2024-05-01T10:00:00+00:00",
        "members": [{"run": "first", "weight": 0.75}, {"run": "second", "weight": 0.25}],
        "bands": ["foreground"],
        "checkpoints": [{"run": "first", "fold": 0, "path": "first/fold0/model.ckpt", "sha256": "ab" * 32}],
        "threshold": None,
        "instances": {"name": "threshold", "threshold": 0.5},
        "score": {**score, "per_fold": {}, "per_stratum": {}},
        "threshold_curve": [[0.1, 0.5], [0.5, 0.8], [0.9, 0.4]],
        "extra": {"dice": 0.8},
        **more,
    }
    write_json(oof / "invented" / "ensembles" / f"{name}.json", record)
    scores.to_csv(oof / "invented" / "ensembles" / f"{name}.csv", index=False)
    return record


def write_submission(submissions: Path, record: dict[str, Any]) -> None:
    """A submission folder with predictions, CSV, scores, provenance, and the log of what was sent."""
    folder = submissions / "invented" / "duo"
    for name in Invented().submission_ids():
        write_bands(folder / "predictions" / f"{name}.tif", discs(name, 1))
    (folder / "submission.csv").write_text("ImageId,EncodedPixels\ntest_00,1 5\ntest_00,9 5\ntest_01,\n")
    table = pd.DataFrame({"sample_id": ["test_00", "test_01"], "split": "test", "stratum": "dark", "score": [0.6, 0.8]})
    table.to_csv(folder / "scores.csv", index=False)
    provenance = {
        "ensemble": record,
        "config": {"name": "<img src=x onerror=alert(1)>"},
        "version": "9.9",
        "commit": "c0ffee",
    }
    write_json(folder / "provenance.json", {**provenance, "submit": {"finished": "2024-05-02T11:22:33+00:00"}})
    first = log.Entry(
        "2024-05-02T11:30:00", "duo", "submission.csv", "cd" * 32, "m", "0.71", "0.69", "0.70", "complete", "1"
    )
    second = log.Entry("2024-05-03T11:30:00", "solo", "submission.csv", "ef" * 32, "m", "0.65", "", "", "pending", "2")
    log.write(submissions / "invented" / "log.csv", [first, second])


@pytest.fixture
def competition() -> Invented:
    return Invented()


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """Empty roots of runs and submissions."""
    return tmp_path / "oof", tmp_path / "submissions"


@pytest.fixture
def full(places: tuple[Path, Path]) -> tuple[Path, Path]:
    """Three runs (one a repeat), an ensemble of two, a submission, a log."""
    scores = write_run(places[0], "first", 0)
    write_run(places[0], "second", 3, seed=1)
    record = write_ensemble(places[0], scores)
    write_submission(places[1], record)
    return places


FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --hide-scrollbars --remote-debugging-pipe""".replace("\n", " ")


class Browser:
    """A headless Chromium driven through its debugging pipe: no port, no driver, no network."""

    def __init__(self, binary: str, profile: Path) -> None:
        read, self.write = os.pipe()
        self.read, write = os.pipe()
        # Chromium reads commands from descriptor 3 and answers on 4.
        command = f'exec "{binary}" {FLAGS} --user-data-dir="{profile}" about:blank 3<&{read} 4>&{write}'
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(["bash", "-c", command], pass_fds=(read, write), **silent)
        os.close(read)
        os.close(write)
        self.count, self.buffer, self.events = 0, b"", list[dict[str, Any]]()
        self.session: str | None = None
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events that come meanwhile are kept."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(60)
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _next(self, seconds: float) -> dict[str, Any]:
        """The next message."""
        end = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read], [], [], max(end - time.monotonic(), 0))
            assert ready, "the browser does not answer"
            part = os.read(self.read, 1 << 20)
            assert part, "the browser has gone"
            self.buffer += part
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def open(self, path: Path, width: int = 1600, height: int = 1000, dark: bool = False) -> None:
        """Load a file in a viewport of this size and wait until it is there."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next(60))

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """A key, down and up."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        code = {"ArrowRight": 39, "ArrowLeft": 37, "Escape": 27, "Enter": 13, "Tab": 9}.get(key, ord(key[0].upper()))
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    def complaints(self) -> list[str]:
        """Console messages, exceptions and requests to anywhere but the file itself."""
        self.run("1")
        found = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                found.append(json.dumps(params)[:300])
            if method == "Network.requestWillBeSent" and not params["request"]["url"].startswith(("file:", "data:")):
                found.append(params["request"]["url"])
        return found

    def picture(self, path: Path) -> None:
        """Save a PNG of the viewport."""
        data = self.call("Page.captureScreenshot")["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.read)
        os.close(self.write)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One Chromium for all tests; skips where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    binary = next((found for name in names if (found := shutil.which(name))), None)
    if binary is None:
        pytest.skip("no Chromium here: the page is tested in a browser only where there is one")
    opened = Browser(binary, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def write() -> Callable[..., pd.DataFrame]:
    """The writer of run folders."""
    return write_run


@pytest.fixture
def ensemble() -> Callable[..., dict[str, Any]]:
    """The writer of ensembles."""
    return write_ensemble
