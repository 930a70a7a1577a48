"""Slices tested together, on the page and from rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from report_facts import html_of, study_of

from postclick.evaluation.tables import CalibrationTables, SliceRatio
from postclick.report.collect import collect
from postclick.report.curves import slices_of
from postclick.report.facts import Slices, Study
from postclick.report.sections.slices import slice_bullets, worst_slices


def ratio(value: str, pcoc: float, p: float | None) -> SliceRatio:
    return SliceRatio(value, 100, 20.0 * pcoc, 20.0, pcoc, 0.8 * pcoc, 1.25 * pcoc, p, pcoc, 0.9 * pcoc, 1.1 * pcoc)


LISTED = (ratio("tablet", 2.02, 0.0011), ratio("phone", 0.7, 0.02), ratio("desk", 1.1, 0.4), ratio("tv", 9.9, None))


def study_with(listed: tuple[SliceRatio, ...], tested: int) -> Study:
    slices = Slices({"cvr@click|device": listed}, {"cvr@click|device": 0.21}, {"cvr@click": tested})
    study = study_of(("ESMM",))
    first = study.contestants[0]
    assert first.run is not None
    return replace(study, contestants=(replace(first, run=replace(first.run, slices=slices)),))


def test_the_adjusted_p_decides_and_the_surest_stands_first() -> None:
    study = study_with(LISTED, 3)
    (figure,) = worst_slices(study, study.contestants[0])
    assert [(row[1], row[9]) for row in figure.table.rows] == [
        ("tablet", "too high"),
        ("phone", "too low"),
        ("desk", "cannot tell"),
        ("tv", "not tested"),
    ]
    assert "device=tablet" in figure.svg
    assert "device=tv" not in figure.svg
    assert "differ by 21" in figure.note
    (bullet,) = slice_bullets(study.contestants)
    assert bullet.tone == "bad"
    assert "2 of 3 slices are off, most surely device=tablet, too high (PCOC 2.02" in bullet.text


def test_none_off_and_none_tested_are_no_verdict_of_calibrated() -> None:
    study = study_with(LISTED[2:], 1)
    (bullet,) = slice_bullets(study.contestants)
    assert (bullet.tone, bullet.tag) == ("unsure", "cannot tell")
    bare = study_with(LISTED[3:], 0)
    assert list(slice_bullets(bare.contestants)) == []
    (figure,) = worst_slices(bare, bare.contestants[0])
    assert figure.svg == ""
    assert "None of 1 slices" in figure.note


def test_the_page_shows_tested_slices_in_place_of_untested_intervals() -> None:
    html = html_of(study_with(LISTED, 3))
    assert "worst slices of the CVR on clicks" in html
    assert "level of the CVR on clicks, by slice" not in html
    assert "level of the CVR on clicks, by slice" in html_of(study_of(("ESMM",)))


def test_an_evaluation_on_disk_gives_its_slices_and_an_old_one_none() -> None:
    tables = CalibrationTables({}, {"cvr@click|device": LISTED}, {"cvr@click|device": 0.21}, {"cvr@click": 3})
    found = slices_of(tables.to_dict())
    assert found.ratios["cvr@click|device"] == LISTED
    assert found.tested == {"cvr@click": 3}
    assert slices_of({"metrics": {}}) == Slices()


def test_a_column_asked_for_is_tested_as_evaluate_tests_it(small_run: Any, small_log: Any) -> None:
    from postclick.run.assessment import evaluate_bundle

    (study,) = collect([Path(small_run.path)], [small_log.path], ["shop"]).studies
    run = study.contestants[0].run
    assert run is not None
    wanted = evaluate_bundle(small_run.path, small_log.path, by=["shop"]).to_dict()["slices"]
    assert wanted["ratios"]
    shown = run.slices
    assert (
        CalibrationTables({}, shown.ratios, shown.spread, shown.tested, shown.level, shown.verdict).to_dict()["slices"]
        == wanted
    )
