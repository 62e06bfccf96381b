"""Send a submission to Kaggle: look first, show what goes out, log it, and fetch the score when it is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from histofold.files import sha256
from histofold.kaggle import log
from histofold.kaggle.client import Client
from histofold.kaggle.credentials import KaggleError

WAIT = 600.0
"""Seconds to wait for the score before leaving it for later."""

POLL = 10.0
"""Seconds between two looks for the score."""


@dataclass(frozen=True)
class Parcel:
    """What is to be sent.

    Attributes:
        file: the validated CSV.
        name: of the ensemble it comes from.
        cv: cross-fitted score on OOF, None when it is unknown.
        message: description on Kaggle; empty means name and CV.
    """

    file: Path
    name: str
    cv: float | None = None
    message: str = ""

    @property
    def description(self) -> str:
        """The text that Kaggle shows beside the score."""
        return self.message or self.name + ("" if self.cv is None else f", CV {self.cv:.4f}")


def send(slug: str, parcel: Parcel, log_path: Path, client: Client | None = None, wait: float = WAIT) -> log.Entry:
    """Send a validated CSV to a competition, log it in `log_path`, and wait a while for its score.

    The same file is never sent twice: the second time only its scores are fetched. So the same command, run again
    later, completes the log.

    Raises:
        KaggleError: no credentials, no submission left today, refused, broken off, or Kaggle could not score it.
    """
    kaggle = client or Client(slug)
    digest = sha256(parcel.file)

    def submit() -> log.Entry:
        show(slug, parcel, digest, require_allowance(kaggle), kaggle)
        return _entry(parcel, digest, kaggle.submit(parcel.file, parcel.description))

    entry, new = log.once(log_path, digest, submit)
    if not new:
        print(f"{parcel.file}: this very file was sent on {entry.date}; only its score is fetched")
    return scored(kaggle, entry, new, log_path, wait)


def scored(client: Client, entry: log.Entry, new: bool, log_path: Path, wait: float) -> log.Entry:
    """Wait a while for the score of a logged submission, log it (and all missing ones if it is not new), and say it.

    Raises:
        KaggleError: Kaggle could not score it.
    """
    entry = await_score(client, entry, wait)
    log.renew(log_path, [entry] if new else refreshed(client, log.read(log_path)))
    return closing(entry, log_path)


def require_allowance(client: Client) -> int | None:
    """Submissions left today, None when Kaggle does not say (before a team's first one).

    Raises:
        KaggleError: none is left.
    """
    limits = client.limits()
    if limits.num_allowed_now > 0:
        return int(limits.num_allowed_now)
    if limits.num_today == 0 and limits.num_total == 0:
        return None
    total = " (the competition's total is used up)" if limits.limited_by_total else ""
    now = datetime.now(UTC)
    hours = 24 - now.hour - now.minute / 60
    raise KaggleError(
        f"{client.slug}: no submission left today, {limits.num_today} were made{total}; "
        f"the day ends at 0:00 UTC, in {hours:.1f} h; nothing was sent"
    )


def show(slug: str, parcel: Parcel, digest: str, left: int | None, client: Client) -> None:
    """Print what is about to be sent."""
    size = parcel.file.stat().st_size
    print(f"sending to {slug}, with {client.credentials.way}:")
    print(f"  file      {parcel.file} ({size:,} bytes, sha256 {digest[:12]}…)")
    print(f"  message   {parcel.description}")
    print(f"  CV        {'unknown' if parcel.cv is None else f'{parcel.cv:.4f}'}")
    print(f"  allowed   {'not said' if left is None else f'{left} more today'}", flush=True)


def await_score(
    client: Client, entry: log.Entry, wait: float, clock: Callable[[], float] = time.monotonic
) -> log.Entry:
    """Look for the score of a submission until it is there or `wait` seconds are over; gives the newest entry."""
    end = clock() + wait
    while True:
        entry = refreshed(client, [entry])[0]
        if entry.status != log.PENDING or clock() >= end:
            return entry
        client.pause(min(POLL, max(end - clock(), 0.0)))


def refreshed(client: Client, entries: list[log.Entry]) -> list[log.Entry]:
    """The entries with what Kaggle says of them now; those that it does not list stay as they are."""
    known = {str(submission.ref): submission for submission in client.submissions()}
    return [_scored(entry, known[entry.ref]) if entry.ref in known else entry for entry in entries]


def _scored(entry: log.Entry, submission: object) -> log.Entry:
    status = str(getattr(submission, "status", "")).rsplit(".", 1)[-1].lower()
    public, private = (str(getattr(submission, name, None) or "") for name in ("public_score", "private_score"))
    return entry.scored(status or log.PENDING, public, private)


def _entry(parcel: Parcel, digest: str, ref: int) -> log.Entry:
    return log.Entry(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        name=parcel.name,
        file=parcel.file.name,
        sha256=digest,
        message=parcel.description,
        cv="" if parcel.cv is None else f"{parcel.cv:.6f}",
        ref=str(ref),
    )


def closing(entry: log.Entry, path: Path) -> log.Entry:
    """Print how a submission ended; gives its entry.

    Raises:
        KaggleError: Kaggle could not score it.
    """
    if entry.status == log.FAILED:
        raise KaggleError(f"Kaggle could not score submission {entry.ref}; its page says why (logged in {path})")
    if entry.status == log.PENDING:
        print(f"not scored yet; the same command fetches the score later ({path})")
    else:
        print(f"public {entry.public or '–'}, private {entry.private or '–'}, CV {entry.cv or '–'} ({path})")
    return entry
