"""Downloads: whole ways through the real client, and archives that are damaged or hostile."""

from __future__ import annotations

import importlib
import io
import json
import stat
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from histofold.cli import main
from histofold.errors import DataError, HistofoldError, ResourceError
from histofold.kaggle import unpack as unpacking
from histofold.kaggle.client import Client
from histofold.kaggle.credentials import KaggleError
from histofold.kaggle.download import arrived, fetch
from histofold.kaggle.unpack import DamagedArchiveError, unpack

SLUG = "demo-competition"


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def kaggle_like() -> bytes:
    """As DSB 2018 comes: ZIPs in a ZIP, of a folder and of a single table."""
    return zipped(
        {
            "stage1_train.zip": zipped({"a/images/a.png": b"pixels", "a/masks/1.png": b"mask"}),
            "stage1_train_labels.csv.zip": zipped({"stage1_train_labels.csv": b"ImageId,EncodedPixels\n"}),
            "stage1_sample_submission.csv": b"ImageId,EncodedPixels\n",
        }
    )


ARRIVED = {
    "stage1_train/a/images/a.png": 6,
    "stage1_train/a/masks/1.png": 4,
    "stage1_train_labels.csv": 22,
    "stage1_sample_submission.csv": 22,
}


def nap(seconds: float) -> None:
    """No time to wait in tests."""


def files_below(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def test_everything_arrives_unpacked(kaggle_server: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kaggle_server.archive = kaggle_like()
    root = tmp_path / "input" / SLUG
    assert not arrived(root)
    assert fetch(Client(SLUG), root) == ARRIVED
    found = files_below(root)
    assert found.pop(".downloaded.json") > 0
    assert found == ARRIVED
    assert [path.name for path in root.parent.iterdir()] == [SLUG]
    assert arrived(root)
    output = capfd.readouterr().out
    assert "credentials: KAGGLE_USERNAME and KAGGLE_KEY" in output
    assert f"https://www.kaggle.com/c/{SLUG}/rules" in output


def test_a_lost_file_is_noticed_and_fetched_again(kaggle_server: Any, tmp_path: Path) -> None:
    kaggle_server.archive = kaggle_like()
    root = tmp_path / SLUG
    fetch(Client(SLUG), root)
    (root / "stage1_train/a/masks/1.png").unlink()
    assert not arrived(root)
    fetch(Client(SLUG), root)
    assert arrived(root)


def test_goes_on_after_a_broken_connection(
    kaggle_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kaggle_server.archive = zipped({"big.bin": bytes(range(256)) * 12_000}, zipfile.ZIP_STORED)
    kaggle_server.drop_after = 2_000_000
    module = importlib.import_module("kaggle.api.kaggle_api_extended")
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=nap, mktime=time.mktime))
    root = tmp_path / SLUG
    fetch(Client(SLUG, nap), root)
    assert (root / "big.bin").read_bytes() == bytes(range(256)) * 12_000
    assert len(kaggle_server.ranges) == 1
    assert int(kaggle_server.ranges[0].removeprefix("bytes=").rstrip("-")) > 0


def test_a_later_run_goes_on_where_the_first_was_killed(kaggle_server: Any, tmp_path: Path) -> None:
    kaggle_server.archive = zipped({"big.bin": bytes(range(256)) * 4_000}, zipfile.ZIP_STORED)
    half = len(kaggle_server.archive) // 2
    (tmp_path / f"{SLUG}.zip").write_bytes(kaggle_server.archive[:half])
    marker = {"validator": kaggle_server.etag, "size": len(kaggle_server.archive)}
    (tmp_path / f"{SLUG}.zip.kaggle-partial").write_text(json.dumps(marker))
    fetch(Client(SLUG, nap), tmp_path / SLUG)
    assert kaggle_server.ranges == [f"bytes={half}-"]
    assert (tmp_path / SLUG / "big.bin").stat().st_size == 1_024_000


def test_a_damaged_archive_is_deleted_so_that_the_next_run_fetches_it(kaggle_server: Any, tmp_path: Path) -> None:
    good = kaggle_like()
    kaggle_server.archive = good[: len(good) // 2]
    root = tmp_path / SLUG
    with pytest.raises(DataError, match=r"not a whole ZIP.*deleted, the same command fetches it again"):
        fetch(Client(SLUG), root)
    assert not (tmp_path / f"{SLUG}.zip").exists()
    assert not arrived(root)
    kaggle_server.archive = good
    assert fetch(Client(SLUG), root) == ARRIVED


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, "does not accept"), (403, f"kaggle.com/c/{SLUG}/rules"), (404, "knows no"), (500, "has trouble")],
)
def test_refused_downloads_leave_nothing(
    kaggle_server: Any, tmp_path: Path, status: int, expected: str, capfd: pytest.CaptureFixture[str], secret: str
) -> None:
    kaggle_server.fail("DownloadDataFiles", status, "no", times=99)
    root = tmp_path / "input" / SLUG
    with pytest.raises(KaggleError, match=expected) as caught:
        fetch(Client(SLUG, nap), root)
    assert "\n" not in str(caught.value)
    assert list(root.parent.iterdir()) == []
    output = capfd.readouterr()
    assert secret not in output.out + output.err + str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["../out.txt", "/etc/out.txt", "a/../../out.txt", "..\\out.txt", "C:\\out.txt", "a/b/../../../out.txt"],
)
def test_no_member_leaves_the_folder(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "bad.zip"
    archive.write_bytes(zipped({"good.txt": b"good", name: b"bad"}))
    target = tmp_path / "in" / "target"
    with pytest.raises(DataError, match="leads out of"):
        unpack(archive, target)
    assert files_below(tmp_path) == {"bad.zip": archive.stat().st_size}


def test_links_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr(link, "/etc")
        packed.writestr("link/passwd", b"bad")
    archive = tmp_path / "bad.zip"
    archive.write_bytes(out.getvalue())
    with pytest.raises(DataError, match="is a link"):
        unpack(archive, tmp_path / "target")
    assert files_below(tmp_path / "target") == {}


def test_a_link_in_the_folder_is_not_followed_out_of_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "target"
    target.mkdir()
    (target / "way").symlink_to(outside)
    archive = tmp_path / "bad.zip"
    archive.write_bytes(zipped({"way/file.txt": b"bad"}))
    with pytest.raises(DataError, match="leads out of"):
        unpack(archive, target)
    assert list(outside.iterdir()) == []


def test_a_hostile_archive_inside_the_archive_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "outer.zip"
    archive.write_bytes(zipped({"inner.zip": zipped({"../../out.txt": b"bad"})}))
    with pytest.raises(DataError, match="leads out of"):
        unpack(archive, tmp_path / "a" / "target")
    assert not (tmp_path / "a" / "out.txt").exists()
    assert not (tmp_path / "out.txt").exists()


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.bin": bytes(5_000)}, zipfile.ZIP_STORED))
    data[1_000] ^= 1
    archive = tmp_path / "flipped.zip"
    archive.write_bytes(data)
    with pytest.raises(DamagedArchiveError, match=r"'a\.bin' cannot be read"):
        unpack(archive, tmp_path / "target")
    assert files_below(tmp_path / "target") == {}


def test_a_broken_deflate_stream_is_noticed(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.bin": bytes(range(256)) * 50}))
    data[45:60] = b"\xff" * 15
    archive = tmp_path / "broken.zip"
    archive.write_bytes(data)
    with pytest.raises(DamagedArchiveError):
        unpack(archive, tmp_path / "target")


def test_whole_files_are_kept_when_unpacking_again(tmp_path: Path) -> None:
    archive = tmp_path / "two.zip"
    archive.write_bytes(zipped({"a.txt": b"one", "b.txt": b"two"}))
    target = tmp_path / "target"
    unpack(archive, target)
    before = (target / "a.txt").stat().st_mtime_ns
    (target / "b.txt").write_bytes(b"t")
    unpack(archive, target)
    assert (target / "a.txt").stat().st_mtime_ns == before
    assert (target / "b.txt").read_bytes() == b"two"


def test_too_small_a_disk_is_told_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped({"a.bin": bytes(1_000)}))

    class Full:
        free = 0

    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda path: Full)
    with pytest.raises(ResourceError, match="free some space"):
        unpack(archive, tmp_path / "target")
    assert files_below(tmp_path / "target") == {}


def test_a_folder_named_as_its_archive_is_not_doubled(tmp_path: Path) -> None:
    archive = tmp_path / "outer.zip"
    archive.write_bytes(zipped({"train.zip": zipped({"train/1.png": b"x", "train/2.png": b"y"})}))
    assert set(unpack(archive, tmp_path / "target")) == {"train/1.png", "train/2.png"}


def test_errors_of_download_are_histofolds() -> None:
    assert issubclass(DamagedArchiveError, HistofoldError)


def png(value: int) -> bytes:
    return cv2.imencode(".png", np.full((32, 32, 3), value, np.uint8))[1].tobytes()


def bowl(test_ids: tuple[str, ...] = ("t1",)) -> bytes:
    """A very small Data Science Bowl as Kaggle packs it."""
    mask = np.zeros((32, 32), np.uint8)
    mask[4:12, 4:12] = 255
    train = {f"{name}/images/{name}.png": png(40) for name in ("a", "b")}
    train |= {f"{name}/masks/1.png": cv2.imencode(".png", mask)[1].tobytes() for name in ("a", "b")}
    return zipped(
        {
            "stage1_train.zip": zipped(train),
            "stage1_test.zip": zipped({"t1/images/t1.png": png(60)}),
            "stage1_sample_submission.csv": ("ImageId,EncodedPixels\n" + "".join(f"{n},\n" for n in test_ids)).encode(),
        }
    )


def test_the_verb_fetches_checks_and_does_nothing_the_second_time(
    kaggle_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], secret: str
) -> None:
    kaggle_server.archive = bowl()
    argv = ["competition=dsb2018", f"paths.input={tmp_path}/input"]
    assert main("download", argv) == 0
    output = capsys.readouterr()
    assert "complete; next: ./run.sh prepare competition=dsb2018" in output.out
    assert secret not in output.out + output.err
    calls = len(kaggle_server.calls)
    assert main("download", argv) == 0
    assert "everything is there already" in capsys.readouterr().out
    assert len(kaggle_server.calls) == calls


def test_the_verb_says_when_what_arrived_is_not_all(
    kaggle_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle_server.archive = bowl(("t1", "t2"))
    assert main("download", ["competition=dsb2018", f"paths.input={tmp_path}/input"]) == 1
    error = capsys.readouterr().err.splitlines()
    assert "stage1_test/ lacks 1 of 2 images (t2" in error[-1]


def test_the_verb_without_credentials(
    no_credentials: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("download", ["competition=dsb2018", f"paths.input={tmp_path}/input"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("histofold: no Kaggle credentials were found")
    assert error.count("\n") == 1


def test_the_verb_for_what_is_not_on_kaggle(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("download", ["competition=demo_kidney"]) == 2
    assert "not on Kaggle" in capsys.readouterr().err


def test_a_competition_without_its_files_says_how_to_get_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("prepare", ["competition=dsb2018", f"paths.input={tmp_path}/input"]) == 1
    error = capsys.readouterr().err
    assert "./run.sh download competition=dsb2018" in error
    assert error.count("\n") == 1
