"""The plan: it counts what is then done, and holds what is then needed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from histofold import limits
from histofold.errors import ResourceError
from histofold.inference import planning
from histofold.inference.planning import SampleSize
from histofold.inference.predict import predict_array
from histofold.inference.stream import Settings


@pytest.mark.parametrize(("height", "width"), [(20, 30), (64, 64), (65, 200), (300, 129)])
def test_tiles_are_counted_as_they_are_cut(kit: Any, height: int, width: int) -> None:
    network = kit.PixelNet()
    chosen = Settings(tile=64, step=0.6, margin=8, batch=5, device="cpu")
    predict_array(kit.tissue(height, width), [kit.member(network)], None, chosen)
    counted = planning.tile_count((height, width), [kit.member(network)], chosen)
    assert counted == sum(shape[0] for shape in network.seen)


def slides(*sizes: tuple[int, int], reading: int = 0) -> list[SampleSize]:
    return [SampleSize(height, width, True, reading) for height, width in sizes]


def test_plan_grows_with_the_work(kit: Any) -> None:
    members = [kit.member(kit.WideNet())]
    chosen = Settings(tile=64, batch=4, device="cpu")
    one = planning.plan(slides((4000, 3000)), 1.0, members, chosen)
    two = planning.plan(slides((4000, 3000), (4000, 3000)), 1.0, members, chosen)
    reduced = planning.plan(slides((4000, 3000)), 4.0, members, chosen)
    assert two.disk == 2 * one.disk
    assert one.disk == pytest.approx(16 * reduced.disk, rel=0.01)
    assert two.seconds > one.seconds
    assert one.peak_memory > reduced.peak_memory - (1 << 26)


def test_readers_of_slides_and_the_opening_of_images_are_counted(kit: Any) -> None:
    members = [kit.member(kit.WideNet())]
    chosen = Settings(tile=64, batch=4, device="cpu")
    sizes = slides((4000, 3000), (400, 300), reading=1 << 30)
    more = [planning.held_bytes(one, 1.0, members, chosen) for one in (sizes[0], slides((4000, 3000))[0])]
    assert more[0] - more[1] == 1 << 30
    peaks = [planning.plan(given, 1.0, members, chosen).peak_memory for given in (sizes, sizes[:1])]
    assert peaks[0] == pytest.approx(peaks[1], abs=1 << 26), "one sample is open at a time"
    # Reduced 8 times it streams in next to nothing, but its file is decoded whole.
    assert planning.held_bytes(SampleSize(4000, 3000), 8.0, members, chosen) >= 3 * 4000 * 3000


def test_the_trial_is_no_larger_than_the_batches_of_the_samples(kit: Any) -> None:
    def shapes(sizes: list[SampleSize], **more: Any) -> set[tuple[int, ...]]:
        network = kit.PixelNet()
        chosen = Settings(**{"tile": 256, "batch": 8, "device": "cpu", **more})
        planning.plan(sizes, 1.0, [kit.member(network)], chosen)
        return set(network.seen)

    assert shapes([SampleSize(60, 90)]) == {(1, 3, 64, 96)}
    assert shapes([SampleSize(60, 90), SampleSize(200, 90)], tta="flips") == {(4, 3, 200, 96)}
    assert shapes([SampleSize(300, 300), SampleSize(60, 60)]) == {(4, 3, 256, 256)}
    assert shapes([SampleSize(2000, 2000)]) == {(8, 3, 256, 256)}
    assert shapes([SampleSize(60, 60)], size=30) == {(1, 3, 240, 240)}, "magnified 4 times at most"


def test_the_trial_sends_no_more_at_once_than_a_batch(kit: Any) -> None:
    """Else nothing would become smaller where a smaller batch is tried because the memory did not suffice."""
    members = [kit.member(kit.PixelNet())]
    for batch in (8, 3, 1):
        members[0].network.seen.clear()
        planning.try_out(members, Settings(tile=16, batch=batch, tta="dihedral", device="cpu"))
        assert max(shape[0] for shape in members[0].network.seen) <= batch


def test_small_images_take_less_time_than_full_tiles(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "try_out", lambda members, settings, batch: planning.Trial(1.0, 0))
    chosen = Settings(tile=256, device="cpu")
    members = [kit.member(kit.PixelNet())]
    small, large = SampleSize(64, 64), SampleSize(256, 256)
    assert planning.plan([small] * 10, 1.0, members, chosen).seconds == pytest.approx(10)
    assert planning.plan([large], 1.0, members, chosen).seconds == pytest.approx(1)
    assert planning.plan([large, *[small] * 16], 1.0, members, chosen).seconds == pytest.approx(2)


def test_a_peak_of_earlier_work_does_not_count(kit: Any) -> None:
    done = kit.run_python(
        "import numpy as np\n"
        "from histofold.inference import planning\n"
        "held = np.ones(300 << 20, np.uint8)\n"
        "high = planning.resident_peak()\n"
        "del held\n"
        "planning.forget_peak()\n"
        "print(high - planning.resident_peak(), planning.resident_peak() - planning.resident())\n"
    )
    assert done.returncode == 0, done.stderr
    given_back, above = map(int, done.stdout.split())
    assert given_back > 250 << 20
    assert 0 <= above < 32 << 20


def test_streaming_does_not_grow_with_height_and_images_do(kit: Any) -> None:
    members = [kit.member(kit.WideNet())]
    chosen = Settings(tile=64, batch=4, device="cpu")
    low, high = (planning.streaming_bytes((h, 5000), members, chosen, whole=False) for h in (1000, 100_000))
    assert low == high
    low, high = (planning.streaming_bytes((h, 5000), members, chosen, whole=True) for h in (1000, 2000))
    assert high - low == 2 * 3 * 1000 * 5000


def test_what_does_not_fit_is_refused_with_advice(kit: Any) -> None:
    members = [kit.member(kit.WideNet())]
    found = planning.plan(slides((40_000, 40_000)), 1.0, members, Settings(tile=64, device="cpu"))
    with pytest.raises(ResourceError, match=r"predict would need memory .*smaller predict\.tile"):
        found.check(limits.Limits(memory=1000, disk=1 << 50))
    with pytest.raises(ResourceError, match=r"predict would need time .*predict\.tta"):
        found.check(limits.Limits(memory=1 << 50, disk=1 << 50, seconds=0.001))


MEASURED = """
import json, sys
from pathlib import Path
import numpy as np, torch
from histofold.inference import planning
from histofold.inference.member import Member
from histofold.inference.predict import predict_sample
from histofold.inference.settings import Settings
from histofold.inference.sources import SlideSource
from histofold.preprocess import Preprocess
from histofold.targets.foreground import Foreground
class Slide:
    path, width = Path("fake.tiff"), 12_000
    def __init__(self, height): self.height = height
    def bands(self, height, scale):
        for top in range(0, self.height, height):
            rows = np.empty((min(height, self.height - top), self.width, 3), np.uint8)
            rows[:] = (200, 90, 150)
            yield top, rows
class Net(torch.nn.Conv2d):
    divisor = 8
torch.set_num_threads(1)
member = Member(Net(3, 1, 1), Foreground(), Preprocess())
settings = Settings(tile=128, batch=8, device="cpu")
planning.try_out([member], settings)
before = planning.resident_peak()
source = SlideSource(Slide(int(sys.argv[1])))
predict_sample(source, [member], None, settings, Path(sys.argv[2]))
expected = planning.streaming_bytes((source.height, source.width), [member], settings, whole=False)
print(json.dumps([planning.resident_peak() - before, expected]))
"""


@pytest.mark.slow
def test_memory_does_not_depend_on_height_and_stays_within_the_plan(kit: Any, tmp_path: Any) -> None:
    found = []
    for height in (1000, 4000):
        done = kit.run_python(MEASURED, str(height), str(tmp_path / "a.tif"))
        assert done.returncode == 0, done.stderr
        more, expected = json.loads(done.stdout)
        assert more <= expected
        found.append(more)
    assert found[1] <= 1.1 * found[0] + (8 << 20)
