"""The SVG charts: round ticks, marks in their places, and text that cannot break out."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histofold.report.charts import Axis, Chart, number, padded, ticks, whisker
from histofold.report.plots import board, calibration, distributions, threshold
from histofold.report.stats import Reliability


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_even_and_inside(low: float, span: float) -> None:
    high = low + span
    values = ticks(low, high)
    assert 1 <= len(values) <= 9
    assert all(low - span * 1e-3 <= value <= high + span * 1e-3 for value in values)
    if len(values) > 2 and span > abs(low) * 1e-6:
        steps = np.diff(values)
        np.testing.assert_allclose(steps, steps[0], rtol=1e-3)


def test_ticks_of_usual_ranges() -> None:
    assert ticks(0, 1) == [0, 0.25, 0.5, 0.75, 1]
    assert ticks(0, 100, 6) == [0, 20, 40, 60, 80, 100]
    assert ticks(3, 3) == [3]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.25"), (12345, "12,345"), (0.0001, "1e-4"), (2e7, "2e7")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_padded_ignores_what_is_not_finite() -> None:
    low, high = padded([0.2, float("nan"), 0.8])
    assert low < 0.2 < 0.8 < high
    assert padded([float("inf")]) == (0.0, 1.0)


def chart() -> Chart:
    return Chart("A <b>title</b>", 'said "so" & more', Axis(0, 10, "x <y>"), Axis(0, 1, "y"))


def test_points_lie_where_the_axes_say() -> None:
    one = chart()
    one.dots([(0, 0), (10, 1)], "s0", "<i>")
    root = ElementTree.fromstring(one.render())
    first, last = root.findall("circle")
    assert (float(first.get("cx", 0)), float(first.get("cy", 0))) == (one.px(0), one.height - one.bottom)
    assert (float(last.get("cx", 0)), float(last.get("cy", 0))) == (one.width - one.right, one.top)
    assert first[0].text is not None
    assert first[0].text.startswith("<i>")


def test_text_is_escaped_and_the_svg_is_well_formed() -> None:
    one = chart()
    one.line([(0, 0.1), (5, float("nan")), (10, 0.9)], "s1", "</svg><script>")
    one.rule_x(8, "</text><script>alert(1)</script>")
    one.text(1, 1, "<script>")
    one.bar(1, 2, 0.5, "s2", "<script>")
    svg = one.render()
    assert "<script" not in svg
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label") == 'A <b>title</b>. said "so" & more'


def test_a_gap_breaks_the_line() -> None:
    one = chart()
    one.line([(0, 0.1), (2, 0.2), (5, float("nan")), (8, 0.5), (10, 0.9)], "s1")
    path = re.search(r'<path class="line s1" d="([^"]+)"', one.render())
    assert path is not None
    assert path.group(1).count("M") == 2
    assert path.group(1).count("L") == 2


def test_whisker_stays_on_its_track() -> None:
    root = ElementTree.fromstring(whisker(0.5, 0.2, 5.0, (0.0, 1.0)))
    span = root.findall("line")[1]
    assert float(span.get("x2", 0)) <= 146
    assert float(span.get("x1", 0)) >= 4


def test_threshold_marks_the_choice() -> None:
    assert "chosen 0.45" in threshold([(0.1, 0.2), (0.45, 0.8), (0.9, 0.1)], 0.45).svg
    assert "chosen" not in threshold([(0.1, 0.2), (0.45, 0.8)], None).svg.split("<desc>")[1].split("</desc>")[1]


def test_calibration_shows_a_dot_a_bin() -> None:
    figure = calibration(Reliability([0.1, 0.9], [0.2, 0.8], [100, 10], 0.1))
    assert len(ElementTree.fromstring(figure.svg).findall("circle")) == 2
    assert "0.100" in figure.note


def test_distributions_compare_shares() -> None:
    figure = distributions("Objects", "objects", {"a": [1, 2, 3], "b": [10] * 50}, log=True)
    assert [text for _, text in figure.legend] == ["a", "b"]
    ElementTree.fromstring(figure.svg)


def test_board_needs_a_cv_and_a_score() -> None:
    import pandas as pd

    columns = {"name": ["a", "b"], "cv": [0.5, 0.6], "public": [0.4, np.nan], "private": [np.nan, np.nan]}
    figure = board(pd.DataFrame(columns))
    assert figure is not None
    assert [text for _, text in figure.legend] == ["public"]
    assert len(ElementTree.fromstring(figure.svg).findall("circle")) == 1
    assert board(pd.DataFrame({**columns, "public": [np.nan, np.nan]})) is None
    assert board(pd.DataFrame({**columns, "cv": [np.nan, np.nan]})) is None
