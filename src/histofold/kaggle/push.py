"""Send an export to Kaggle: dataset, notebook, its run, its submission, its score; each step waited for and told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from histofold.kaggle import log
from histofold.kaggle.codeclient import QUEUED, CodeClient
from histofold.kaggle.credentials import KaggleError
from histofold.kaggle.export import Export
from histofold.kaggle.send import require_allowance, scored

UNPACKING = 1800.0
"""Seconds that Kaggle may take to unpack a dataset."""

QUEUE = 3600.0
"""Seconds that a notebook may wait for a machine."""

LOOK = 15.0
"""Seconds between two looks."""

SCORING = 12 * 3600.0
"""Seconds to wait for the score: Kaggle runs the notebook again, on the hidden test set."""

FILE = "submission.csv"


def push(
    slug: str,
    export: Export,
    message: str,
    cv: float | None,
    log_path: Path,
    client: CodeClient | None = None,
    wait: float = SCORING,
) -> log.Entry:
    """Send dataset and notebook, wait for its run, submit that version and log it; gives the log's entry.

    An export that was submitted before is not sent again: only its score is fetched. The same holds while Kaggle still
    scores an earlier export of this notebook.

    Raises:
        KaggleError: no credentials, no submission left today, refused, or the notebook failed.
    """
    kaggle = client or CodeClient(slug)
    stamp = export.manifest.stamp
    earlier = log.sent(log_path, stamp) or _pending(log_path, export.notebook)
    if earlier is None:
        show(slug, export, message, require_allowance(kaggle), kaggle)
        version = run(export, kaggle)

        def submit() -> log.Entry:
            ref = kaggle.submit_notebook(export.notebook, version, FILE, message)
            print(f"submitted version {version} of {export.notebook} to {slug}", flush=True)
            return _entry(export, version, message, cv, ref)

        # Its run took a while, in which another command may have submitted the same.
        entry, new = log.once(log_path, stamp, submit)
    else:
        entry, new = earlier, False
    if entry.sha256 != stamp:
        print(
            f"{export.notebook}: an earlier export was submitted on {entry.date} and is not scored yet; its score is "
            "fetched first, and the same command submits this one after it (another kernel.title does at once)"
        )
    elif not new:
        print(f"{export.folder}: this very export was submitted on {entry.date}; only its score is fetched")
    return scored(kaggle, entry, new, log_path, wait)


def _pending(log_path: Path, notebook: str) -> log.Entry | None:
    """The last submission of a notebook whose score is not known: who asks for it may since have exported anew."""
    own = [entry for entry in log.read(log_path) if entry.file.startswith(f"{notebook} version ")]
    return own[-1] if own and own[-1].status == log.PENDING else None


def show(slug: str, export: Export, message: str, left: int | None, client: CodeClient) -> None:
    """Print what is about to be sent."""
    manifest = export.manifest
    print(f"sending to {slug}, with {client.credentials.way}:")
    print(f"  dataset   {manifest.dataset} (private, {export.size / 1e6:.1f} MB)")
    print(f"  notebook  {export.notebook} (private, no internet, {manifest.hours:g} h)")
    print(f"  message   {message}")
    print(f"  allowed   {'not said' if left is None else f'{left} more today'}", flush=True)


def run(export: Export, client: CodeClient) -> int:
    """Send both, and wait until Kaggle has run the notebook to its good end; gives the version's number.

    Raises:
        KaggleError: refused, failed, or not done in time.
    """
    dataset, notebook = export.manifest.dataset, export.notebook
    client.send_dataset(export.dataset, dataset, export.manifest.stamp)
    client.pause(LOOK)  # at once Kaggle would still call the version before this one ready
    _await(client, dataset, UNPACKING, lambda: _unpacked(client, dataset))
    version = client.push_notebook(export.folder)
    print(f"{notebook}: version {version} runs; https://www.kaggle.com/code/{notebook}", flush=True)
    _await(client, notebook, QUEUE + 3600 * export.manifest.hours, lambda: _finished(client, notebook))
    return version


def _unpacked(client: CodeClient, dataset: str) -> bool:
    status = client.dataset_status(dataset)
    if status in ("failed", "deleted"):
        raise KaggleError(f"{dataset}: Kaggle could not unpack the dataset ({status}); push it again")
    return status == "ready"


def _finished(client: CodeClient, notebook: str) -> bool:
    status, reason = client.notebook_status(notebook)
    if status != "complete" and status not in QUEUED:
        raise KaggleError(
            f"{notebook}: the notebook ended as {status} ({reason or 'no reason given'}); nothing was submitted, its "
            f"log is at https://www.kaggle.com/code/{notebook}"
        )
    return status == "complete"


def _await(client: CodeClient, what: str, seconds: float, done: Callable[[], bool]) -> None:
    """Look until something is done; naps are counted, not the clock, so that tests need no time."""
    waited = 0.0
    while not done():
        if waited >= seconds:
            raise KaggleError(f"{what}: not done after {seconds / 60:.0f} min; run the same command again later")
        client.pause(LOOK)
        waited += LOOK


def _entry(export: Export, version: int, message: str, cv: float | None, ref: int) -> log.Entry:
    return log.Entry(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        name=export.manifest.name,
        file=f"{export.notebook} version {version}",
        sha256=export.manifest.stamp,
        message=message,
        cv="" if cv is None else f"{cv:.6f}",
        ref=str(ref),
    )
