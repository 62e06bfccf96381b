"""Which Kaggle credentials there are: found and named, never shown."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from histofold.errors import HistofoldError

ADVICE = (
    "no Kaggle credentials were found: make a token at https://www.kaggle.com/settings/api and save it as "
    "~/.kaggle/access_token or in KAGGLE_API_TOKEN; KAGGLE_USERNAME with KAGGLE_KEY, ~/.kaggle/kaggle.json and "
    "`kaggle auth login` work as well"
)


class KaggleError(HistofoldError):
    """Kaggle said no, or could not be reached."""


@dataclass(frozen=True)
class Credentials:
    """Where credentials were found.

    Attributes:
        way: for people, for example `the file /home/me/.kaggle/kaggle.json`.
        secrets: what must never be printed; hidden from repr.
    """

    way: str
    secrets: tuple[str, ...] = field(repr=False)

    def hide(self, text: str) -> str:
        """`text` with every secret in it replaced by `***`."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            if len(secret) > 3:
                text = text.replace(secret, "***")
        return text


def require(environment: Mapping[str, str] | None = None) -> Credentials:
    """The credentials that Kaggle's client will use.

    Raises:
        KaggleError: there are none; says how to get them.
    """
    found = find(environment)
    if found is None:
        raise KaggleError(ADVICE)
    return found


def find(environment: Mapping[str, str] | None = None) -> Credentials | None:
    """Look where Kaggle's client looks, in its order: token, user name and key, OAuth; None when there is nothing."""
    values = os.environ if environment is None else environment
    home = Path(values.get("HOME") or Path.home())
    return _token(values, home) or _user_and_key(values, home) or _oauth(home)


def _token(values: Mapping[str, str], home: Path) -> Credentials | None:
    given = values.get("KAGGLE_API_TOKEN")
    if given:
        path = Path(given)
        text = _text(path)
        if text:
            return Credentials(f"the access token in {path} (KAGGLE_API_TOKEN)", (text,))
        if text is None:
            return Credentials("the access token in KAGGLE_API_TOKEN", (given,))
    for path in (home / ".kaggle" / "access_token", home / ".kaggle" / "access_token.txt"):
        text = _text(path)
        if text:
            return Credentials(f"the access token in {path}", (text,))
    return None


def _user_and_key(values: Mapping[str, str], home: Path) -> Credentials | None:
    if values.get("KAGGLE_USERNAME") and values.get("KAGGLE_KEY"):
        return Credentials("KAGGLE_USERNAME and KAGGLE_KEY", (values["KAGGLE_KEY"],))
    path = _key_file(values, home)
    content = _json(path)
    if content.get("username") and content.get("key"):
        return Credentials(f"the key in {path}", (str(content["key"]),))
    return None


def _key_file(values: Mapping[str, str], home: Path) -> Path:
    """Where the client looks for kaggle.json: `~/.kaggle` where that folder exists, else XDG's place."""
    if values.get("KAGGLE_CONFIG_DIR"):
        return Path(values["KAGGLE_CONFIG_DIR"], "kaggle.json")
    if (home / ".kaggle").is_dir():
        return home / ".kaggle" / "kaggle.json"
    return Path(values.get("XDG_CONFIG_HOME") or home / ".config", "kaggle", "kaggle.json")


def _oauth(home: Path) -> Credentials | None:
    path = _login_file(home)
    content = _json(path)
    if not content.get("refresh_token"):
        return None
    secrets = (str(content["refresh_token"]), str(content.get("access_token") or ""))
    return Credentials(f"the OAuth login in {path}", secrets)


def _login_file(home: Path) -> Path:
    """What `kaggle auth login` writes."""
    return home / ".kaggle" / "credentials.json"


def _text(path: Path) -> str | None:
    """The file's text; None when it is no file (a token, for example, may be too long for a path)."""
    try:
        return path.read_text(encoding="utf-8").strip() if path.is_file() else None
    except (OSError, UnicodeDecodeError):
        return None


def _json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(_text(path) or "{}")
    except json.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}


def user(environment: Mapping[str, str] | None = None) -> str | None:
    """The user name of the credentials that Kaggle's client will use; None where there is none.

    A token does not say whose it is, and a kaggle.json that lies beside it may be another user's.
    """
    values = os.environ if environment is None else environment
    home = Path(values.get("HOME") or Path.home())
    named: object = values.get("KAGGLE_USERNAME")
    if not named and not _token(values, home):
        path = _key_file(values, home) if _user_and_key(values, home) else _login_file(home)
        named = _json(path).get("username")
    return str(named) if named else None
