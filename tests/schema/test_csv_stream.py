"""The quotes of a CSV, byte by byte against the parser; bombs; lines."""

from __future__ import annotations

import csv
import gzip
import io

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postclick.errors import DataError
from postclick.schema import csv_stream
from postclick.schema.csv_stream import CsvStream, QuoteCheck, line_of, long_line


def judge(data: bytes, size: int = 1) -> str | None:
    check = QuoteCheck(",", "f")
    try:
        for start in range(0, len(data), size):
            check.feed(data[start : start + size])
        check.finish()
    except DataError as error:
        return f"{error.findings[0].where} {error.findings[0].what}"
    return None


OPEN, TEXT = "a quote is opened here and never closed", "text after the closing quote of a cell"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('a,b\n1,"x"\n', None),
        ('a,b\n1,"x"', None),
        ('a,b\n1,""\n2,"""x"\n', None),
        ('a,b\n1,"say ""hi"""\n', None),
        ('a,b\n"1","x\ny"\r\n3,"z"\n', None),
        ('a,b\n1,5" pipe\n2,"ok"\n3,6" pipe\n', None),
        ('a,b\n1,"x\n2,y\n', f"f:2 {OPEN}"),
        ('a,b\n0,"ok"\n1,5" pipe\n2,"x\n', f"f:4 {OPEN}"),
        ('a,b\n1,"x\n2,"y"\n', f"f:3 {TEXT}, which began in line 2"),
        ('a,b\n1,"x"y\n', f"f:2 {TEXT}"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 1_000])
def test_quotes(text, wanted, size):
    assert judge(text.encode(), size) == wanted


CELLS = st.lists(st.lists(st.text('ab",\n\r ', max_size=4), min_size=2, max_size=2), min_size=1, max_size=6)


@given(CELLS, st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]), st.integers(1, 7))
def test_what_a_writer_writes_passes(rows, quoting, size):
    target = io.StringIO(newline="")
    csv.writer(target, quoting=quoting, lineterminator="\n").writerows(rows)
    assert judge(target.getvalue().encode(), size) is None


@given(st.text('ab",\n', max_size=40), st.integers(1, 9))
def test_the_answer_does_not_depend_on_how_the_file_is_read_and_rows_are_never_swallowed(text, size):
    data = text.encode()
    answer = judge(data, size)
    assert answer == judge(data, 1_000)
    if answer is not None or not data.strip():
        return
    # where it passes, Python's strict reader and Arrow's agree on the number of cells
    try:
        strict = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error:
        return
    width = len(strict[0])
    if any(len(row) != width for row in strict):
        return
    read = arrow_csv.ReadOptions(column_names=[str(n) for n in range(width)], use_threads=False)
    convert = arrow_csv.ConvertOptions(column_types={str(n): pa.string() for n in range(width)})
    parse = arrow_csv.ParseOptions(newlines_in_values=True)
    assert len(arrow_csv.read_csv(io.BytesIO(data), read, parse, convert)) == len(strict)


def test_which_line_is_open():
    check = QuoteCheck(",", "f")
    check.feed(b'a,b\n1,"x\n')
    assert check.opened == 2
    check.feed(b'y"\n')
    assert check.opened is None


def swollen(path, count: int) -> None:
    with gzip.open(path, "wb") as handle:
        handle.write(b"a,b\n" + b"1,2\n" * count)


def test_a_file_that_swells_is_stopped_and_a_short_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_stream, "_FREE_BYTES", 1 << 16)
    for name, count, bomb in (("a.csv.gz", 10_000, False), ("b.csv.gz", 500_000, True)):
        swollen(tmp_path / name, count)
        with CsvStream(tmp_path / name, name, ",") as stream:
            if not bomb:
                assert sum(map(len, iter(lambda: stream.read(1 << 16), b""))) == 4 * count + 4
                continue
            with pytest.raises(DataError, match=r"data\.bomb .*more than 200 times as many \| b\.csv\.gz"):
                list(iter(lambda: stream.read(1 << 16), b""))


def test_a_range_and_a_byte_order_mark(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfa,b\n1,2\n3,4\n")
    with CsvStream(tmp_path / "a.csv", "a.csv", ",") as stream:
        assert stream.readable()
        assert stream.read() == b"\xef\xbb\xbfa,b\n1,2\n3,4\n"
    with CsvStream(tmp_path / "a.csv", "a.csv", ",", 7, 11) as stream:
        assert stream.read(100) == b"1,2\n"
        assert stream.read(100) == b""


def test_lines_of_records(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'a,b\n1,"x\ny"\n\n\n3,4\n5,6\n')
    assert [line_of(tmp_path / "a.csv", ",", 1, record) for record in (1, 2, 3)] == [2, 6, 7]
    with gzip.open(tmp_path / "a.csv.gz", "wb") as handle:
        handle.write((tmp_path / "a.csv").read_bytes())
    assert line_of(tmp_path / "a.csv.gz", ",", 1, 2) == 6


def test_the_first_long_line(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"ab\n" + b"x" * 30 + b"\n" + b"y" * 40)
    assert [long_line(tmp_path / "a.csv", limit) for limit in (2, 20, 35, 50)] == [1, 2, 3, None]
