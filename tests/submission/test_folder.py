"""Images of one's own: which files count, where results go, and what one bad image does to the others."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from histofold.config import SubmitConfig
from histofold.errors import DataError
from histofold.inference.bandfile import BandFileWriter
from histofold.inference.ensemble import Ensemble
from histofold.slides.tiff import require_whole
from histofold.submission import own
from histofold.submission.folder import KINDS, claim, find_images, forget, place_of
from histofold.targets.foreground import Foreground

CLEANING = SubmitConfig(send=False, message=None, min_area=0, max_hole=0)


def ensemble() -> Ensemble:
    values = {"competition": "custom", "name": "one", "metric": "dice", "members": (), "folds": (0,), "partial": False}
    return Ensemble(**values, bands=("foreground",), checkpoints=(), threshold=0.5)  # type: ignore[arg-type]


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png", ".b.tif", "b.TIF", "notes.txt"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    assert [path.name for path in find_images(tmp_path)] == ["a.png", "b.TIF"]
    (tmp_path / "a.png").unlink()
    (tmp_path / "b.TIF").unlink()
    with pytest.raises(DataError, match="no image there"):
        find_images(tmp_path)


def scans(where: Path, sizes: dict[str, int]) -> Path:
    """A folder `scans` with a file of each name and size."""
    folder = where / "scans"
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in sizes.items():
        (folder / name).write_bytes(b"\0" * size)
    return folder


def test_machines_that_share_the_work_agree_on_a_place_by_what_is_in_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, images = tmp_path / "results", {"a.png": 1, "b.tif": 2}
    monday, elsewhere = scans(tmp_path / "mon", images), scans(tmp_path / "mount" / "mon", images)
    tuesday = [scans(tmp_path / where, {**images, "b.tif": 3}) for where in ("tue", "mount/tue")]
    places = []
    for folder in (monday, tuesday[0], tuesday[1], elsewhere):
        places.append(place_of(results, folder, shared=True))
        claim(places[-1], folder, shared=True)
    assert places[0] == places[3] == results / "scans"
    assert places[1] == places[2]
    assert re.fullmatch(r"scans-[0-9a-f]{4}", places[1].name)
    said = f"holds the results of other images, once in {monday}; those of {tuesday[1]} go to {places[1].name}"
    assert said in capsys.readouterr().out
    with pytest.raises(DataError, match=f"another command began to write the results of {monday}"):
        claim(results / "scans", tuesday[0], shared=True)
    # The same path on another machine, whose disk holds another folder there.
    scans(tmp_path / "mon", {"a.png": 5})
    assert place_of(results, monday, shared=True) not in places
    # One machine alone knows a folder by its path, and what is in it by now.
    assert place_of(results, monday) == results / "scans"
    claim(results / "scans", monday)
    assert place_of(results, monday, shared=True) == results / "scans"


def test_shared_results_from_before_contents_were_written_down_are_those_of_the_path(tmp_path: Path) -> None:
    results, images = tmp_path / "results", {"a.png": 1}
    monday, elsewhere = scans(tmp_path / "mon", images), scans(tmp_path / "mount", images)
    (results / "scans").mkdir(parents=True)
    (results / "scans" / "source.txt").write_text(f"{monday}\n")
    assert place_of(results, elsewhere, shared=True) != results / "scans"
    assert place_of(results, monday, shared=True) == results / "scans"
    claim(results / "scans", monday, shared=True)
    assert place_of(results, elsewhere, shared=True) == results / "scans", "it is written down now"


def test_two_folders_of_one_name_have_results_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    monday, tuesday, wednesday = (scans(tmp_path / day, {f"{day}.png": 1}) for day in ("mon", "tue", "wed"))
    assert place_of(results, monday) == results / "scans"
    claim(results / "scans", monday)
    assert place_of(results, monday) == results / "scans", "once more"
    assert capsys.readouterr().out == ""
    second = place_of(results, tuesday)
    assert second.parent == results
    assert second.name.startswith("scans-")
    assert len(second.name) == len("scans-") + 4
    said = capsys.readouterr().out
    assert f"{results / 'scans'}: holds the results of {monday}; those of {tuesday} go to {second.name}" in said
    claim(second, tuesday)
    assert place_of(results, tuesday) == second, "and keeps them"
    with pytest.raises(DataError, match=f"another command began to write the results of {tuesday}"):
        claim(second, wednesday)
    # Not likely: its digits are those of a third folder, too.
    (second / "source.txt").write_text(f"{wednesday}\n")
    assert len(place_of(results, tuesday).name) == len("scans-") + 8


def test_results_from_before_sources_were_written_down_are_those_of_the_name(tmp_path: Path) -> None:
    (tmp_path / "results" / "scans" / "labels").mkdir(parents=True)
    assert place_of(tmp_path / "results", tmp_path / "scans") == tmp_path / "results" / "scans"


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    # Latin-1 on a disk of bytes.
    folder = scans(tmp_path / "mine", {"Stra\udcdfe.png": 1}).rename(tmp_path / "Stra\udcdfe")
    first = place_of(tmp_path, folder)
    claim(first, folder)
    assert place_of(tmp_path, folder) == first
    assert place_of(tmp_path, tmp_path / "other" / folder.name) != first


def predicted(tmp_path: Path, names: list[str]) -> tuple[list[Path], Path]:
    """Images and their band files; gives the images and the place of results."""
    place = tmp_path / "results"
    paths = []
    (tmp_path / "mine").mkdir()
    (place / "predictions").mkdir(parents=True)
    for seed, name in enumerate(names):
        paths.append(tmp_path / "mine" / f"{name}.png")
        cv2.imwrite(str(paths[-1]), np.full((300, 320, 3), 50 * seed, np.uint8))
        codes = np.random.default_rng(seed).integers(0, 256, (1, 300, 320), dtype=np.uint8)
        with BandFileWriter(place / "predictions" / f"{name}.tif", Foreground().bands, 300, 320) as writer:
            writer.write_rows(0, codes)
    return paths, place


def results(place: Path) -> dict[str, list[str]]:
    return {kind: sorted(path.stem for path in (place / kind).iterdir()) for kind in (*KINDS, "predictions")}


def test_a_broken_band_file_stops_no_other_image_and_is_made_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, place = predicted(tmp_path, ["a", "b", "c"])
    assert own.finish_all(ensemble(), paths, place, CLEANING, None) == {}
    whole = {kind: ["a", "b", "c"] for kind in (*KINDS, "predictions")}
    assert results(place) == whole
    bands = place / "predictions" / "b.tif"
    content = bytearray(bands.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = b"\xff" * 2000
    bands.write_bytes(content)
    require_whole(bands)  # as long as it should be, so that only decoding tells
    failures = own.finish_all(ensemble(), paths, place, CLEANING, None)
    assert list(failures) == ["b"]
    assert "broken" in str(failures["b"])
    assert "b: left out: " in capsys.readouterr().err
    assert results(place) == {kind: ["a", "c"] for kind in whole}, "nor does an old result of it stay"


def test_an_image_that_is_gone_keeps_its_prediction(tmp_path: Path) -> None:
    paths, place = predicted(tmp_path, ["a", "b"])
    paths[0].write_bytes(b"no image")
    assert list(own.finish_all(ensemble(), paths, place, CLEANING, None)) == ["a"]
    assert results(place) == {**{kind: ["b"] for kind in KINDS}, "predictions": ["a", "b"]}


def test_what_is_made_of_a_prediction_is_forgotten_by_its_name(tmp_path: Path) -> None:
    paths, place = predicted(tmp_path, ["a", "ab"])
    own.finish_all(ensemble(), paths, place, CLEANING, None)
    forget(place, "a")
    forget(place, "unknown")
    assert results(place) == {**{kind: ["ab"] for kind in KINDS}, "predictions": ["a", "ab"]}


def test_progress_counts_the_pixels_that_are_predicted(tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (41, 100, 3), np.uint8))
    for scale in (1.0, 2.0):
        with closing(own.open_image(path, scale)) as source:
            assert own.own_job(path, scale, True, tmp_path).pixels == source.height * source.width
    path.write_bytes(b"no image")
    assert own.own_job(path, 2.0, True, tmp_path).pixels == 2, "its turn tells what is wrong with it"
