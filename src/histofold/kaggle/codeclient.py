"""Datasets, notebooks and code submissions through Kaggle's client, as patient and clear as `Client`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from requests.exceptions import RequestException

from histofold.kaggle.client import Client, status_of
from histofold.kaggle.credentials import KaggleError

QUEUED = ("queued", "running", "new_script")
"""States of a notebook that may still come to a good end."""


class CodeClient(Client):
    """One code competition on Kaggle."""

    def dataset_status(self, dataset: str) -> str | None:
        """State of `owner/slug` in lower case (`ready` when it can be used), None when there is no such dataset."""

        def look() -> str | None:
            try:
                return str(self.api.dataset_status(dataset)).lower()
            except RequestException as error:
                # Kaggle says 403 of what is not there as well as of what is somebody else's.
                if status_of(error) in (403, 404):
                    return None
                raise

        return self.retry(look, "looking up the dataset")

    def send_dataset(self, folder: Path, dataset: str, notes: str) -> None:
        """Create the private dataset, or a new version of it where it exists; folders travel as ZIPs.

        Raises:
            KaggleError: refused, or a file did not arrive.
        """
        exists = self.dataset_status(dataset) is not None
        send = self._new_version if exists else self._new_dataset
        answer = self.retry(lambda: send(str(folder), notes), "sending the dataset")
        error = str(getattr(answer, "error", None) or "")
        if error:
            raise KaggleError(f"Kaggle refused the dataset {dataset} ({error})")

    def push_notebook(self, folder: Path) -> int:
        """Push the notebook, which Kaggle then runs; gives the version's number.

        Raises:
            KaggleError: refused, or without one of its sources.
        """
        answer = self.retry(lambda: self.api.kernels_push(str(folder)), "pushing the notebook")
        if answer is None or answer.error:
            reason = getattr(answer, "error", None) or "it does not say why"
            raise KaggleError(f"Kaggle refused the notebook ({reason})")
        for kind in ("dataset", "competition"):
            missing = list(getattr(answer, f"invalid_{kind}_sources", None) or [])
            if missing:
                raise KaggleError(
                    f"Kaggle did not give the notebook the {kind} {', '.join(missing)}; "
                    f"is its name right, and are the rules accepted ({self.rules})?"
                )
        version = int(answer.version_number or 0)
        if version < 1:
            raise KaggleError(f"Kaggle took the notebook and gave no version number; see {answer.url}")
        return version

    def notebook_status(self, notebook: str) -> tuple[str, str]:
        """State of the newest version of `owner/slug` in lower case, and what went wrong."""
        answer = self.retry(lambda: self.api.kernels_status(notebook), "looking at the notebook")
        return str(answer.status).rsplit(".", 1)[-1].lower(), str(answer.failure_message or "")

    def submit_notebook(self, notebook: str, version: int, file: str, message: str) -> int:
        """Submit a version's output file; gives Kaggle's number of the submission.

        A submission is counted, so before a second try it is looked up whether the first one arrived after all.

        Raises:
            KaggleError: refused.
        """
        before = {submission.ref for submission in self.submissions()}

        def hand_in() -> int:
            arrived = [item.ref for item in self.submissions() if item.ref not in before]
            if arrived:
                return int(arrived[0])
            answer = self.api.competition_submit_code(file, message, self.slug, notebook, version, quiet=True)
            return int(answer.ref)

        return self.retry(hand_in, "the submission")

    def _new_dataset(self, folder: str, notes: str) -> Any:
        return self._checked(lambda: self.api.dataset_create_new(folder, public=False, quiet=True, dir_mode="zip"))

    def _new_version(self, folder: str, notes: str) -> Any:
        return self._checked(lambda: self.api.dataset_create_version(folder, notes, quiet=True, dir_mode="zip"))

    def _checked(self, call: Callable[[], Any]) -> Any:
        """Kaggle's client goes on without a file whose upload broke off; here that is an error, and tried again."""
        upload = self.api._upload_file

        def checked(name: str, *given: Any, **named: Any) -> Any:
            arrived = upload(name, *given, **named)
            if arrived is None or not arrived.token:
                raise requests.ConnectionError(f"the upload of {name} broke off")
            return arrived

        self.api._upload_file = checked
        try:
            return call()
        finally:
            self.api._upload_file = upload

    def explained(self, error: Exception, what: str) -> KaggleError:
        """As for a competition, but what belongs to an account is refused for other reasons."""
        status = status_of(error)
        if status in (403, 404) and ("dataset" in what or "notebook" in what):
            said = str(super().explained(error, what)).partition("(")[2].partition(")")[0]
            return KaggleError(
                f"Kaggle refused {what} ({said}); kernel.owner must be the account of {self.credentials.way}, "
                "with its phone number confirmed"
            )
        return super().explained(error, what)
