"""The page as text: its policy, what it must not hold, the numbers behind each section."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

from report_facts import HOSTILE, html_of, study_of

SECTIONS = (
    *("words", "data", "leaderboard", "truth", "calibration", "overlap", "training", "gates", "settings", "delay"),
    *("provenance", "terms"),
)


class Reader(HTMLParser):
    """Collects tags, attributes and text as a browser's parser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def section_of(html: str, key: str) -> str:
    return html.split(f'<section id="{key}"')[1].split("</section>", maxsplit=1)[0]


def test_the_policy_allows_the_style_sheet_alone(html: str) -> None:
    css = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert len(css) == 1
    digest = base64.b64encode(hashlib.sha256(css[0].encode()).digest()).decode()
    policy = re.findall(r'Content-Security-Policy" content="([^"]+)"', html)[0].replace("&#39;", "'")
    assert policy.split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_nothing_runs_and_nothing_is_fetched(html: str, hostile: str) -> None:
    for text in (html, hostile):
        found = Reader(text)
        assert not {"script", "iframe", "object", "embed", "form", "img", "base", "image"} & {
            tag for tag, _ in found.tags
        }
        for tag, attributes in found.tags:
            assert not [name for name in attributes if name.startswith("on") or name == "style"]
            for name in ("href", "src", "xlink:href", "action", "srcset"):
                address = attributes.get(name)
                assert address is None or address.startswith(("#", "data:text/csv;", "data:,")), (tag, address)


def test_every_section_is_there_and_named_in_the_list(html: str) -> None:
    for key in SECTIONS:
        assert f'<section id="{key}"' in html
        assert f'href="#{key}"' in html


def test_a_section_without_data_is_not_there() -> None:
    from dataclasses import replace

    study = study_of(("ESMM",))
    run = replace(
        study.contestants[0].run, overlap=None, experts=None, checks=(), curves=(), metrics={}, calibration={}
    )
    bare = replace(study.contestants[0], run=run)
    log = replace(study.log, delay=None, simulated=False)
    html = html_of(replace(study, contestants=(bare,), pairs=(), trials=(), log=log))
    present = {key for key in SECTIONS if f'<section id="{key}"' in html}
    assert present == {"words", "data", "leaderboard", "provenance", "terms"}


def test_each_section_shows_the_numbers_behind_it(html: str) -> None:
    wanted = {
        "words": ["CSTWA is better than ESMM by 0.012 [0.004, 0.020]", "0.7667"],
        "data": [
            "18,123",
            "123 rejected",
            "16,000",
            "1,600",
            "10.0\u202f%",
            "data.conversion_without_click",
            "321",
            "17.8\u202f%",
        ],
        "leaderboard": ["0.6100", "± 0.014", "0.7667", "+0.0120", "derived"],
        "truth": ["1.51", "5.00\u202f%", "1.471"],
        "calibration": ["1.23\u202f%", "9.87\u202f%", "7.65\u202f%", "device=phone", "platt"],
        "overlap": ["61.5\u202f%", "overlap is too thin", "+1.0100", "10.2\u202f%"],
        "training": ["0.3700", "0.05000", "Kept: step 10 of 20"],
        "gates": ["95.8\u202f%", "Collapsed: ctr 0"],
        "settings": ["embedding_size: 8 → 16", "+0.0100", "+0.012 [+0.004, +0.020]", "training.l2 = 1e-06", "chosen"],
        "delay": ["55.0\u202f%", "7 training rows are censored"],
        "provenance": ["embedding_size", "bbbbbbbbbbbb"],
        "terms": ["@click", "PCOC", "guessing"],
    }
    assert set(wanted) == set(SECTIONS)
    for key, numbers in wanted.items():
        words = "".join(Reader(section_of(html, key)).words)
        assert [number for number in numbers if number not in words] == [], key


def test_equal_facts_give_equal_bytes(html: str) -> None:
    assert html_of(study_of()) == html


def test_hostile_names_are_text_cut_and_visible(hostile: str) -> None:
    assert "<script" not in hostile
    assert "<img" not in hostile
    assert "\u202e" not in hostile
    assert "\x1b" not in hostile
    assert "{{7*7}}" in hostile
    assert HOSTILE[-1] not in hostile
    assert "&lt;/script&gt;&lt;script&gt;" in hostile


def test_an_explanation_stands_at_its_first_use_alone(html: str) -> None:
    assert html.count("0.5 is guessing, 1 is perfect") == 2  # the first figure, and the terms
