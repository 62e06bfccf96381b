"""The benchmark of slides measures what its rows say, and says when a row is missed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import bench_slides
import numpy as np
import pytest
import slide_memory
import slide_overhead
import torch
from slide_case import TILE, Case, PixelNet, draw_slide, free_member, settings_for
from slide_memory import Peak
from slide_overhead import Stopwatch
from verdicts import Row

from histofold.inference.bandfile import BandFile
from histofold.inference.member import Member
from histofold.kaggle import csv
from histofold.preprocess import Preprocess
from histofold.targets.foreground import Foreground

LAYOUT = "JPEG tiles"


class Hungry(PixelNet):
    """A network that needs 256 MiB for a forward pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The green channel; the memory is written to, as activations are."""
        return x[:, 1:2] + torch.ones(64 << 20)[0] * 0


class Ramp(PixelNet):
    """A network that says the same of each tile, whatever it shows: more and more to the right and down."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Where tiles overlap, the result is that of their weights."""
        line = torch.linspace(-3, 3, TILE)
        return (line[:, None] + line).expand(len(x), 1, TILE, TILE)


def a_member(network: torch.nn.Module) -> Member:
    return Member(network, Foreground(), Preprocess())


def a_row(ours: float, limit: float | None) -> Row:
    return Row("some row", "s", ours, "the peer", 4.0, "the floor", 2.0, limit)


def test_a_row_prints_ours_peer_ratio_floor_and_verdict() -> None:
    assert a_row(2.1, 1.08).cells() == [
        "some row", "2.1 s", "the peer", "4 s", "1.90 ×", "the floor", "2 s", "1.050 ×", "1.08 ×", "reached", "",
    ]  # fmt: skip
    assert a_row(2.2, 1.08).cells()[-2] == "NOT reached"
    assert a_row(2.2, None).cells()[-3:-1] == ["", "stated"]
    growth = Row("growth", "×", 1.2, "", 4.0, "none", 1.0, 1.05, absolute=True)
    assert growth.cells()[-3:-1] == ["1.05 ×", "NOT reached"]


def test_a_missed_row_is_exit_code_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def made(ours: float) -> None:
        monkeypatch.setattr(bench_slides, "rows_of", lambda *_: iter([a_row(2.0, 1.08), a_row(ours, 1.08)]))

    made(2.1)
    assert bench_slides.main([]) == 0
    made(2.2)
    assert bench_slides.main(["--json", str(tmp_path / "rows.json")]) == 1
    assert bench_slides.main(["--small"]) == 0
    assert '"reached": false' in (tmp_path / "rows.json").read_text()


def test_a_prediction_is_taken_apart_by_the_clock(tmp_path: Path) -> None:
    class Slow(PixelNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(0.05)
            return super().forward(x)

    case = Case(draw_slide(tmp_path / "slide.tif", 512, 512, LAYOUT), [a_member(Slow())], settings_for("cpu"))
    start = time.perf_counter()
    found = case.anatomy()
    whole = time.perf_counter() - start
    passes = len(case.batches())
    assert 0.05 * passes <= found.within < 0.05 * passes + 0.5
    assert min(found.before, found.between, found.after) >= 0
    assert found.before + found.between + found.within + found.after <= whole
    assert not case.members[0].network._forward_hooks


def test_memory_counts_what_the_network_needs(tmp_path: Path) -> None:
    slide = draw_slide(tmp_path / "slide.tif", 280, 300, LAYOUT)
    found = slide_memory.measure(slide, a_member(Hungry()), "cpu")
    assert found.more >= 256 << 20
    free = slide_memory.measure(slide, free_member(), "cpu")
    assert free.more < 128 << 20, "the peak of what ran before is forgotten"


def test_memory_rows_stream_with_the_real_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def apart(path: Path, network: str, device: str) -> Peak:
        asked.append((network, path))
        return Peak(1_000_000_000, 1_000_000_000 + (500_000_000, 550_000_000)[len(asked) % 2])

    monkeypatch.setattr(slide_memory, "apart", apart)
    monkeypatch.setattr(slide_memory, "draw_slide", lambda path, height, width, layout: Path(f"{height}x{width}"))
    made = slide_memory.rows(tmp_path, "cpu", [LAYOUT], 40_000, {"smp": (832,), "free": (1000, 4000)})
    real, low, high, growth = list(made)
    assert asked == [("smp", Path("832x40000")), ("free", Path("1000x40000")), ("free", Path("4000x40000"))]
    assert real.what == "memory, U-Net/ResNet-18, JPEG tiles, 40,000 px wide, 832 rows"
    assert (real.ours, real.limit, real.reached) == (550, 1200, True)
    assert (low.limit, high.limit) == (None, None)
    assert growth.value == pytest.approx(1.1), "growth is that of the row's own quantity, without the libraries"
    assert not growth.reached
    assert "1.033 ×" in growth.note


def test_usual_and_large_sizes_measure_memory_at_the_width_that_is_asked_for() -> None:
    for sizes in (bench_slides.USUAL, bench_slides.LARGE):
        assert sizes.width == slide_memory.WIDTH == 40_000
        assert "smp" in sizes.heights


def test_monai_blends_with_the_same_tiles_and_window(tmp_path: Path) -> None:
    slide = draw_slide(tmp_path / "slide.tif", 448, 700, LAYOUT)
    case = Case(slide, [a_member(Ramp())], settings_for("cpu"))
    case.ours()
    with BandFile(case.bands) as file:
        ours = file.band_uint8("foreground")
    theirs = case.monai()
    assert ours.std() > 20
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_monai_averages_members_and_views(tmp_path: Path) -> None:
    slide = draw_slide(tmp_path / "slide.tif", 256, 256, LAYOUT)
    case = Case(slide, [a_member(Ramp()), free_member()], settings_for("cpu", "flips"))
    case.ours()
    with BandFile(case.bands) as file:
        ours = file.band_uint8("foreground")
    assert np.abs(ours.astype(int) - case.monai()).max() <= 1


def test_a_stage_within_another_stops_its_clock() -> None:
    watch = Stopwatch()

    def read() -> Iterator[int]:
        for number in range(3):
            time.sleep(0.05)
            yield number

    def tile() -> Iterator[int]:
        for number in watch.items("read", read)():
            time.sleep(0.01)
            yield number

    for _ in watch.items("tile", tile)():
        time.sleep(0.2)  # what is done with an item belongs to no stage
    spent = sum(watch.seconds.values())
    assert watch.seconds["read"] >= 0.15
    assert 0.03 <= watch.seconds["tile"] < spent - 0.149
    assert watch.shares().startswith("read ")


def test_overhead_goes_through_to_a_validated_csv(tmp_path: Path) -> None:
    size = (300, 520)
    case = Case(draw_slide(tmp_path / "slide.tif", *size, LAYOUT), [free_member()], settings_for("cpu"), 2.0)
    watch, out = Stopwatch(), tmp_path / "ours.csv"
    text = slide_overhead.ours(case, size, out, watch)
    assert csv.read(out, slide_overhead.FORMAT) == [("slide", text)]
    assert slide_overhead.runs_in(out) == len(text.split()) // 2 > 0
    stages = {"read", "tile", "normalise and sigmoid", "blend", "write", "clean and encode", "CSV and validation"}
    assert set(watch.seconds) == stages
    assert min(watch.seconds.values()) > 0
    slide_overhead.notebook(case, size, tmp_path / "peer.csv")
    assert slide_overhead.runs_in(tmp_path / "peer.csv") > 0
