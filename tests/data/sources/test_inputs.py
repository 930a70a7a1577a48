from __future__ import annotations

import pytest

from postclick.data.sources.inputs import Inputs, as_items, only_paths, raw_inputs
from postclick.errors import InputMissingError
from postclick.files import new_folder


def test_one_or_several():
    assert as_items(None) == ()
    assert as_items("a.csv") == ("a.csv",)
    assert as_items(["a.csv", "b.csv"]) == ("a.csv", "b.csv")
    frame = {"a": [1]}
    assert as_items(frame) == (frame,)


def test_labels_hold_no_absolute_path_and_differ(tmp_path):
    for day in ("1", "2"):
        (tmp_path / "log" / f"day={day}").mkdir(parents=True)
        (tmp_path / "log" / f"day={day}" / "part.csv").write_text("a\n")
    files = raw_inputs(Inputs(train=(tmp_path / "log",), test=(tmp_path / "log" / "day=2" / "part.csv",)))
    assert [file.label for file in files] == ["day=1/part.csv", "day=2/part.csv", "part.csv"]
    files = raw_inputs(Inputs(train=(tmp_path / "log" / "day=1" / "*.csv",), test=(tmp_path / "log" / "day=2",)))
    assert [file.label for file in files] == ["part.csv", "test/part.csv"]
    files = raw_inputs(Inputs(({"a": [1]}, {"a": [2]}, {"a": [3]})))
    assert [file.label for file in files] == ["in memory", "in memory #2", "in memory #3"]


def test_all_that_is_missing_is_said_together(tmp_path):
    with pytest.raises(InputMissingError) as error:
        raw_inputs(Inputs((tmp_path / "a.csv",), test=(tmp_path / "b.csv",)))
    assert [finding.code for finding in error.value.findings] == ["input.missing"] * 2
    with pytest.raises(InputMissingError, match="no input given"):
        raw_inputs(Inputs())
    with pytest.raises(InputMissingError) as error:
        only_paths(Inputs(({"a": [1]}, tmp_path / "c")), "coat")
    assert [finding.code for finding in error.value.findings] == ["input.wrong_kind", "input.missing"]


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with new_folder(tmp_path / "log", "log") as scratch:
        (scratch / "x.parquet").write_bytes(b"")
    with pytest.raises(InputMissingError, match=r"input\.wrong_kind expected raw data, found a log folder"):
        raw_inputs(Inputs((tmp_path / "log",)))
