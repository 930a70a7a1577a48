"""What a preparation is going to read, and whether a log is that of a plan."""

from __future__ import annotations

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from postclick.data import plan as module
from postclick.data.options import PrepareOptions
from postclick.data.partial import NEVER
from postclick.data.plan import Plan, vocabulary_folder
from postclick.data.prepare import prepare
from postclick.data.sources.opening import open_source
from postclick.errors import InputMissingError

OPTIONS = PrepareOptions(split="random", min_count=1)


@pytest.fixture
def source(tmp_path, raw_rows, mixed_schema):
    for number in range(2):
        pq.write_table(raw_rows(200, number, 200 * number), tmp_path / f"part{number}.parquet")
    return lambda: open_source(str(tmp_path / "part*.parquet"), schema=mixed_schema)


def test_rows_in_memory_have_no_fingerprint_and_one_process(make_source, raw_rows, mixed_schema):
    plan = Plan.of(make_source(mixed_schema, [raw_rows(10)]), OPTIONS)
    assert plan.in_memory
    assert plan.fingerprint(plan.pieces[0]) == NEVER
    assert plan.whole(None) == NEVER
    assert plan.jobs == 1


def test_processes_by_bytes_and_pieces(source, monkeypatch):
    plan = Plan.of(source(), OPTIONS)
    assert plan.jobs == 1
    monkeypatch.setattr(module, "processes", lambda size: 8 if size > 1_000 else 1)
    assert plan.jobs == 2


def test_equal_plans_have_equal_fingerprints_and_different_ones_do_not(source, tmp_path, raw_rows):
    first, second = Plan.of(source(), OPTIONS), Plan.of(source(), OPTIONS)
    prints = [first.fingerprint(piece) for piece in first.pieces]
    assert prints == [second.fingerprint(piece) for piece in second.pieces]
    assert len(set(prints)) == 2
    assert first.whole(None) == second.whole(None)
    others = [
        replace(OPTIONS, min_count=2),
        replace(OPTIONS, split="user"),
        replace(OPTIONS, orphan_conversions="set_click"),
    ]
    wholes = {first.whole(None), *(Plan.of(source(), options).whole(None) for options in others)}
    assert len(wholes) == 4
    assert Plan.of(source(), others[0]).fingerprint(first.pieces[0]) == prints[0]
    assert Plan.of(source(), others[2]).fingerprint(first.pieces[0]) != prints[0]
    pq.write_table(raw_rows(200, 7), tmp_path / "part1.parquet")
    third = Plan.of(source(), OPTIONS)
    changed = [third.fingerprint(piece) for piece in third.pieces]
    assert changed[0] == prints[0]
    assert changed[1] != prints[1]


def test_a_log_is_that_of_its_plan_alone(source, tmp_path):
    out = tmp_path / "log"
    plan = Plan.of(source(), OPTIONS)
    assert not plan.made(out, None)
    prepare(source(), out, OPTIONS)
    assert plan.made(out, None)
    assert not Plan.of(source(), replace(OPTIONS, min_count=2)).made(out, None)
    (out / "record.jsonl").unlink()
    assert not plan.made(out, None)


def test_a_vocabulary_is_looked_for_in_logs_and_runs(tmp_path):
    (tmp_path / "run" / "bundle" / "vocabulary").mkdir(parents=True)
    assert vocabulary_folder(tmp_path / "run") == tmp_path / "run" / "bundle" / "vocabulary"
    with pytest.raises(InputMissingError, match=r"input\.wrong_kind there is no vocabulary here"):
        vocabulary_folder(tmp_path)
