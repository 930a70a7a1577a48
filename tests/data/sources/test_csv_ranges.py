"""Ranges of a CSV hold whole records, all of them once, and know their numbers."""

from __future__ import annotations

import csv
import io

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postclick.data.sources import csv_ranges as module
from postclick.data.sources.csv_files import csv_batches
from postclick.data.sources.csv_ranges import CsvRange, csv_ranges
from postclick.data.sources.opening import open_source
from postclick.errors import DataError
from postclick.schema import Columns, DenseFeature, Schema, SparseFeature
from postclick.schema.csv_text import open_csv

SCHEMA = Schema((SparseFeature("word"), DenseFeature("x")), Columns())


@pytest.fixture
def small(monkeypatch):
    """Cut every few bytes."""
    monkeypatch.setattr(module, "_PIECE_BYTES", 40)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 24)


def read(path, ranges, skip=1, columns=3):
    """Return the rows of each range as Arrow reads them."""
    types = {str(place): pa.string() for place in range(columns)}
    found = []
    for part in ranges:
        with open_csv(path, "x.csv", ",", skip, types, [], (part.start, part.end)) as reader:
            found.append([tuple(row.values()) for batch in reader for row in batch.to_pylist()])
    return found


cell = st.text(st.sampled_from('ab ,"\n'), max_size=6).map(lambda text: text.strip('"') or "a")


@given(
    st.lists(st.tuples(st.integers(0, 99).map(str), cell, cell), min_size=1, max_size=30),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.lists(st.integers(0, 30), max_size=4),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_the_ranges_together_are_the_file(tmp_path, small, rows, ending, mark, blanks):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=ending)
    writer.writerow(["n", "one", "two"])
    for number, row in enumerate(rows):
        text.write(ending * blanks.count(number))
        writer.writerow(row)
    path = tmp_path / "x.csv"
    path.write_bytes((b"\xef\xbb\xbf" if mark else b"") + text.getvalue().encode())
    ranges = csv_ranges(path, "x.csv", ",", 1)
    parts = read(path, ranges)
    assert [row for part in parts for row in part] == read(path, [CsvRange()])[0]
    assert [part.first_row for part in ranges] == [sum(map(len, parts[:at])) for at in range(len(parts))]
    if path.stat().st_size > 200 and not any('"' in value for row in rows for value in row):
        assert len(ranges) > 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("n,a,b\n" + '1,5" pipe,x\n' * 20, "a quote inside a cell"),
        ("n,a,b\n" + "1,x,y\r2,z,w\n" * 20, "a carriage return alone"),
        ("n,a,b\n", "short"),
    ],
)
def test_what_only_the_parser_can_tell_stays_whole(tmp_path, small, text, why):
    path = tmp_path / "x.csv"
    path.write_bytes(text.encode())
    assert csv_ranges(path, "x.csv", ",", 1) == [CsvRange()], why


def test_compressed_files_stay_whole(tmp_path, small):
    path = tmp_path / "x.csv.gz"
    path.write_bytes(b"\x1f\x8b" + bytes(500))
    assert csv_ranges(path, "x.csv.gz", ",", 1) == [CsvRange()]


def test_a_source_reads_its_ranges_with_their_row_numbers(tmp_path, small):
    path = tmp_path / "x.csv"
    lines = [f"w{row % 7},{row}.5,{row % 2},0\n" for row in range(100)]
    path.write_text("word,x,click,conversion\n" + "".join(lines))
    source = open_source(path, schema=SCHEMA)
    pieces = source.pieces()
    assert len(pieces) > 10
    for piece in reversed(pieces):
        for batch in source.read(piece):
            wanted = [row + 0.5 for row in range(batch.first_row, batch.first_row + batch.table.num_rows)]
            assert batch.table.column("x").to_pylist() == wanted
    assert sum(batch.table.num_rows for piece in pieces for batch in source.read(piece)) == 100


@pytest.mark.parametrize(
    ("bad", "message"),
    [("w,many,0,0", r"a word \| x\.csv:82:x .*many"), ("w,1.0,0", r"ragged row: .* \| x\.csv:82 ")],
)
def test_a_fault_in_a_later_range_names_its_line_in_the_file(tmp_path, small, bad, message):
    path = tmp_path / "x.csv"
    lines = [f"w{row % 7},{row}.5,{row % 2},0" for row in range(100)]
    path.write_text("word,x,click,conversion\n" + "\n".join(lines) + "\n")
    source = open_source(path, schema=SCHEMA)
    lines[80] = bad
    path.write_text("word,x,click,conversion\n" + "\n".join(lines) + "\n")
    ranges = csv_ranges(path, "x.csv", ",", 1)
    assert len(ranges) > 10

    def read():
        for part in ranges:
            list(csv_batches(source.files[0], source.csv["x.csv"], SCHEMA, source.kinds, part))

    with pytest.raises(DataError, match=message):
        read()


def test_an_open_quote_is_found_before_anything_is_read(tmp_path, small):
    path = tmp_path / "x.csv"
    path.write_text("n,a,b\n" + "1,x,y\n" * 20 + '2,"x,y\n' + "3,x,y\n" * 20)
    with pytest.raises(DataError, match=r"never closed \| x\.csv:22"):
        csv_ranges(path, "x.csv", ",", 1)
