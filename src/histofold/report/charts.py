"""Small charts as inline SVG: accessible, and coloured by the page's style sheet, so that light and dark need one copy.

Every chart is drawn for a box about 440 units wide: readable across a phone's screen and on half of a wide one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

WIDTH, HEIGHT = 440, 260
Point = tuple[float, float]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from `low` to `high`, both within a step of the ends."""
    if not high > low:
        return [low]
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def number(value: float) -> str:
    """A short number for an axis: no trailing zeros, powers for the very small and large."""
    if value == 0:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e6:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def padded(values: Sequence[float], share: float = 0.06, floor: float = 1e-6) -> Point:
    """The range of finite `values` with some air around; (0, 1) when there is none."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    air = max((high - low) * share, floor, abs(high) * 1e-3)
    return low - air, high + air


@dataclass(frozen=True)
class Axis:
    """A linear axis with its label and the format of its numbers, or with marks `at` given places."""

    low: float
    high: float
    label: str = ""
    format: Callable[[float], str] = number
    count: int = 5
    at: tuple[tuple[float, str], ...] = ()

    def share(self, value: float) -> float:
        """Position of `value`, 0 at the low end and 1 at the high one."""
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def marks(self) -> list[tuple[float, str]]:
        """Places on the axis and what is written there."""
        if self.at:
            return [(place, text) for place, text in self.at if self.low <= place <= self.high]
        return [(value, self.format(value)) for value in ticks(self.low, self.high, self.count)]


@dataclass
class Chart:
    """Two axes and what is drawn between them; `render()` gives the SVG.

    `title` and `description` are read aloud by a screen reader in place of the picture.
    """

    title: str
    description: str
    x: Axis
    y: Axis
    width: int = WIDTH
    height: int = HEIGHT
    right: int = 12
    top: int = 10
    bottom: int = 42
    parts: list[Markup] = field(default_factory=list)

    @property
    def left(self) -> float:
        """Space for the numbers of the y axis and its label."""
        longest = max((len(text) for _, text in self.y.marks()), default=0)
        return 12 + 7.4 * longest + (16 if self.y.label else 0)

    def px(self, value: float) -> float:
        """Horizontal place of a value on the x axis."""
        return round(self.left + self.x.share(value) * (self.width - self.left - self.right), 1)

    def py(self, value: float) -> float:
        """Vertical place of a value on the y axis."""
        return round(self.height - self.bottom - self.y.share(value) * (self.height - self.top - self.bottom), 1)

    def line(self, points: Sequence[Point], style: str, label: str = "", dots: bool | None = None) -> None:
        """A line through the points, with dots where there are few of them; breaks at values that are not finite."""
        pieces, pen = [], "M"
        finite = [p for p in points if math.isfinite(p[1])]
        for x, y in points:
            if not math.isfinite(y):
                pen = "M"
                continue
            pieces.append(f"{pen}{self.px(x)} {self.py(y)}")
            pen = "L"
        path = "".join(pieces)
        self.parts.append(Markup('<path class="line {}" d="{}">{}</path>').format(style, path, _title(label)))
        if dots is None:
            dots = len(finite) <= 25
        if dots:
            self.dots(finite, style, label)

    def dots(self, points: Sequence[Point], style: str, label: str = "", radius: float = 2.6) -> None:
        """A dot with its numbers as tooltip at each point."""
        for x, y in points:
            text = f"{label}: {number(x)}, {y:.4g}" if label else f"{number(x)}, {y:.4g}"
            self.dot(x, y, style, text, radius)

    def dot(self, x: float, y: float, style: str, text: str, radius: float = 2.6) -> None:
        """One dot with `text` as tooltip."""
        form = Markup('<circle class="dot {}" cx="{}" cy="{}" r="{}">{}</circle>')
        self.parts.append(form.format(style, self.px(x), self.py(y), radius, _title(text)))

    def bar(self, x0: float, x1: float, value: float, style: str, text: str, base: float | None = None) -> None:
        """A bar from `base` (the axis by default) to `value` between x0 and x1."""
        top, foot = self.py(value), self.py(self.y.low if base is None else base)
        left, right = self.px(x0), self.px(x1)
        form = Markup('<rect class="bar {}" x="{}" y="{}" width="{}" height="{}">{}</rect>')
        size = (round(max(right - left - 1, 0.5), 1), round(max(foot - top, 0), 1))
        self.parts.append(form.format(style, left, top, *size, _title(text)))

    def area(self, lower: Sequence[Point], upper: Sequence[Point], style: str) -> None:
        """A tinted band between two lines."""
        points = [*upper, *reversed(lower)]
        path = "M" + "L".join(f"{self.px(x)} {self.py(y)}" for x, y in points) + "Z"
        self.parts.append(Markup('<path class="area {}" d="{}"/>').format(style, path))

    def rule_x(self, value: float, text: str, style: str = "") -> None:
        """A vertical line at `value` with a short text at its foot: what is chosen lies at the top of a curve."""
        place = self.px(value)
        flip = self.x.share(value) > 0.6
        form = Markup(
            '<line class="rule {}" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="note" x="{}" y="{}"{}>{}</text>'
        )
        anchor = Markup(' text-anchor="end"') if flip else ""
        foot = self.height - self.bottom
        shift = place - 5 if flip else place + 5
        self.parts.append(form.format(style, place, place, self.top, foot, shift, foot - 10, anchor, text))

    def segment(self, start: Point, end: Point, style: str = "") -> None:
        """A straight thin line between two points."""
        form = Markup('<line class="rule {}" x1="{}" y1="{}" x2="{}" y2="{}"/>')
        self.parts.append(form.format(style, self.px(start[0]), self.py(start[1]), self.px(end[0]), self.py(end[1])))

    def text(self, x: float, y: float, text: str, anchor: str = "start", dx: float = 0, dy: float = 0) -> None:
        """A short text at a point."""
        form = Markup('<text class="note" x="{}" y="{}" text-anchor="{}">{}</text>')
        self.parts.append(form.format(self.px(x) + dx, self.py(y) + dy, anchor, text))

    def render(self) -> Markup:
        """The chart as one `<svg>` element."""
        form = Markup(
            '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title><desc>{}</desc>'
            "{}{}</svg>"
        )
        body = Markup("").join(self.parts)
        title = f"{self.title}. {self.description}"
        return form.format(self.width, self.height, title, self.title, self.description, self._frame(), body)

    def _frame(self) -> Markup:
        """Grid lines, numbers and labels of both axes."""
        out: list[Markup] = []
        right, foot = self.width - self.right, self.height - self.bottom
        for value, text in self.y.marks():
            y = self.py(value)
            out.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(self.left, right, y, y))
            form = Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>')
            out.append(form.format(self.left - 6, y + 4, text))
        for value, text in self.x.marks():
            form = Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>')
            out.append(form.format(self.px(value), foot + 18, text))
        out.append(Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(self.left, right, foot, foot))
        middle = (self.left + right) / 2
        form = Markup('<text class="label" x="{}" y="{}" text-anchor="middle">{}</text>')
        out.append(form.format(middle, self.height - 4, self.x.label))
        if self.y.label:
            turned = Markup(
                '<text class="label" transform="translate(11 {}) rotate(-90)" text-anchor="middle">{}</text>'
            )
            out.append(turned.format((self.top + foot) / 2, self.y.label))
        return Markup("").join(out)


def whisker(mean: float, low: float, high: float, domain: Point, style: str = "s0", width: int = 150) -> Markup:
    """A dot with its interval on a shared scale, for a cell of a table; the numbers stand beside it in the table."""
    axis = Axis(*domain)
    x, a, b = (round(4 + axis.share(min(max(v, domain[0]), domain[1])) * (width - 8), 1) for v in (mean, low, high))
    form = Markup(
        '<svg class="whisker" viewBox="0 0 {} 18" aria-hidden="true"><line class="track" x1="4" x2="{}" y1="9" y2="9"/>'
        '<line class="span {}" x1="{}" x2="{}" y1="9" y2="9"/><circle class="dot {}" cx="{}" cy="9" r="4"/></svg>'
    )
    return form.format(width, width - 4, style, a, b, style, x)


def _title(text: str) -> Markup:
    """A tooltip, or nothing."""
    return Markup("<title>{}</title>").format(escape(text)) if text else Markup("")
