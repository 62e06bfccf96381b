"""The page in a real browser: no complaints, filters and keys work, it fits phones and wide screens, light and dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import pytest

from histofold.competitions.base import Competition
from histofold.report.run import build

SHOWN = "[...document.querySelectorAll('#oof .card')].filter(card => card.offsetParent !== null)"
SIZES = [(390, False), (390, True), (1600, False), (1600, True)]


@pytest.fixture
def page(competition: Competition, full: tuple[Path, Path]) -> Path:
    return build(competition, *full, workers=1)


@pytest.mark.parametrize(("width", "dark"), SIZES)
def test_it_fits_and_complains_about_nothing(browser: Any, page: Path, width: int, dark: bool, tmp_path: Path) -> None:
    browser.open(page, width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") == width
    outside = """[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && !e.closest('svg')
        && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
    assert browser.run(outside) == []
    assert browser.complaints() == []
    browser.picture(tmp_path / "page.png")
    paper = cv2.imread(str(tmp_path / "page.png"))[80:, :6].mean()
    assert paper < 60 if dark else paper > 220


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_contrast(browser: Any, page: Path, dark: bool) -> None:
    browser.open(page, dark=dark)
    script = """(() => {
      const light = rgb => { const [r, g, b] = rgb.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
        .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
      const paper = light(getComputedStyle(document.body).backgroundColor);
      const ratio = c => { const l = light(c); return (Math.max(l, paper) + .05) / (Math.min(l, paper) + .05); };
      return ['h1', '.lead', '.hint', '.strong', 'small', 'thead th', 'nav a'].map(s =>
        [s, ratio(getComputedStyle(document.querySelector(s)).color)]).filter(([, r]) => r < 4.5); })()"""
    assert browser.run(script) == []


def test_the_filters_work(browser: Any, page: Path) -> None:
    browser.open(page)
    pick = "(name, value) => { const box = document.querySelector(`#oof [name=${name}]`); box.value = value;"
    pick += " box.dispatchEvent(new Event('input', {bubbles: true})); }"
    browser.run(f"window.pick = {pick}")
    assert browser.run(f"{SHOWN}.length") == 12
    browser.run("pick('stratum', 'dark')")
    assert browser.run(f"{SHOWN}.map(card => card.dataset.stratum)") == ["dark"] * 4
    browser.run("pick('fold', '1')")
    assert 0 < browser.run(f"{SHOWN}.length") < 4
    assert set(browser.run(f"{SHOWN}.map(card => card.dataset.fold)")) == {"1"}
    assert browser.run("document.querySelector('#oof .count').textContent").startswith(
        str(browser.run(f"{SHOWN}.length"))
    )
    browser.run("pick('fold', ''), pick('stratum', '')")
    options = browser.run("[...document.querySelectorAll('#oof [name=stratum] option')].map(o => o.value)")
    nasty = max(options, key=len)
    assert nasty.startswith("<script>")
    browser.run(f"pick('stratum', {nasty!r})")
    assert browser.run(f"{SHOWN}.length") == 4
    browser.run("pick('stratum', ''), pick('find', 'TRAIN_07')")
    assert browser.run(f"{SHOWN}.map(card => card.dataset.id)") == ["train_07"]
    browser.run("pick('find', 'nothing like this')")
    assert browser.run("document.querySelector('#oof .none').offsetParent !== null")
    assert browser.complaints() == []


def test_a_long_gallery_comes_in_pages(browser: Any, page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "PAGE_SIZE = 60" in text
    short = tmp_path / "short.html"
    short.write_text(text.replace("PAGE_SIZE = 60", "PAGE_SIZE = 5"), encoding="utf-8")
    browser.open(short)
    assert browser.run(f"{SHOWN}.length") == 5
    assert browser.run("document.querySelector('#oof .count').textContent").startswith("12 of 12")
    assert browser.run("document.querySelector('#oof .more').textContent") == "Show the other 7"
    browser.run("document.querySelector('#oof .card .frame').click()")
    browser.press("ArrowLeft")
    last = browser.run("[...document.querySelectorAll('#oof .card')].at(-1).dataset.id")
    assert browser.run("document.querySelector('#viewer .id').textContent") == last, "the viewer walks through all"
    browser.press("Escape")
    browser.run("document.querySelector('#oof .more').click()")
    assert browser.run(f"{SHOWN}.length") == 12
    assert browser.run("document.querySelector('#oof .more').hidden")


def test_the_order_turns_round(browser: Any, page: Path) -> None:
    browser.open(page)
    scores = f"{SHOWN}.map(card => Number(card.dataset.score))"
    worst = browser.run(scores)
    assert worst == sorted(worst)
    turn = "const box = document.querySelector('#oof [name=order]'); box.value = 'best';"
    browser.run(turn + "box.dispatchEvent(new Event('input', {bubbles: true}))")
    assert browser.run(scores) == sorted(worst, reverse=True)


def test_layers_hide_and_show(browser: Any, page: Path) -> None:
    browser.open(page)
    drawn = "(name) => getComputedStyle(document.querySelector(`#oof .${name}`)).display !== 'none'"
    browser.run(f"window.drawn = {drawn}")
    names = ("o-truth", "o-pred", "o-missed", "o-false")
    assert [browser.run(f"drawn('{name}')") for name in names] == [True, True, False, False]
    browser.run("document.querySelectorAll('#oof .controls input[type=checkbox]').forEach(box => box.click())")
    assert [browser.run(f"drawn('{name}')") for name in names] == [False, False, True, True]


def test_enlarging_by_mouse_and_keys(browser: Any, page: Path) -> None:
    browser.open(page)
    shown = "document.querySelector('#viewer .id').textContent"
    ids = browser.run(f"{SHOWN}.map(card => card.dataset.id)")
    browser.run("document.querySelector('#oof .card .frame').focus()")
    browser.press("Enter")
    assert browser.run("document.getElementById('viewer').open")
    assert browser.run(shown) == ids[0]
    browser.press("ArrowRight")
    assert browser.run(shown) == ids[1]
    browser.press("ArrowLeft")
    browser.press("ArrowLeft")
    assert browser.run(shown) == ids[-1], "it goes round"
    assert browser.run("document.querySelector('#viewer .stage img').naturalWidth") == 64
    browser.press("d")
    assert browser.run("document.getElementById('viewer').classList.contains('show-diff')")
    browser.press("t")
    assert browser.run("document.getElementById('viewer').classList.contains('hide-truth')")
    browser.press("Escape")
    assert not browser.run("document.getElementById('viewer').open")
    browser.run("new Promise(done => setTimeout(done, 200))")  # the event that the dialog was closed comes later
    assert browser.run("document.activeElement.closest('.card').dataset.id") == ids[-1], "focus comes back to the card"
    browser.run("document.querySelectorAll('#oof .card .frame')[2].click()")
    assert browser.run(shown) == ids[2]
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [390, 1600])
def test_the_viewer_fits_and_outlines_lie_on_the_picture(browser: Any, page: Path, width: int) -> None:
    browser.open(page, width, 844)
    browser.run("document.querySelector('#oof .card .frame').click()")
    inside = """[...document.querySelectorAll('#viewer button, #viewer .stage, #viewer .chip')].every(e => {
        const box = e.getBoundingClientRect();
        return box.left >= 0 && box.right <= innerWidth && box.top >= 0 && box.bottom <= innerHeight; })"""
    assert browser.run(inside)
    # The box of the outlines and the picture's own place must be one, whatever the shape of the stage.
    script = """(() => { const stage = document.querySelector('#viewer .stage'), svg = stage.querySelector('svg');
      const m = svg.getScreenCTM(), box = stage.getBoundingClientRect(), image = stage.querySelector('img');
      const scale = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
      const left = box.left + (box.width - image.naturalWidth * scale) / 2;
      return [m.e - left, m.a * svg.viewBox.baseVal.width - image.naturalWidth * scale]; })()"""
    assert browser.run(script) == pytest.approx([0, 0], abs=1.5)


def test_without_javascript_everything_is_there(browser: Any, page: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        nodes = browser.call("DOM.getDocument", depth=-1)["root"]
        cards = browser.call("DOM.querySelectorAll", nodeId=nodes["nodeId"], selector="#oof .card")["nodeIds"]
        assert len(cards) == 12
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("width", [390, 800, 1600])
def test_words_in_charts_can_be_read(browser: Any, page: Path, width: int) -> None:
    browser.open(page, width)
    script = """[...document.querySelectorAll('.chart text')].filter(e => e.checkVisibility()).map(e => {
        const scale = e.getScreenCTM(), size = parseFloat(getComputedStyle(e).fontSize);
        return size * Math.hypot(scale.a, scale.b); })"""
    sizes = browser.run(script)
    assert len(sizes) > 20
    assert min(sizes) >= 10
