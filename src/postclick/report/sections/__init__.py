"""The sections of a report: each turns studies into parts, and says nothing where there is nothing to say."""

from __future__ import annotations

from dataclasses import replace

from postclick.report.blocks import Part, Section
from postclick.report.facts import Figures, Study
from postclick.report.sections.calibration import calibration
from postclick.report.sections.data import data
from postclick.report.sections.delay import delay
from postclick.report.sections.leaderboard import leaderboard
from postclick.report.sections.provenance import provenance
from postclick.report.sections.settings import settings
from postclick.report.sections.training import gates, training
from postclick.report.sections.truth import truth
from postclick.report.sections.weights import weights
from postclick.report.verdicts import verdicts

__all__ = ["sections"]


def _words(study: Study) -> Part:
    return Part(bullets=tuple(verdicts(study)))


SECTIONS = (
    ("words", "In words", "Verdicts", "", _words),
    (
        "data",
        "What was trained on what",
        "Data",
        "Every row that came in, where it went, and what happened on it.",
        data,
    ),
    (
        "leaderboard",
        "Leaderboard",
        "Leaderboard",
        "Systems on the same test rows, metric by metric, best first.",
        leaderboard,
    ),
    (
        "truth",
        "Against the world’s truth",
        "Truth",
        "These rows were simulated, so the true probability of every exposure is known, clicked or not. Real logs "
        "never show this.",
        truth,
    ),
    (
        "calibration",
        "Calibration",
        "Calibration",
        "Does a promised 5 % happen 5 % of the time? Rows are sorted by prediction into bins of equal size; points on "
        "the dashed diagonal keep their promise, points below it promised too much. Bars are 95 % intervals of a bin.",
        calibration,
    ),
    (
        "overlap",
        "Overlap and weights",
        "Overlap",
        "Inverse-propensity weights let clicks speak for all exposures. That works only where every exposure had a "
        "fair chance of a click.",
        weights,
    ),
    (
        "training",
        "Training",
        "Training",
        "The terms of the loss as training went on; the grey line marks the check that was kept.",
        training,
    ),
    (
        "gates",
        "Use of experts",
        "Experts",
        "How much weight each task’s gate gives each expert, in the mean over test rows.",
        gates,
    ),
    (
        "settings",
        "Ablations and hyper-parameters",
        "Ablations",
        "Rows of the benchmark that differ by one setting, and what a grid saw on the validation rows.",
        settings,
    ),
    ("delay", "Delay", "Delay", "How long after its click a conversion comes.", delay),
    ("provenance", "How this was made", "Provenance", "What it takes to make the same numbers again.", provenance),
)
"""Anchor, heading, the heading in short, lead, and what makes the part of a study."""


def sections(figures: Figures) -> list[Section]:
    """Return the sections that have something to show, in the order of the page."""
    found = []
    for key, title, short, lead, make in SECTIONS:
        parts = []
        for study in figures.studies:
            part = make(study)
            if not part.empty:
                parts.append(_titled(part, study.name if len(figures.studies) > 1 else ""))
        if parts:
            found.append(Section(key, title, short, lead, tuple(parts)))
    return found


def _titled(part: Part, title: str) -> Part:
    return replace(part, title=title)
