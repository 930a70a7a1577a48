"""Whether a file is still the one that was planned with."""

from __future__ import annotations

import os

import pytest

from postclick.data.fingerprint import FileMark, check_unchanged, marks_of
from postclick.errors import DataError, InputMissingError


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n" * 50_000)
    return path


def test_an_untouched_file_is_the_same(file):
    mark = FileMark.of(str(file))
    check_unchanged([mark])
    assert mark == FileMark.of(str(file))
    assert mark.size == 200_000


def test_growth_rewriting_and_removal_are_told_together(file, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("x")
    gone = tmp_path / "gone.csv"
    gone.write_text("x")
    marks = marks_of([str(file), str(other), str(gone), str(file)])
    assert len(marks) == 3
    with file.open("a") as handle:
        handle.write("c\n")
    os.utime(other, ns=(0, 0))
    gone.unlink()
    with pytest.raises(DataError) as caught:
        check_unchanged(marks.values())
    assert [(f.code, f.where) for f in caught.value.findings] == [
        ("data.changed_underfoot", name) for name in ("rows.csv", "other.csv", "gone.csv")
    ]
    assert [f.what.split(": ")[1] for f in caught.value.findings] == [
        "200,000 bytes when it was planned, now 200,002",
        "it was written again",
        "it is gone",
    ]
    assert caught.value.exit_code == 65


def test_another_file_of_equal_size_and_time_is_another_file(file):
    before = FileMark.of(str(file))
    data = bytearray(file.read_bytes())
    data[10] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(before.changed_ns, before.changed_ns))
    after = FileMark.of(str(file))
    assert (after.size, after.changed_ns) == (before.size, before.changed_ns)
    assert after.edges != before.edges


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputMissingError, match=r"input\.missing"):
        FileMark.of(str(tmp_path / "none"))
