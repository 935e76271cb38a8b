"""The page in a real Chromium: silent, offline, clickable, readable on a phone and on a wide screen, in both themes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nas.read.report.gather import gather
from nas.read.report.page import write_report
from nas.store.database import Store
from tests.nas.read.report.browser import Page, browser, chromium
from tests.nas.read.report.generated import empty_study, full_study
from tests.nas.read.report.test_page import HOSTILE

pytestmark = pytest.mark.slow

WIDTHS = (400, 1600)
LAST_POINT = "[...document.querySelectorAll('.mark.front[tabindex]')].at(-1)"

# Contrast of every text with what lies behind it, by WCAG 2: 4.5, or 3 for large text. Texts of ::before count, too.
CONTRAST = """
(() => {
  const number = text => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3])).concat(1);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const style = getComputedStyle(e);
      if (Number(style.opacity) !== 1) throw new Error("opacity at " + e.outerHTML.slice(0, 80));
      layers.push(number(style.backgroundColor));
    }
    return layers.reduceRight((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const found = [], seen = new Set();
  const check = (element, style, text) => {
    const back = behind(element), svg = element.namespaceURI.endsWith("svg");
    const ink = over(number(svg ? style.fill : style.color), back);
    const [a, b] = [light(ink), light(back)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push([text.trim().slice(0, 40), element.tagName, ratio.toFixed(2)]);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.data;
    if (!text.trim() || /^(script|style)$/i.test(element.tagName) || !element.getClientRects().length) continue;
    check(element, getComputedStyle(element), text);
    seen.add(element);
  }
  for (const element of document.querySelectorAll("[data-h]")) {
    const style = getComputedStyle(element, "::before");
    if (style.content !== "none") check(element, style, element.dataset.h);
  }
  return {found, texts: seen.size};
})()
"""

# Texts of the axes of one chart that cover one another.
OVERLAPS = """
(() => {
  const found = [];
  for (const axis of document.querySelectorAll(".plot .axis")) {
    const texts = [...axis.querySelectorAll("text")].map(e => [e.textContent, e.getBoundingClientRect()]);
    texts.forEach(([a, p], i) => texts.slice(i + 1).forEach(([b, q]) => {
      const beside = p.right <= q.left || q.right <= p.left, above = p.bottom - 1 <= q.top || q.bottom - 1 <= p.top;
      if (p.width && q.width && !beside && !above) found.push([a, b]);
    }));
  }
  return found;
})()
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    chromium()
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    return written(full_study(folder / "study.db", trials=45), folder / "report.html")


def written(store: Store, path: Path) -> Path:
    write_report(gather(store), path)
    store.close()
    return path


def assert_silent_and_offline(page: Page) -> None:
    """Nothing on the console, and nothing asked for but the file itself."""
    said = page.heard("Runtime.consoleAPICalled") + page.heard("Runtime.exceptionThrown") + page.heard("Log.entryAdded")
    assert said == []
    asked = [event["request"]["url"] for event in page.heard("Network.requestWillBeSent")]
    assert len(asked) == 1 and asked[0].startswith("file:///")


def centre(page: Page, element: str) -> tuple[float, float]:
    """The middle of an element, scrolled into sight."""
    page.run("document.documentElement.style.scrollBehavior = 'auto'")
    page.run(f"{element}.scrollIntoView({{block: 'center'}})")
    x, y = page.run(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({element}.getBoundingClientRect())")
    return x, y


def panel(page: Page) -> str | None:
    """The text of the panel, if it is open."""
    text: str | None = page.run("(p => p.hidden ? null : p.innerText)(document.getElementById('panel'))")
    return text


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_opens_without_a_word_on_the_console_and_without_a_request(
    page: Page, full: Path, width: int, dark: bool
) -> None:
    page.open(full, width=width, dark=dark)
    assert page.run("document.querySelectorAll('main section').length") == 12
    for expression in (f"{LAST_POINT}", "document.querySelector('.curves .plot')", "document.querySelector('.forest')"):
        page.move(*centre(page, expression))
    assert_silent_and_offline(page)


@pytest.mark.parametrize("width", [360, *WIDTHS])
def test_texts_of_axes_do_not_cover_one_another(page: Page, full: Path, width: int) -> None:
    page.open(full, width=width)
    page.run("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.run("document.querySelectorAll('.plot .axis').length") > 5
    assert page.run(OVERLAPS) == []


@pytest.mark.parametrize("width", WIDTHS)
def test_a_click_on_a_point_of_the_front_shows_its_blocks(page: Page, full: Path, width: int) -> None:
    page.open(full, width=width)
    assert panel(page) is None
    place = centre(page, LAST_POINT)
    page.move(*place)
    tip = page.run("document.getElementById('tip').innerText")
    page.click(*place)
    text = panel(page) or ""
    digest = page.run("document.querySelector('#panel dd.digest').textContent")
    assert digest[:10] in tip and "top-1" in tip and "MACs" in tip
    assert "Blocks" in text and "stages.3.blocks.1" in text and f"nas show {digest[:10]}" in text
    assert page.run("document.querySelectorAll('#panel table')[1].rows.length") > 5
    assert page.run("document.documentElement.scrollWidth") <= width
    page.key("Escape")
    assert panel(page) is None
    assert_silent_and_offline(page)


def test_every_point_and_every_row_opens_the_network_that_it_stands_for(page: Page, full: Path) -> None:
    page.open(full, width=1600)
    wrong = page.run(
        """(() => {
          const networks = JSON.parse(document.getElementById("payload").textContent).networks, wrong = [];
          for (const button of document.querySelectorAll("button.network")) {
            button.click();
            const digest = document.querySelector("#panel dd.digest").textContent;
            if (!digest.startsWith(button.querySelector("code")?.textContent ?? "")) wrong.push(digest);
          }
          for (const mark of document.querySelectorAll(".mark[role=button]")) {
            mark.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter"}));
            const digest = document.querySelector("#panel dd.digest").textContent;
            if (digest !== networks[mark.dataset.n].digest) wrong.push(digest);
          }
          return wrong;
        })()"""
    )
    assert wrong == []
    assert_silent_and_offline(page)


def test_the_keyboard_alone_reaches_the_front_its_neighbours_and_the_blocks(page: Page, full: Path) -> None:
    page.open(full, width=1600)
    page.run("document.querySelector('#front h2').scrollIntoView()")
    page.run("document.querySelector('.toc a:last-of-type').focus()")
    for _ in range(40):
        page.key("Tab")
        if page.run("document.activeElement.classList.contains('front')"):
            break
    assert page.run("document.activeElement.classList.contains('front')")
    assert "top-1" in page.run("document.getElementById('tip').innerText")
    first = page.run("document.activeElement.getAttribute('aria-label')")
    page.key("ArrowRight")
    assert page.run("document.activeElement.getAttribute('aria-label')") != first
    label = page.run("document.activeElement.getAttribute('aria-label')")
    page.key("Enter")
    assert label.split(";")[0] in (panel(page) or "")
    page.key("Escape")
    assert panel(page) is None
    assert page.run("document.activeElement.getAttribute('aria-label')") == label


@pytest.mark.parametrize("width", [360, *WIDTHS])
def test_nothing_needs_scrolling_sideways_but_wide_tables_within_themselves(page: Page, full: Path, width: int) -> None:
    page.open(full, width=width)
    page.run("for (const d of document.querySelectorAll('details')) d.open = true")
    assert page.run("document.documentElement.scrollWidth") <= width
    outside = page.run(
        f"""[...document.querySelectorAll("main *")].filter(e => !e.closest(".scroll, svg") &&
             e.getClientRects().length && e.getBoundingClientRect().right > {width})
             .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert outside == []
    small = page.run(
        """[...document.querySelectorAll("main *, main text")].filter(e => e.childElementCount === 0 &&
           e.textContent.trim() && parseFloat(getComputedStyle(e).fontSize) < 12).map(e => e.outerHTML.slice(0, 80))"""
    )
    assert small == []
    if width == 1600:
        assert page.run("document.querySelector('.tall .plot').getBoundingClientRect().width") > 700
    else:
        assert page.run("document.querySelector('.tall .plot').getBoundingClientRect().width") > 0.65 * width


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_text_has_the_contrast_of_wcag_aa(page: Page, full: Path, width: int, dark: bool) -> None:
    page.open(full, width=width, dark=dark)
    page.run("for (const d of document.querySelectorAll('details')) d.open = true")
    place = centre(page, LAST_POINT)
    page.click(*place)
    page.move(place[0] + 1, place[1])
    result = page.run(CONTRAST)
    assert result["found"] == []
    assert result["texts"] > 400
    background = page.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 200) == dark


def test_the_measure_of_contrast_finds_a_pale_text(page: Page, full: Path) -> None:
    page.open(full, width=1600)
    page.run("document.querySelector('h1').style.color = '#b0b0b0'")
    assert [text for text, *_ in page.run(CONTRAST)["found"]] == ["demo"]


def test_the_theme_can_be_changed_and_is_remembered(page: Page, full: Path) -> None:
    dark = "(c => c[0] + c[1] + c[2] < 200)(getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number))"
    page.open(full, width=1600)
    assert page.run(dark) is False
    page.click(*centre(page, "document.getElementById('theme')"))
    assert page.run(dark) is True
    page.open(full, width=1600)
    assert page.run(dark) is True
    page.run("localStorage.clear()")
    page.open(full, width=1600)
    assert page.run(dark) is False


def test_it_prints_on_white_without_buttons_and_contents(page: Page, full: Path) -> None:
    page.open(full, width=1600, dark=True)
    page.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    shown = "[...document.querySelectorAll('.toc, #theme, #panel, #tip')].filter(e => e.getClientRects().length).length"
    assert page.run(shown) == 0
    assert page.run(CONTRAST)["found"] == []
    pdf = page.pdf()
    page.call("Emulation.setEmulatedMedia", media="")
    assert pdf.startswith(b"%PDF")
    assert 3 <= pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") <= 20


def test_hostile_texts_do_nothing_in_a_browser(page: Page, tmp_path: Path) -> None:
    words = {"question": HOSTILE, "hypothesis": HOSTILE}
    store = full_study(
        tmp_path / "study.db", trials=12, name=HOSTILE, classes=[f"{HOSTILE} {i}" for i in range(8)], **words
    )
    path = written(store, tmp_path / "report.html")
    page.open(path, width=1600)
    page.click(*centre(page, LAST_POINT))
    assert page.run("window.pwned") is None
    assert page.run("document.images.length") == 0
    assert page.run("document.title") == f"{HOSTILE}: report"
    assert page.run("document.querySelector('h1').textContent") == HOSTILE
    assert page.run("document.documentElement.scrollWidth") <= 1600
    assert_silent_and_offline(page)


def test_the_page_of_a_study_that_nothing_has_happened_to_is_silent_too(page: Page, tmp_path: Path) -> None:
    store, _ = empty_study(tmp_path / "study.db")
    page.open(written(store, tmp_path / "report.html"), width=400)
    assert page.run("document.querySelectorAll('.empty').length") == 11
    assert page.run("document.documentElement.scrollWidth") <= 400
    assert_silent_and_offline(page)


def test_a_page_of_500_trials_answers_a_click(page: Page, tmp_path: Path) -> None:
    path = written(full_study(tmp_path / "study.db", trials=500, rungs=(10, 30, 90)), tmp_path / "report.html")
    page.open(path, width=1600)
    curves: Any = page.run("document.querySelectorAll('.curves polyline[data-n]').length")
    assert curves >= 488
    page.click(*centre(page, LAST_POINT))
    assert "Blocks" in (panel(page) or "")
    assert_silent_and_offline(page)
