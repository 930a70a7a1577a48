from __future__ import annotations

import base64
import csv
import io

import pytest

from postclick.report.blocks import Part, Stage, Table

ROWS = [("=1+1", 0.25, None), ("+x", -2.0, 3), ("-x", 1, 1), ("@x", 1, 1), ('a "b", c', 1, 1), ("line\nbreak", 1, 1)]


@pytest.fixture
def table() -> Table:
    return Table.of("numbers", [("name", "text"), ("share", "percent"), ("count", "count")], ROWS)


def read(table: Table) -> list[list[str]]:
    return list(csv.reader(io.StringIO(table.csv())))


def test_formulas_are_text_and_numbers_stay_numbers(table: Table) -> None:
    rows = read(table)
    assert [row[0] for row in rows[1:5]] == ["'=1+1", "'+x", "'-x", "'@x"]
    assert rows[2][1:] == ["-2.0", "3"]
    assert rows[1][2] == ""
    assert rows[5][0] == 'a "b", c'
    assert len(rows) == 1 + len(ROWS)


def test_the_link_holds_the_csv_whole(table: Table) -> None:
    head, _, body = table.link.partition(",")
    assert head == "data:text/csv;charset=utf-8;base64"
    assert base64.b64decode(body).decode() == table.csv()


def test_numbers_are_shown_by_the_kind_of_their_column(table: Table) -> None:
    assert table.shown[0] == [("=1+1", False), ("25.0\u202f%", True), ("–", True)]


def test_a_bar_of_the_funnel_is_the_share_of_the_step_before() -> None:
    assert Stage("clicks", 25, 0.25).width == 25.0
    assert Stage("conversions", 1, 0.00001).width == 0.4
    assert Stage("conversions", 0, 0.0).width == 0.0
    assert Stage("conversions", 0, None).width == 0.0
    assert Stage("exposures", 9, None).width == 100.0


def test_a_part_without_anything_is_empty() -> None:
    assert Part(title="named").empty
    assert not Part(text=("said",)).empty
