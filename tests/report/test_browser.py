"""The page in a real Chromium: network off, no errors, no requests, no sideways scrolling, every name inert."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
WIDTHS = (390, 1280)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: Any) -> Iterator[Any]:
    """A browser with an empty profile; the system's own where there is one, else the one that playwright installs."""
    sync_api = pytest.importorskip("playwright.sync_api")
    own = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=own, args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """A page that was opened from a file, with all that it said and asked for."""

    def __init__(self, browser: Any, path: Path, width: int = 1280, scheme: str = "light") -> None:
        size = {"width": width, "height": 900}
        self.context = browser.new_context(viewport=size, color_scheme=scheme, offline=True, accept_downloads=True)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def color(self, selector: str, name: str) -> tuple[int, ...]:
        text = self.page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).{name}")
        return tuple(map(int, re.findall(r"\d+", text)[:3]))


@pytest.fixture
def visit(chromium: Any, saved: Path) -> Iterator[Any]:
    opened: list[Visit] = []

    def open_page(html: str, **how: Any) -> Visit:
        saved.write_text(html, "utf-8")
        opened.append(Visit(chromium, saved, **how))
        return opened[-1]

    yield open_page
    for entry in opened:
        entry.context.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("which", ["html", "hostile"])
def test_it_opens_offline_silent_alone_and_no_wider_than_the_screen(
    visit: Any, width: int, which: str, request: pytest.FixtureRequest
) -> None:
    seen = visit(request.getfixturevalue(which), width=width)
    page = seen.page
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert seen.said == []
    assert [url for url in seen.asked if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in seen.asked if url.startswith("file:")]) == 1
    assert "owned" not in page.title()


def test_a_policy_that_is_broken_is_heard(visit: Any, html: str) -> None:
    """The twin: a style sheet that the hash does not cover is refused, so the silence above means something."""
    seen = visit(html.replace("<style>", "<style>/* more */"))
    assert any("Content Security Policy" in message for message in seen.said)
    seen = visit(
        html.replace("</main>", "<script>document.title = 'owned'</script><img src='http://x.invalid/a.png'></main>")
    )
    assert "owned" not in seen.page.title()
    assert len(seen.said) >= 2


def test_every_drawing_is_seen_and_named(visit: Any, html: str) -> None:
    page = visit(html, width=390).page
    boxes = page.evaluate(
        "[...document.querySelectorAll('figure > svg')].map(one => [one.getBoundingClientRect(), one])"
        ".map(([box, one]) => [box.width, box.height, one.getAttribute('aria-label')])"
    )
    assert len(boxes) > 12
    assert all(width > 250 and height > 40 and label for width, height, label in boxes)
    small = page.evaluate(
        "[...document.querySelectorAll('figure svg text')]"
        ".filter(one => one.textContent && one.getBoundingClientRect().height < 7).length"
    )
    assert small == 0


def test_dark_is_dark_and_drawings_follow(visit: Any, html: str) -> None:
    light, dark = visit(html), visit(html, scheme="dark")
    for seen, bright in ((light, True), (dark, False)):
        assert (min(seen.color("body", "backgroundColor")) > 200) is bright
        assert (max(seen.color("figure svg text", "fill")) < 130) is bright


def test_paper_is_white_and_whole(visit: Any, html: str) -> None:
    seen = visit(html, scheme="dark")
    seen.page.emulate_media(media="print", color_scheme="dark")
    assert seen.color("body", "backgroundColor") == (255, 255, 255)
    assert seen.page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert len(seen.page.pdf()) > 20_000


def test_the_keyboard_reaches_sections_and_numbers(visit: Any, html: str) -> None:
    page = visit(html).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the verdicts"
    page.keyboard.press("Enter")
    assert page.url.endswith("#words")
    page.locator("#leaderboard figure summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#leaderboard figure table").first.is_visible()


def test_a_table_is_downloaded_as_csv(visit: Any, html: str, tmp_path: Path) -> None:
    seen = visit(html)
    with seen.page.expect_download() as waiting:
        seen.page.locator("#leaderboard .board a.csv").click()
    waiting.value.save_as(tmp_path / "board.csv")
    assert waiting.value.suggested_filename == "world-leaderboard.csv"
    lines = (tmp_path / "board.csv").read_text("utf-8").splitlines()
    assert lines[0].startswith("system,key,seeds,cvr/auc@world")
    assert any(line.startswith("CSTWA,esmm,2,0.61") for line in lines)
    assert seen.said == []


def test_a_run_that_was_really_made(visit: Any, small_run: Any, small_log: Any, saved: Path) -> None:
    from postclick.report import write_report

    write_report([small_run.path], saved, logs=[small_log.path], by=["shop"], force=True)
    seen = visit(saved.read_text("utf-8"), width=390)
    assert seen.said == []
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert seen.page.locator("#calibration figure").count() >= 4
    clicks = seen.page.locator("#data .funnel").last.inner_text()
    evaluation = Path(small_run.path) / "evaluation.json"
    import json

    assert f"{json.loads(evaluation.read_text('utf-8'))['ledger']['clicks']:,}" in clicks
