from __future__ import annotations

import pytest

from postclick.report.words import interval, lower_is_better, meaning, number, percent, plain, setting, signed, title


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.65764, "0.6576"),
        (1234567.0, "1,234,567"),
        (0.0, "0"),
        (None, "–"),
        (float("nan"), "–"),
        (-0.5, "−0.5000"),
        (1e-9, "1.000e−09"),
    ],
)
def test_numbers_are_written_for_people(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("share", "text"), [(0.1037, "10.4"), (0.0002, "0.0200"), (0.0, "0"), (1.0, "100")])
def test_shares_are_per_cent(share: float, text: str) -> None:
    assert percent(share) == f"{text}\u202f%"


def test_an_interval_has_the_decimals_its_width_deserves() -> None:
    assert interval(0.01234, 0.0041, 0.0204) == "0.012 [0.004, 0.020]"
    assert interval(0.00012, -0.0001, 0.0003, sign=True) == "+0.00012 [−0.00010, +0.00030]"
    assert interval(0.5, None, None) == "0.5000"
    assert signed(-0.25, 2) == "−0.25"


def test_hidden_characters_can_be_seen_and_long_names_end() -> None:
    assert plain("a\u202eb") == "a\\u202eb"
    assert len(plain("x" * 10_000)) == 60


def test_metric_names_are_explained() -> None:
    assert title("cvr/auc@click") == "AUC of CVR on clicks"
    assert title("ctcvr/auc[score=raw]@world") == "AUC of CTCVR against the truth (before calibration)"
    assert "guessing" in meaning("cvr/auc@click")
    assert lower_is_better("cvr/logloss@click")
    assert not lower_is_better("cvr/auc@click")
    assert title("no metric") == "no metric"


def test_settings_read_as_written() -> None:
    assert setting(None) == "off"
    assert setting([64, 32.5]) == "[64, 32.5]"
