"""Credentials are found and named but never shown; what Kaggle refuses is one line, what may pass is tried again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from histofold.kaggle import credentials
from histofold.kaggle.client import ATTEMPTS, Client
from histofold.kaggle.credentials import KaggleError

SLUG = "demo-competition"


class Naps:
    """Stands in for time.sleep and remembers."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_no_credentials_says_how_to_get_them(no_credentials: Path) -> None:
    with pytest.raises(KaggleError, match=r"no Kaggle credentials.*settings/api.*access_token.*kaggle auth login"):
        Client(SLUG)


def test_token_in_variable(tmp_path: Path, secret: str) -> None:
    found = credentials.find({"HOME": str(tmp_path), "KAGGLE_API_TOKEN": secret})
    assert found is not None
    assert found.way == "the access token in KAGGLE_API_TOKEN"
    assert found.secrets == (secret,)


def test_variable_may_name_the_tokens_file(tmp_path: Path, secret: str) -> None:
    path = write(tmp_path / "token", secret + "\n")
    found = credentials.find({"HOME": str(tmp_path), "KAGGLE_API_TOKEN": str(path)})
    assert found is not None
    assert str(path) in found.way
    assert found.secrets == (secret,)


def test_token_file(tmp_path: Path, secret: str) -> None:
    path = write(tmp_path / ".kaggle" / "access_token", secret)
    found = credentials.find({"HOME": str(tmp_path)})
    assert found is not None
    assert found.way == f"the access token in {path}"


def test_user_and_key_in_variables(tmp_path: Path, secret: str) -> None:
    found = credentials.find({"HOME": str(tmp_path), "KAGGLE_USERNAME": "me", "KAGGLE_KEY": secret})
    assert found is not None
    assert found.way == "KAGGLE_USERNAME and KAGGLE_KEY"


@pytest.mark.parametrize("folder", [".kaggle", ".config/kaggle"])
def test_key_file(tmp_path: Path, secret: str, folder: str) -> None:
    path = write(tmp_path / folder / "kaggle.json", json.dumps({"username": "me", "key": secret}))
    found = credentials.find({"HOME": str(tmp_path)})
    assert found is not None
    assert found.way == f"the key in {path}"


def test_oauth_login(tmp_path: Path, secret: str) -> None:
    path = write(tmp_path / ".kaggle" / "credentials.json", json.dumps({"refresh_token": secret}))
    found = credentials.find({"HOME": str(tmp_path)})
    assert found is not None
    assert found.way == f"the OAuth login in {path}"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"username": "me"}', '{"key": ""}'])
def test_broken_key_file_is_none(tmp_path: Path, content: str) -> None:
    write(tmp_path / ".kaggle" / "kaggle.json", content)
    assert credentials.find({"HOME": str(tmp_path)}) is None


def test_repr_and_hidden_text_hold_no_secret(tmp_path: Path, secret: str) -> None:
    found = credentials.find({"HOME": str(tmp_path), "KAGGLE_API_TOKEN": secret})
    assert found is not None
    assert secret not in repr(found)
    assert found.hide(f"Bearer {secret}!") == "Bearer ***!"


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (401, "Unauthorized", r"does not accept KAGGLE_USERNAME and KAGGLE_KEY \(401\).*settings/api"),
        (403, "You must accept this competition's rules", rf"403: You must accept.*kaggle\.com/c/{SLUG}/rules"),
        (404, "Competition not found", rf"knows no {SLUG} \(404: Competition not found .*\)"),
        (400, "Bad thing", r"refused looking up the daily limit \(400: Bad thing .*\)"),
    ],
)
def test_refusals_are_one_line_and_not_tried_again(
    kaggle_server: Any, status: int, message: str, expected: str, secret: str
) -> None:
    kaggle_server.fail("GetSubmissionLimits", status, f"{message} {secret}", times=99)
    naps = Naps()
    with pytest.raises(KaggleError, match=expected) as caught:
        Client(SLUG, naps).limits()
    assert "\n" not in str(caught.value)
    assert secret not in str(caught.value)
    assert naps.seconds == []
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_passing_trouble_is_tried_again(kaggle_server: Any, status: int, capfd: pytest.CaptureFixture[str]) -> None:
    kaggle_server.fail("GetSubmissionLimits", status, "later", times=2)
    naps = Naps()
    assert Client(SLUG, naps).limits().num_allowed_now == 5
    assert naps.seconds == [2, 4]
    assert f"{status}; trying again in 2 s" in capfd.readouterr().err


def test_kaggle_says_how_long_to_wait(kaggle_server: Any) -> None:
    kaggle_server.fail("GetSubmissionLimits", 429, "slow down", Retry_After="7")
    naps = Naps()
    Client(SLUG, naps).limits()
    assert naps.seconds == [7]


@pytest.mark.parametrize(("status", "expected"), [(429, "asks to slow down"), (503, "has trouble")])
def test_lasting_trouble_is_given_up(kaggle_server: Any, status: int, expected: str) -> None:
    kaggle_server.fail("GetSubmissionLimits", status, "no", times=99)
    naps = Naps()
    with pytest.raises(KaggleError, match=expected):
        Client(SLUG, naps).limits()
    assert len(naps.seconds) == ATTEMPTS - 1
    assert kaggle_server.calls.count("GetSubmissionLimits") == ATTEMPTS


def test_no_network_is_one_line(kaggle_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from kagglesdk import kaggle_env

    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, "http://127.0.0.1:9")
    naps = Naps()
    with pytest.raises(KaggleError, match="could not be reached"):
        Client(SLUG, naps).limits()
    assert len(naps.seconds) == ATTEMPTS - 1


def test_credentials_are_used_and_verbose_mode_is_off(
    kaggle_server: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], secret: str
) -> None:
    monkeypatch.setenv("VERBOSE", "1")
    Client(SLUG).limits()
    assert kaggle_server.authorised[-1].startswith("Basic ")
    output = capfd.readouterr()
    assert "Authorization" not in output.out + output.err
    assert secret not in output.out + output.err


def test_expired_token_is_one_line(kaggle_server: Any, monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    monkeypatch.setenv("KAGGLE_API_TOKEN", secret)
    kaggle_server.fail("IntrospectToken", 403, "expired", times=99)
    with pytest.raises(KaggleError, match=r"expired\?.*settings/api") as caught:
        Client(SLUG)
    assert secret not in str(caught.value)


def test_the_user_is_that_of_the_credentials_in_use(tmp_path: Path, secret: str) -> None:
    home = {"HOME": str(tmp_path)}
    assert credentials.user(home) is None
    write(tmp_path / ".kaggle" / "credentials.json", json.dumps({"refresh_token": secret, "username": "login"}))
    assert credentials.user(home) == "login"
    write(tmp_path / ".kaggle" / "kaggle.json", json.dumps({"username": "other"}))
    assert credentials.user(home) == "login", "a kaggle.json without a key is not used"
    write(tmp_path / ".kaggle" / "kaggle.json", json.dumps({"username": "key", "key": secret}))
    assert credentials.user(home) == "key"
    assert credentials.user({**home, "KAGGLE_USERNAME": "me"}) == "me"
    assert credentials.user({**home, "KAGGLE_API_TOKEN": secret}) is None
