"""`download`: fetch a competition's files through Kaggle's client, unpack them safely, and check what arrived."""

from __future__ import annotations

import errno
from pathlib import Path

from histofold import competitions, given
from histofold.config import Config
from histofold.errors import ConfigError, DataError, ResourceError
from histofold.files import read_json, write_json
from histofold.kaggle.client import Client
from histofold.kaggle.unpack import DamagedArchiveError, unpack

MARKER = ".downloaded.json"
"""In the competition's folder: what the archive held, written when all of it had arrived."""


def download(config: Config) -> None:
    """Fetch and unpack the chosen competition into `paths.input`; done already, it says so and asks nobody.

    Raises:
        ConfigError: the competition is not one of Kaggle's.
        KaggleError: no credentials, rules not accepted, unknown competition, or Kaggle cannot be reached.
        DataError: the archive is damaged or unsafe, or what arrived is not what the competition needs.
        ResourceError: the disk is too small.
    """
    competition = competitions.open(config.competition, config.path("input"))
    if competition.slug is None:
        raise ConfigError(f"competition.name={competition.name}: not on Kaggle, so there is nothing to download")
    if arrived(competition.root):
        print(f"{competition.root}: everything is there already")
        competition.check()
        return
    fetch(Client(competition.slug), competition.root)
    competition.check()
    print(f"{competition.root}: complete; next: {given.again('prepare', competition.name)}")


def fetch(client: Client, root: Path) -> dict[str, int]:
    """Download the competition's archive beside `root`, unpack it into `root`, and delete it; gives files and sizes.

    Raises:
        KaggleError, DataError, ResourceError: as in `download`; the same call goes on where it broke off.
    """
    print(f"credentials: {client.credentials.way}")
    print(f"rules, to be accepted once: {client.rules}", flush=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    try:
        archive = client.download(root.parent)
        if archive.suffix.lower() != ".zip":
            raise DataError(f"{archive}: expected a ZIP; unpack it by hand into {root}")
        files = unpack(archive, root)
    except DamagedArchiveError as error:
        # Kaggle's client would take the file for complete and keep it.
        error.archive.unlink(missing_ok=True)
        raise DataError(f"{error}; it was deleted, the same command fetches it again") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(
                f"{root.parent}: the disk is full; free some space, the same command goes on"
            ) from error
        raise
    archive.unlink()  # the unpacked files are enough: HuBMAP's archive alone is tens of gigabytes
    write_json(root / MARKER, files)
    print(f"{len(files)} files, {sum(files.values()) / 1e9:.2f} GB")
    return files


def arrived(root: Path) -> bool:
    """Whether all that an earlier download brought is still there with its size."""
    if not (root / MARKER).is_file():
        return False
    files = read_json(root / MARKER)
    return all((root / name).is_file() and (root / name).stat().st_size == size for name, size in files.items())
