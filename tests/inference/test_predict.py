"""Samples to files: whole or absent, resumed, and one bad one among many."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from histofold import models
from histofold.errors import ConfigError, DataError, ResourceError
from histofold.inference.bandfile import BandFile
from histofold.inference.member import Member
from histofold.inference.predict import Job, fingerprint_of, origin, predict_array, predict_sample, predict_samples
from histofold.inference.stream import ArraySource, Settings, SlideSource
from histofold.preprocess import Preprocess
from histofold.targets.foreground import Foreground

CHOSEN = Settings(tile=32, step=0.75, batch=4, device="cpu", precision="32-true")


def jobs_for(kit: Any, folder: Path, count: int) -> list[Job]:
    """Images of several sizes."""

    def opened(index: int) -> Any:
        return lambda: ArraySource(kit.tissue(40 + index, 50, index))

    return [Job(f"s{index}", opened(index), folder / f"s{index}.tif", (40 + index) * 50) for index in range(count)]


def test_file_holds_what_the_array_holds(kit: Any, tmp_path: Path) -> None:
    image = kit.tissue(70, 90)
    members = [kit.member(kit.WideNet(seed=1)), kit.member(kit.WideNet(seed=2))]
    told: list[int] = []
    source = ArraySource(image, scale=4.0, full_size=(278, 359))
    predict_sample(source, members, [3, 1], CHOSEN, tmp_path / "a.tif", "f00d", told.append)
    with BandFile(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.rows(0, 70), predict_array(image, members, [3, 1], CHOSEN))
        assert (file.scale, file.full_size, file.fingerprint) == (4.0, (278, 359), "f00d")
    assert sum(told) == 70 * 90


def test_whole_files_are_kept_and_others_made(kit: Any, tmp_path: Path) -> None:
    member = kit.member(kit.WideNet())
    first = predict_samples(jobs_for(kit, tmp_path, 3), [member], None, CHOSEN, "one")
    assert (first.made, first.kept, first.failures) == (("s0", "s1", "s2"), (), {})
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (tmp_path / "s1.tif").unlink()
    (tmp_path / ".s1.tif.123.partial").write_bytes(b"half")
    second = predict_samples(jobs_for(kit, tmp_path, 3), [member], None, CHOSEN, "one")
    assert (second.made, second.kept) == (("s1",), ("s0", "s2"))
    assert (tmp_path / "s0.tif").stat().st_mtime_ns == times[tmp_path / "s0.tif"]
    # Another ensemble or other settings: nothing of it is taken over.
    third = predict_samples(jobs_for(kit, tmp_path, 3), [member], None, CHOSEN, "two")
    assert third.made == ("s0", "s1", "s2")


def test_a_changed_input_is_predicted_anew(kit: Any, tmp_path: Path) -> None:
    member = kit.member(kit.WideNet())
    jobs = jobs_for(kit, tmp_path, 2)
    predict_samples(jobs, [member], None, CHOSEN, "one")
    changed = [jobs[0], replace(jobs[1], stamp="later")]
    assert predict_samples(changed, [member], None, CHOSEN, "one").made == ("s1",)
    assert predict_samples(changed, [member], None, CHOSEN, "one").made == ()


def test_what_is_still_to_do_is_told_before_the_first_is_opened(kit: Any, tmp_path: Path) -> None:
    member = kit.member(kit.WideNet())
    jobs = jobs_for(kit, tmp_path, 3)
    told: list[list[str]] = []

    def tell(todo: Any) -> None:
        told.append([job.sample_id for job in todo])

    def refuse(todo: Any) -> None:
        tell(todo)
        raise ResourceError("too little memory")

    with pytest.raises(ResourceError, match="too little memory"):
        predict_samples(jobs, [member], None, CHOSEN, "one", refuse)
    assert list(tmp_path.iterdir()) == []
    predict_samples(jobs[1:2], [member], None, CHOSEN, "one", tell)
    predict_samples(jobs, [member], None, CHOSEN, "one", tell)
    assert told == [["s0", "s1", "s2"], ["s1"], ["s0", "s2"]]
    predict_samples(jobs, [member], None, CHOSEN, "one", refuse)
    assert len(told) == 3, "nothing is left to do"


def test_a_broken_file_is_made_anew(kit: Any, tmp_path: Path) -> None:
    member = kit.member(kit.WideNet())
    jobs = jobs_for(kit, tmp_path, 1)
    jobs[0].out.write_bytes(b"II*\0")
    assert predict_samples(jobs, [member], None, CHOSEN).made == ("s0",)


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_file_that_was_cut_off_is_made_anew(kit: Any, tmp_path: Path, share: float) -> None:
    member, jobs = kit.member(kit.WideNet()), jobs_for(kit, tmp_path, 1)
    predict_samples(jobs, [member], None, CHOSEN, "one")
    whole = jobs[0].out.read_bytes()
    jobs[0].out.write_bytes(whole[: int(share * len(whole))])
    assert predict_samples(jobs, [member], None, CHOSEN, "one").made == ("s0",)
    assert jobs[0].out.read_bytes() == whole


def test_what_other_networks_made_is_gone_where_a_sample_fails_or_is_not_reached(kit: Any, tmp_path: Path) -> None:
    member, jobs = kit.member(kit.WideNet()), jobs_for(kit, tmp_path, 4)
    predict_samples(jobs, [member], None, CHOSEN, "one")

    def broken() -> ArraySource:
        raise DataError("s1.tiff: strip 7 is cut off")

    def killed() -> ArraySource:
        raise KeyboardInterrupt

    later = [jobs[0], replace(jobs[1], open=broken), replace(jobs[2], open=killed)]
    with pytest.raises(KeyboardInterrupt):
        predict_samples(later, [member], None, CHOSEN, "two")
    # s3 is a sample of another shard.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s0.tif", "s3.tif"]
    assert predict_samples(jobs[3:], [member], None, CHOSEN, "one").kept == ("s3",)


def test_what_cannot_be_read_at_the_moment_keeps_what_the_same_networks_made(kit: Any, tmp_path: Path) -> None:
    """A share that is not mounted: its stamp is not known, its prediction most likely right."""
    member, one, two = kit.member(kit.WideNet()), *(fingerprint_of([name], [1], CHOSEN) for name in ("one", "two"))
    jobs = [replace(job, stamp="beef") for job in jobs_for(kit, tmp_path, 1)]
    predict_samples(jobs, [member], None, CHOSEN, one)

    def away() -> ArraySource:
        raise OSError("stale file handle")

    unread = [replace(jobs[0], stamp="", open=away)]
    assert predict_samples(unread, [member], None, CHOSEN, one).failures
    assert predict_samples(jobs, [member], None, CHOSEN, one).kept == ("s0",)
    assert predict_samples(unread, [member], None, CHOSEN, two).failures
    assert not jobs[0].out.exists(), "that of other networks goes"


def test_a_refusal_leaves_what_is_there(kit: Any, tmp_path: Path) -> None:
    member, jobs = kit.member(kit.WideNet()), jobs_for(kit, tmp_path, 1)
    predict_samples(jobs, [member], None, CHOSEN, "one")

    def refuse(todo: Any) -> None:
        raise ResourceError("too little memory")

    with pytest.raises(ResourceError):
        predict_samples(jobs, [member], None, CHOSEN, "two", refuse)
    assert predict_samples(jobs, [member], None, CHOSEN, "one").kept == ("s0",)


def test_a_slide_that_asks_for_all_memory_stops_no_other(kit: Any, tmp_path: Path) -> None:
    slide = kit.FakeSlide(kit.tissue(64, 64))

    def bands(height: int, scale: float) -> Any:
        yield 0, slide.pixels[:32]
        raise MemoryError("4 EB")

    slide.bands = bands
    jobs = jobs_for(kit, tmp_path, 3)
    jobs[1] = Job("s1", lambda: SlideSource(slide), tmp_path / "s1.tif", 64 * 64)
    outcome = predict_samples(jobs, [kit.member(kit.WideNet())], None, CHOSEN)
    assert outcome.made == ("s0", "s2")
    with pytest.raises(DataError, match=r"fake.tiff: reading it asks for more memory than there is \(4 EB\)"):
        outcome.check()


def test_a_network_that_runs_out_of_memory_stops_all(kit: Any, tmp_path: Path) -> None:
    class Large(kit.WideNet):
        def forward(self, x: Any) -> Any:
            raise MemoryError("activations")

    with pytest.raises(MemoryError, match="activations"):
        predict_samples(jobs_for(kit, tmp_path, 2), [kit.member(Large())], None, CHOSEN)


def test_one_bad_sample_does_not_stop_the_others(kit: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> ArraySource:
        raise DataError("s1.tiff: strip 7 is cut off")

    slide = kit.FakeSlide(kit.tissue(64, 64))
    slide.height = 90
    jobs = jobs_for(kit, tmp_path, 4)
    jobs[1] = Job("s1", broken, tmp_path / "s1.tif", 100)
    jobs[2] = Job("s2", lambda: SlideSource(slide), tmp_path / "s2.tif", 90 * 64)
    slide.bands = lambda height, scale: iter([(0, slide.pixels)])
    outcome = predict_samples(jobs, [kit.member(kit.WideNet())], None, CHOSEN)
    assert outcome.made == ("s0", "s3")
    assert list(outcome.failures) == ["s1", "s2"]
    assert slide.closed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s0.tif", "s3.tif"]
    with pytest.raises(DataError, match=r"2 of 4 samples failed \(s1, s2\).*strip 7"):
        outcome.check()
    assert "s1: left out: s1.tiff: strip 7 is cut off" in capsys.readouterr().err


def test_trouble_for_all_is_raised_at_once(kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise ResourceError("the disk is full")

    monkeypatch.setattr("histofold.inference.predict.predict_sample", full)
    with pytest.raises(ResourceError, match="the disk is full"):
        predict_samples(jobs_for(kit, tmp_path, 2), [kit.member(kit.WideNet())], None, CHOSEN)


def test_an_error_of_a_network_comes_through_and_leaves_nothing(kit: Any, tmp_path: Path) -> None:
    class Broken(kit.WideNet):
        def forward(self, x: Any) -> Any:
            raise ZeroDivisionError("inside")

    with pytest.raises(ZeroDivisionError, match="inside"):
        predict_sample(ArraySource(kit.tissue(40, 40)), [kit.member(Broken())], None, CHOSEN, tmp_path / "a.tif")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys, time
from pathlib import Path
import numpy as np, rasterio, torch
from histofold import slides
from histofold.inference.member import Member
from histofold.inference.predict import Job, predict_samples
from histofold.inference.sources import SlideSource
from histofold.inference.stream import ArraySource, Settings
from histofold.preprocess import Preprocess
from histofold.targets.foreground import Foreground
class Slow(torch.nn.Conv2d):
    divisor = 8
    def forward(self, x):
        time.sleep(0.02)
        return super().forward(x)
torch.manual_seed(0)
member = Member(Slow(3, 1, 1), Foreground(), Preprocess())
image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
folder, slide = Path(sys.argv[1]), Path(sys.argv[2])
if not slide.exists():
    place = rasterio.transform.Affine(1, 0, 0, 0, -1, 300)
    size = {"height": 300, "width": 300, "count": 3, "dtype": "uint8", "transform": place}
    with rasterio.open(slide, "w", driver="GTiff", **size) as file:
        file.write(image.transpose(2, 0, 1))
def source():
    return SlideSource(slides.open(slide)) if sys.argv[3] == "slide" else ArraySource(image)
jobs = [Job(str(i), source, folder / f"{i}.tif", image.size // 3) for i in range(6)]
settings = Settings(tile=64, step=0.5, batch=8, device="cpu", precision="32-true")
outcome = predict_samples(jobs, [member], None, settings, "same")
print(len(outcome.kept), len(outcome.made))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["image", "slide"])
def test_killed_at_any_moment_it_goes_on(kit: Any, tmp_path: Path, kind: str) -> None:
    whole, broken, more = tmp_path / "whole", tmp_path / "broken", (str(tmp_path / "slide.tif"), kind)
    kit.run_python(KILLED, str(whole), *more).check_returncode()
    for _ in range(2):
        command = [sys.executable, "-c", KILLED, str(broken), *more]
        before = len(list(broken.glob("[0-9].tif")))
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=kit.child_environment())
        deadline = time.monotonic() + 120
        while len(list(broken.glob("[0-9].tif"))) < before + 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = kit.run_python(KILLED, str(broken), *more)
    kept, made = map(int, done.stdout.split())
    assert kept >= 4
    assert kept + made == 6
    for path in sorted(whole.glob("[0-9].tif")):
        assert (broken / path.name).read_bytes() == path.read_bytes()


def test_a_file_says_what_it_was_made_from(kit: Any, tmp_path: Path) -> None:
    member, jobs = kit.member(kit.WideNet()), [replace(job, stamp="beef") for job in jobs_for(kit, tmp_path, 1)]
    fingerprint = fingerprint_of(["a"], [1], CHOSEN)
    predict_samples(jobs, [member], None, CHOSEN, fingerprint)
    assert origin(jobs[0].out) == (*fingerprint.split("-"), "beef")
    predict_samples(jobs, [member], None, CHOSEN, "0123456789abcdef")
    assert origin(jobs[0].out) is None, "as files were before"


def smp_member(arch: str) -> Member:
    """A member around an untrained network whose normalisation has seen noise, so that its output varies."""
    torch.manual_seed(0)
    network = models.build("smp", 1, arch=arch, encoder="resnet18")
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(2, 3, 128, 128))
    return Member(network, Foreground(), Preprocess()).eval().requires_grad_(False)


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("size", "tta"), [((300, 30), "none"), ((30, 300), "dihedral")])
def test_narrow_images_are_alike_in_bfloat16(size: tuple[int, int], tta: str) -> None:
    """Some CPUs compute strided convolutions to maps of one column wrongly, and never twice the same."""
    member, chosen = smp_member("Unet"), replace(CHOSEN, tile=256, tta=tta)
    exact, first, second = (
        predict_array(noise(*size), [member], None, replace(chosen, precision=precision)).astype(int)
        for precision in ("32-true", "bf16-mixed", "bf16-mixed")
    )
    assert np.abs(exact - first).max() <= 10 < np.ptp(exact)
    np.testing.assert_array_equal(first, second)


def test_a_network_that_needs_large_inputs_predicts_small_images(tmp_path: Path) -> None:
    member, chosen = smp_member("PAN"), replace(CHOSEN, tile=128)
    sizes = ((96, 96), (7, 300), (1, 1))
    jobs = [
        Job(f"s{height}", partial(ArraySource, noise(height, width)), tmp_path / f"s{height}.tif", height * width)
        for height, width in sizes
    ]
    assert predict_samples(jobs, [member], None, chosen).failures == {}
    padded = np.pad(noise(96, 96), ((16, 16), (16, 16), (0, 0)), mode="reflect")
    with BandFile(tmp_path / "s96.tif") as file:
        inner = predict_array(padded, [member], None, chosen)[:, 16:112, 16:112]
        np.testing.assert_allclose(file.rows(0, 96).astype(int), inner, atol=1)
    with pytest.raises(ConfigError, match=r"predict.tile=112: these networks need 128 pixels or more; try 128"):
        predict_array(noise(9, 9), [member], None, replace(chosen, tile=112))


def test_fingerprints_tell_networks_and_settings_apart() -> None:
    networks, settings = fingerprint_of(["a"], [1], CHOSEN).split("-")
    assert fingerprint_of(["b"], [1], CHOSEN).split("-")[1] == settings
    other = fingerprint_of(["a"], [1], replace(CHOSEN, tta="flips", skip_background=False)).split("-")
    assert (other[0], other[1] != settings) == (networks, True)
    # What an ensemble was evaluated with is its own, as its networks are.
    for own in (replace(CHOSEN, size=36), replace(CHOSEN, spread=True)):
        assert fingerprint_of(["a"], [1], own).split("-")[1] == settings
        assert fingerprint_of(["a"], [1], own).split("-")[0] != networks


def test_fingerprints_tell_what_matters() -> None:
    base = fingerprint_of(["a", "b"], [1, 1], CHOSEN)
    assert fingerprint_of(["a", "b"], [1, 1], Settings(32, 0.75, batch=9, device="auto")) == base
    assert fingerprint_of(["a", "c"], [1, 1], CHOSEN) != base
    assert fingerprint_of(["a", "b"], [1, 2], CHOSEN) != base
    assert fingerprint_of(["a", "b"], [1, 1], Settings(32, 0.75, tta="flips")) != base
