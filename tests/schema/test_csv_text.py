"""What is wrong with a CSV, by line."""

from __future__ import annotations

import pyarrow as pa
import pytest

from postclick.errors import DataError
from postclick.schema.csv_text import CutEnd, csv_error, csv_head, csv_layout, open_csv


def write(path, data: bytes):
    path.write_bytes(data)
    return path


def code(path) -> tuple[str, str]:
    with pytest.raises(DataError) as caught:
        csv_head(path, 100)
    (finding,) = caught.value.findings
    assert finding.fix
    return finding.code, finding.where


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"a,b\n1,2\n3\n", ("data.csv", "x.csv:3")),
        (b'a,b\n1,"x\n\ny"\n3\n', ("data.csv", "x.csv:5")),
        (b"a,b\n1,\xff\n", ("data.text", "x.csv:2")),
        (b"caf\xe9,b\n1,2\n", ("data.text", "x.csv:1")),
        ("a,b\n1,2\n".encode("utf-16"), ("data.text", "x.csv:1")),
        (b"a^b^c\n1^2^3\n", ("data.csv", "x.csv:1")),
        (b'a,b\n1,"x\n2,y\n', ("data.csv", "x.csv:2")),
        (b"a,b\n1," + b"x" * 200_000 + b"\n", ("data.text", "x.csv:2")),
        (b'a,b\n1,"' + b"x,\n" * 60_000, ("data.csv", "x.csv:2")),
        (b"a,b\n" + b"1,2\n" * 30 + b"1," + b"x" * 9_000_000 + b"\n", ("data.text", "x.csv:32")),
    ],
)
def test_faults(data, wanted, tmp_path):
    assert code(write(tmp_path / "x.csv", data)) == wanted


def test_a_damaged_compressed_file(tmp_path):
    assert code(write(tmp_path / "x.csv.gz", b"no gzip")) == ("data.corrupt_file", "x.csv.gz")


def test_words_of_one_column_are_no_other_delimiter(tmp_path):
    layout = csv_layout(write(tmp_path / "x.csv", b"word\na:b\nc\n"))
    assert (layout.delimiter, layout.names) == (",", ("word",))


def test_an_unknown_delimiter_is_proposed(tmp_path):
    with pytest.raises(DataError, match=r"one column, though '\^' would give 3"):
        csv_layout(write(tmp_path / "x.csv", b"a^b^c\n1^2^3\n"))


def test_without_the_file_the_record_is_named():
    error = pa.ArrowInvalid("CSV parse error: Row #7: Expected 3 columns, got 2: 1,2")
    finding = csv_error(error, "x").findings[0]
    assert (finding.where, finding.what, finding.examples) == (
        "x:7",
        "a ragged row: Expected 3 columns, got 2",
        ("1,2",),
    )
    assert csv_error(pa.ArrowInvalid("something else"), "x").findings[0].code == "data.csv"


@pytest.mark.parametrize("skip", [0, 1])
def test_a_last_line_that_is_cut_off_is_passed_over_where_that_is_allowed(tmp_path, skip):
    path = write(tmp_path / "x.csv", b"1,2\n" * (3 + skip) + b"7")
    cut = CutEnd()
    with open_csv(path, "x.csv", ",", skip, {"0": pa.int64(), "1": pa.int64()}, cut_end=cut) as reader:
        assert reader.read_all().num_rows == 3
    assert (cut.row.text, cut.row.expected_columns, cut.row.actual_columns) == ("7", 2, 1)
    cut.refuse_unless_last(3 + skip)
    with pytest.raises(pa.ArrowInvalid, match=r"Row #\d: Expected 2 columns, got 1: 7"):
        cut.refuse_unless_last(4 + skip)


def test_two_short_lines_or_a_long_one_are_refused_even_so(tmp_path):
    for data in (b"1,2\n7\n8\n", b"1,2\n1,2,3\n"):
        path = write(tmp_path / "x.csv", data)
        types = {"0": pa.int64(), "1": pa.int64()}
        with pytest.raises(pa.ArrowInvalid, match="Expected 2 columns"):
            open_csv(path, "x.csv", ",", 0, types, cut_end=CutEnd()).read_all()
