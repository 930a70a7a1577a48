"""The exception tree: texts, codes, exit codes, the trip between processes."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postclick import errors
from postclick.errors import ExitCode, Finding, PostclickError, escaped, nearest, printable, unforeseen

TREE = {
    "UsageError": ExitCode.USAGE,
    "DataError": ExitCode.DATA,
    "InputMissingError": ExitCode.INPUT_MISSING,
    "SchemaError": ExitCode.CONFIG,
    "ConfigError": ExitCode.CONFIG,
    "TrainingError": ExitCode.INTERNAL,
    "BundleError": ExitCode.DATA,
    "StorageError": ExitCode.IO,
    "LockedError": ExitCode.TEMPORARY,
    "TrustError": ExitCode.TRUST,
    "RequestError": ExitCode.USAGE,
    "NotFittedError": ExitCode.USAGE,
}


def test_the_text_has_every_part_in_order() -> None:
    finding = Finding(
        "data.label_domain", "a label is neither 0 nor 1", "a.csv:0:17:click", 3, ("2", "-1"), "map labels to 0 and 1"
    )
    assert str(finding) == (
        "data.label_domain a label is neither 0 nor 1 | a.csv:0:17:click | 3 times"
        " | for example 2, -1 | map labels to 0 and 1"
    )


def test_parts_that_do_not_apply_are_left_out() -> None:
    assert str(Finding("io.failed", "the disk went away")) == "io.failed the disk went away"
    assert str(Finding("a.b", "what", fix="do this")) == "a.b what | do this"


@pytest.mark.parametrize(("count", "words"), [(0, "0 times"), (1, "1 time"), (2, "2 times")])
def test_counts_read_well(count: int, words: str) -> None:
    assert str(Finding("a.b", "what", count=count)) == f"a.b what | {words}"


def test_at_most_five_examples_are_shown() -> None:
    text = str(Finding("a.b", "what", examples=tuple("1234567")))
    assert text == "a.b what | for example 1, 2, 3, 4, 5"


def test_several_findings_travel_together_and_the_first_decides() -> None:
    error = errors.DataError(Finding("data.one", "first"), Finding("data.two", "second"))
    assert str(error) == "data.one first\ndata.two second"
    assert error.code == "data.one"
    assert error.exit_code == 65


def test_an_error_without_findings_is_internal() -> None:
    assert PostclickError().code == "internal"
    assert PostclickError().exit_code == 70


@pytest.mark.parametrize("name", TREE)
def test_every_kind_has_its_exit_code_and_one_root(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, PostclickError)
    assert kind.exit_code == TREE[name]


def test_the_tree_above_is_complete() -> None:
    kinds = {name for name in errors.__all__ if name.endswith("Error")} - {"PostclickError"}
    assert kinds == set(TREE)


def test_the_exit_code_of_one_error_can_be_set() -> None:
    error = errors.StorageError(Finding("io.exists", "there"), exit_code=ExitCode.CANNOT_CREATE)
    assert error.exit_code == 73
    assert errors.StorageError.exit_code == 74


@pytest.mark.parametrize("name", TREE)
def test_an_error_survives_the_trip_between_processes(name: str) -> None:
    kind = getattr(errors, name)
    before = kind(Finding("a.b", "what", "here", 2, ("x",), "fix"), exit_code=ExitCode.CANNOT_CREATE)
    after = pickle.loads(pickle.dumps(before))
    assert type(after) is kind
    assert after.findings == before.findings
    assert after.exit_code == ExitCode.CANNOT_CREATE
    assert str(after) == str(before)


@given(st.text(max_size=200), st.integers(1, 60))
def test_printable_text_is_safe_and_short(text: str, limit: int) -> None:
    safe = printable(text, limit)
    assert safe.isprintable()
    assert safe.endswith("...") or len(text) <= limit


@pytest.mark.parametrize(
    ("raw", "safe"),
    [("\x1b[31mred", "\\x1b[31mred"), ("a\u202eb", "a\\u202eb"), ("line\nbreak", "line\\nbreak"), ("plain", "plain")],
)
def test_control_and_direction_marks_are_escaped(raw: str, safe: str) -> None:
    assert printable(raw) == safe


@given(st.text(max_size=100))
def test_escaped_text_can_be_seen_and_means_the_same_in_toml(text: str) -> None:
    import tomllib

    import tomli_w

    assert escaped(text).isprintable()
    assert escaped(text, keep="\n").replace("\n", "").isprintable()
    plain = {"key": text}
    assert tomllib.loads(escaped(tomli_w.dumps(plain), keep="\n")) == plain


def test_a_finding_escapes_all_of_its_parts() -> None:
    finding = Finding("a.b", "what\u202e", "where\x1b", None, ("c\x00",), "fix\n")
    assert str(finding).isprintable()
    assert str(finding) == r"a.b what\u202e | where\x1b | for example c\x00 | fix\u000a"


def test_long_text_is_cut() -> None:
    assert printable("x" * 50) == "x" * 40 + "..."


@pytest.mark.parametrize(
    ("word", "likely"), [("bacth_size", "batch_size"), ("learning_rat", "learning_rate"), ("zzz", None)]
)
def test_the_nearest_spelling(word: str, likely: str | None) -> None:
    assert nearest(word, ["batch_size", "learning_rate"]) == likely


def test_the_unforeseen_says_where_and_how_to_report_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("POSTCLICK_DEBUG", raising=False)
    made = unforeseen(ZeroDivisionError("by zero"), "small/esmm/seed-000")
    assert (made.code, made.exit_code) == ("internal", ExitCode.INTERNAL)
    assert "ZeroDivisionError: by zero | small/esmm/seed-000 | " in str(made)
    assert "POSTCLICK_DEBUG=1" in str(made)
    assert capsys.readouterr().err == ""
    disk = unforeseen(OSError(5, "Input/output error"), "x")
    assert (disk.code, disk.exit_code) == ("io.failed", ExitCode.IO)


def test_the_unforeseen_shows_its_traceback_where_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POSTCLICK_DEBUG", "1")
    unforeseen(ZeroDivisionError("by zero"))
    assert "ZeroDivisionError: by zero" in capsys.readouterr().err
