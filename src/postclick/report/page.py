"""The page: sections into one HTML file that holds everything it shows and asks nothing of anybody."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from importlib.resources import files as resources

from postclick.report.blocks import Section
from postclick.report.facts import Figures
from postclick.report.words import HEADS, METRICS, POPULATIONS, plain

__all__ = ["page", "policy"]


def policy(css: str) -> str:
    """Return the content security policy: this style sheet by its hash, pictures inside the page, nothing else.

    There is no script in the page; ``default-src 'none'`` keeps whatever might get in from running or loading.
    """
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode("ascii")
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def page(figures: Figures, sections: Sequence[Section]) -> str:
    """Return the HTML of a report; equal facts give equal bytes."""
    import jinja2

    folder = resources("postclick.report") / "templates"
    css = (folder / "page.css").read_text("utf-8").strip()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"plain": plain, "filename": _filename, "first_use": _first_use()}
    # what the template marks as safe is this package's own style sheet, and drawings that `svg.clean` made
    template = environment.from_string((folder / "page.html.jinja").read_text("utf-8"))
    return template.render(
        policy=policy(css),
        css=css,
        heading=_heading(figures),
        given=_given(figures),
        missing=figures.missing,
        version=figures.version,
        sections=sections,
        terms=_terms(sections),
    )


def _filename(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()[:80] or "table"


def _first_use() -> Callable[[str], bool]:
    """Return what is true of a text once: an explanation stands at its first use."""
    seen: set[str] = set()

    def first(text: str) -> bool:
        if text in seen:
            return False
        seen.add(text)
        return True

    return first


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _heading(figures: Figures) -> str:
    labels = list(dict.fromkeys(entry.label for study in figures.studies for entry in study.contestants))
    studies = figures.studies
    what = _count(len(labels), "system")
    if len(studies) == 1:
        one = labels[0] if len(labels) == 1 else what
        return f"{plain(one, 40)} on {plain(studies[0].name, 40)}"
    return f"{what} on {len(studies)} data sets"


def _given(figures: Figures) -> str:
    seeds = sorted({entry.seeds for study in figures.studies for entry in study.contestants} or {1})
    names = list(dict.fromkeys(study.origin for study in figures.studies))
    splits = " and ".join(dict.fromkeys(study.split for study in figures.studies))
    many = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
    seen = f"{many} training seeds each" if seeds[-1] > 1 else "one training seed each"
    judged = "test rows that took no part in training" if splits == "test" else f"{plain(splits)} rows"
    return f"From {plain(', '.join(names), 160)}; {seen}; judged on {judged}."


def _terms(sections: Sequence[Section]) -> list[tuple[str, str]]:
    """Return the words that this page uses, with what they mean."""
    parts = [part for section in sections for part in section.parts]
    names = [figure.name for part in parts for figure in part.shown]
    text = " ".join([*names, *(name for part in parts if part.board for _, name in part.board.metrics)])
    found = [
        (short, f"{words[0].upper()}{words[1:]}.")
        for head, (short, words) in HEADS.items()
        if re.search(rf"\b{head}[/@]", text)
    ]
    found += [(short, words) for metric, (short, words) in METRICS.items() if re.search(rf"/{metric}\b", text)]
    found += [
        (f"@{name}", f"{words[0].upper()}{words[1:]}.")
        for name, (_, words) in POPULATIONS.items()
        if f"@{name}" in text
    ]
    return found
