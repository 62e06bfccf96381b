"""Kaggle's own client, made quiet and patient: what fails becomes one line, what may pass later is tried again."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import requests
from requests.exceptions import RequestException

from histofold.kaggle.credentials import Credentials, KaggleError, require

T = TypeVar("T")

ATTEMPTS = 5
"""How often a call is made before it is given up."""

FIRST_WAIT = 2.0
"""Seconds before the second attempt; each further wait is twice as long, unless Kaggle says how long."""

LONGEST_WAIT = 120.0


class Client:
    """One competition on Kaggle, through the `kaggle` package.

    Raises:
        KaggleError: on construction, when there are no credentials or Kaggle does not accept them.
    """

    def __init__(self, slug: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self.slug = slug
        self.credentials: Credentials = require()
        self._sleep = sleep
        self.api = self.retry(_signed_in, "signing in")

    @property
    def rules(self) -> str:
        """The page where the competition's rules are accepted, once for each account."""
        return f"https://www.kaggle.com/c/{self.slug}/rules"

    def limits(self) -> Any:
        """Today's submissions of the team: `.num_today`, `.num_total`, `.num_allowed_now`, `.limited_by_total`."""
        return self.retry(lambda: self.api.competition_get_submission_limits(self.slug), "looking up the daily limit")

    def submissions(self) -> list[Any]:
        """The newest submissions, each with `.ref`, `.status`, `.public_score`, `.private_score`, `.description`."""
        found = self.retry(lambda: self.api.competition_submissions(self.slug), "looking up the scores")
        return [submission for submission in found or [] if submission is not None]

    def download(self, folder: Path) -> Path:
        """Fetch the competition's archive into `folder`, going on where an earlier try broke off; gives its path."""
        quiet = os.environ.get("HISTOFOLD_QUIET") == "1"
        self.retry(
            lambda: self.api.competition_download_files(self.slug, str(folder), force=False, quiet=quiet),
            "downloading",
        )
        found = [path for path in folder.glob(f"{self.slug}.*") if path.is_file() and "partial" not in path.suffix]
        if not found:
            raise KaggleError(f"{folder}: Kaggle's client said that it was done, but there is no {self.slug}.zip")
        return found[0]

    def submit(self, path: Path, message: str) -> int:
        """Upload a CSV and hand it in; gives Kaggle's number of the submission.

        A submission is counted, so before a second try it is looked up whether the first one arrived after all.

        Raises:
            KaggleError: refused, or broken off again and again; then nothing was handed in.
        """
        before = {submission.ref for submission in self.submissions()}
        error: Exception = KaggleError("")
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._hidden():
                    answer = self.api.competition_submit(str(path), message, self.slug, quiet=True)
                if answer.message != self.api.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE:
                    return int(answer.ref)
                error = KaggleError(f"{path}: the upload broke off {attempt} times; nothing was handed in, try again")
            except RequestException as failure:
                error = self.explained(failure, "the submission")
                if not may_pass(failure):
                    raise error from None
                arrived = [item.ref for item in self.submissions() if item.ref not in before]
                if arrived:
                    return int(arrived[0])
            if attempt < ATTEMPTS:
                self._wait(error, "sending", attempt)
        raise error

    def pause(self, seconds: float) -> None:
        """Wait."""
        self._sleep(seconds)

    def retry(self, call: Callable[[], T], what: str) -> T:
        """Make a call; what may pass by itself (429, 5xx, a broken connection) is tried again after a while.

        Raises:
            KaggleError: one line on what Kaggle said, and what a person can do.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._hidden():
                    return call()
            except (RequestException, ValueError) as error:
                if attempt == ATTEMPTS or not may_pass(error):
                    raise self.explained(error, what) from None
                self._wait(error, what, attempt)
        raise AssertionError("unreachable")

    def explained(self, error: Exception, what: str) -> KaggleError:
        """An error of Kaggle's client as one line without secrets."""
        status = status_of(error)
        said = self._clean(_said(error))
        if status == 401:
            text = f"Kaggle does not accept {self.credentials.way} (401): make a new token at " + (
                "https://www.kaggle.com/settings/api"
            )
        elif status == 403:
            text = f"Kaggle refused {what} (403: {said}); if you have not accepted the rules, do it at {self.rules}"
        elif status == 404:
            text = f"Kaggle knows no {self.slug} (404: {said}), or it takes nothing any more; see {self.rules}"
        elif status == 429:
            text = f"Kaggle asks to slow down (429: {said}), after {ATTEMPTS} tries of {what}; wait and try again"
        elif status is not None and status >= 500:
            text = f"Kaggle has trouble ({status}: {said}), after {ATTEMPTS} tries of {what}; try again later"
        elif status is not None:
            text = f"Kaggle refused {what} ({status}: {said})"
        elif isinstance(error, ValueError) and not may_pass(error):
            text = f"{what}: {said}; run the same command again"
        else:
            text = f"Kaggle could not be reached while {what} ({said}); check the network, the same command goes on"
        return KaggleError(text)

    def _wait(self, error: Exception, what: str, attempt: int) -> None:
        asked = _retry_after(error)
        seconds = min(asked if asked is not None else FIRST_WAIT * 2 ** (attempt - 1), LONGEST_WAIT)
        reason = status_of(error) or (error if isinstance(error, KaggleError) else type(error).__name__)
        print(f"{what}: {reason}; trying again in {seconds:.0f} s", file=sys.stderr)
        self._sleep(seconds)

    def _clean(self, text: str) -> str:
        """`text` without secrets; the query of an upload's address is one, too."""
        return re.sub(r"\?[\w%.~+-]+=[^\s'\")]*", "?…", self.credentials.hide(text))

    @contextlib.contextmanager
    def _hidden(self) -> Iterator[None]:
        """Pass on what the client prints without the secrets that may be in it."""
        caught = io.StringIO()
        try:
            with contextlib.redirect_stdout(caught):
                yield
        finally:
            text = self._clean(caught.getvalue()).strip()
            if text:
                print(text, file=sys.stderr)


def status_of(error: Exception) -> int | None:
    """The HTTP status behind an error, None when there was no answer."""
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


def may_pass(error: Exception) -> bool:
    """Whether the same call may work a little later."""
    status = status_of(error)
    if status is not None:
        return status == 429 or status >= 500
    return isinstance(error, (requests.ConnectionError, requests.Timeout))


def _said(error: Exception) -> str:
    """What the server said, on one line."""
    response = getattr(error, "response", None)
    text = ""
    if response is not None:
        with contextlib.suppress(ValueError, AttributeError):
            text = str(response.json().get("message") or "")
        text = text or str(response.reason or "")
    return " ".join((text or str(error) or type(error).__name__).split())[:300]


def _retry_after(error: Exception) -> float | None:
    response = getattr(error, "response", None)
    value = None if response is None else response.headers.get("Retry-After")
    try:
        return None if value is None else max(0.0, float(value))
    except ValueError:
        return None


def _signed_in() -> Any:
    """Kaggle's client, signed in; its verbose mode, which prints the credentials' header, stays off."""
    for name in ("VERBOSE", "VERBOSE_OUTPUT"):
        os.environ.pop(name, None)
    from kaggle.api.kaggle_api_extended import KaggleApi

    KaggleApi.args = [argument for argument in KaggleApi.args if argument not in ("-v", "--verbose")]
    api = KaggleApi()
    try:
        api.authenticate()
    except SystemExit:
        raise KaggleError(
            "Kaggle's client does not accept the credentials that were found (expired?): make a new token at "
            "https://www.kaggle.com/settings/api"
        ) from None
    return api
