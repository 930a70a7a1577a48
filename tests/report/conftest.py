"""Pages drawn of facts made by hand."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from report_facts import HOSTILE, html_of, log_facts, metric, overlap, run_facts, study_of

from postclick.report.facts import Contestant, Curve, Study


@pytest.fixture(scope="session")
def html() -> str:
    """The page of a study with something in every section."""
    return html_of(study_of())


@pytest.fixture(scope="session")
def hostile() -> str:
    """The page of a study whose every name is hostile."""
    labels = (HOSTILE[0], HOSTILE[2], HOSTILE[6])
    first = HOSTILE[0]
    log = log_facts(
        HOSTILE[1],
        fields=dict.fromkeys(HOSTILE, ("sparse", "user")),
        verdicts=tuple(("warning", text) for text in HOSTILE),
        rejected=dict.fromkeys(HOSTILE, 1),
    )
    study = study_of(labels, HOSTILE[2], log=log, notes=HOSTILE, grid_metric=first)
    curves = tuple(Curve(f"cvr@click|shop={text}", (0.1, 0.2), (0.1, 0.2), (9.0, 9.0)) for text in HOSTILE)
    tasks = {text: {"weight": [0.5, 0.5], "top": [0.5, 0.5], "entropy": 1.0} for text in HOSTILE}
    checks = ({"step": 1, "best": True, "terms": dict.fromkeys(HOSTILE, 0.3), "valid": {}},) * 2
    contestants = []
    for entry in study.contestants:
        run = run_facts(
            entry.label,
            system=first,
            settings={"arguments": {text: text for text in HOSTILE}},
            curves=run_facts().curves + curves,
            experts={"tasks": tasks, "verdict": HOSTILE},
            checks=checks,
            calibration={text: {"method": text} for text in HOSTILE},
            metrics=run_facts().metrics | {f"cvr/pcoc@click|shop={text}": metric(1.1, 1.0, 1.2) for text in HOSTILE},
        )
        contestants.append(Contestant(entry.label, first, run, 1, entry.cells, entry.chosen))
    return html_of(replace(study, contestants=tuple(contestants)), missing=HOSTILE)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return tmp_path / "report.html"


@pytest.fixture
def study() -> Study:
    return study_of()


@pytest.fixture
def thin() -> dict[str, Any]:
    return overlap(sufficient=False)
