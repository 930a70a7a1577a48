from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from postclick.report.facts import Pair
from postclick.report.log_facts import Funnel
from postclick.report.verdicts import pair_verdict, verdicts


def pair(value: float, low: float, high: float, verdict: str, metric: str = "cvr/auc@world", needed: str = "") -> Pair:
    return Pair(metric, "CSTWA", "ESMM", value, low, high, verdict, needed)


def said(study: Any) -> str:
    return "\n".join(f"{bullet.tag}: {bullet.text}" for bullet in verdicts(study))


def test_a_difference_is_said_with_its_interval() -> None:
    text = pair_verdict(pair(0.012, 0.004, 0.020, "better")).text
    assert text == "CSTWA is better than ESMM by 0.012 [0.004, 0.020] in AUC of CVR against the truth."


@pytest.mark.parametrize(("verdict", "metric"), [("better", "cvr/logloss@click"), ("worse", "cvr/auc@click")])
def test_a_negative_difference_is_turned(verdict: str, metric: str) -> None:
    found = pair_verdict(pair(-0.012, -0.020, -0.004, verdict, metric))
    assert f"CSTWA is {verdict} than ESMM by 0.012 [0.004, 0.020]" in found.text
    assert found.tone == ("good" if verdict == "better" else "bad")


def test_what_cannot_be_told_says_what_would_tell() -> None:
    found = pair_verdict(pair(0.001, -0.004, 0.006, "cannot tell", needed="about 1200 more conversions"))
    assert found.tone == "unsure"
    assert "difference +0.001 [−0.004, +0.006]" in found.text
    assert "about 1200 more conversions" in found.text


def test_systems_without_a_paired_comparison_are_not_compared(study: Any) -> None:
    text = said(replace(study, pairs=(), baseline=None))
    assert "Which system is better is not said" in text
    assert "is better than" not in text


def test_a_derived_head_is_never_called_best(study: Any) -> None:
    top = study.contestants[-1]
    cells = {"cvr/auc@world": replace(top.cells["cvr/auc@world"], value=0.9, derived=True)}
    derived = replace(top, cells={**top.cells, **cells})
    assert f"{top.label} has the best mean" in said(study)
    text = said(replace(study, contestants=(*study.contestants[:-1], derived)))
    assert f"{top.label} has the best mean" not in text
    assert "Its score is a quotient of two others." in text


def test_levels_off_and_right_are_told_apart(study: Any) -> None:
    text = said(replace(study, contestants=study.contestants[:1]))
    assert "ESMM over-states the mean CVR over all exposures by 51% (PCOC 1.511 [1.471, 1.553])" in text
    assert "The mean CVR on clicks is right for ESMM (PCOC 1.020 [0.900, 1.140])" in text


def test_thin_overlap_is_named(study: Any, thin: Any) -> None:
    assert "Overlap suffices" in said(study)
    first = study.contestants[0]
    text = said(replace(study, contestants=(replace(first, run=replace(first.run, overlap=thin)),)))
    assert "Overlap is too thin for IPS with the propensity of ESMM: 6% of the exposure space" in text


def test_few_conversions_are_cautioned_and_many_are_not(study: Any) -> None:
    assert "read the direction, not the third digit" in said(study)
    many = replace(study.log, funnels=(Funnel("train", 10**6, 10**5, 10_000),))
    assert "third digit" not in said(replace(study, log=many))


def test_many_open_comparisons_are_one_sentence(study: Any) -> None:
    pairs = tuple(replace(study.pairs[0], system=f"S{index}", verdict="cannot tell") for index in range(4))
    assert said(replace(study, pairs=pairs)).count("cannot tell:") == 1


def test_a_collapsed_expert_is_named(study: Any) -> None:
    assert "experts: ESMM: expert 0 of task ctr gets 4.2% of the weight" in said(study)


def test_a_level_far_from_1_inside_a_wide_interval_is_not_called_right(study: Any) -> None:
    first = study.contestants[0]
    wide = {"cvr/pcoc@click": {"value": 0.73, "low": 0.55, "high": 1.05}}
    text = said(replace(study, contestants=(replace(first, run=replace(first.run, metrics=wide)),)))
    assert "Cannot tell whether the mean CVR on clicks is right for ESMM: PCOC 0.730 [0.550, 1.050]" in text
    assert "is right for" not in text.replace("whether the mean CVR on clicks is right for", "")
