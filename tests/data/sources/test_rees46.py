"""The source of REES46 events: whole sessions whatever the pieces, every event counted, the rows a log of clicks."""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from postclick.data.log import ExposureLog
from postclick.data.options import PrepareOptions
from postclick.data.prepare import prepare
from postclick.data.sources import rees46, tabular
from postclick.data.sources.opening import open_source
from postclick.data.sources.rees46 import holds_events, rees46_schema
from postclick.data.sources.rees46_rows import EVENTS, KINDS, NOT_OPENED
from postclick.errors import DataError
from postclick.schema import Columns, Schema, SparseFeature

ROOT = os.environ.get("POSTCLICK_DATA")
real = pytest.mark.skipif(ROOT is None, reason="POSTCLICK_DATA is not set: the real data is not here")
HEADER = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"


def events(count: int = 3_000, seed: int = 0) -> pl.DataFrame:
    """Events in the order of their times; those of a session lie far apart."""
    rng = np.random.default_rng(seed)
    product = rng.integers(1, 9, count)
    session = rng.integers(0, count // 8, count)
    start = np.datetime64("2019-10-01T00:00:00")
    return pl.DataFrame(
        {
            "event_time": [f"{str(start + second).replace('T', ' ')} UTC" for second in np.arange(count) * 40],
            "event_type": rng.choice(np.array(KINDS), count, p=[0.8, 0.1, 0.02, 0.08]),
            "product_id": product,
            "category_id": product % 3 + 2_053_013_555_631_882_655,
            "category_code": np.array(["a.b.c", "a.d", ""])[product % 3],
            "brand": np.array(["x", "y"])[product % 2],
            "price": product * 1.5,
            "user_id": session // 2,
            "user_session": [f"s{number}" for number in session],
        }
    )


@pytest.fixture
def small_parts(monkeypatch):
    """Cut files into many pieces and deal sessions out to many parts."""
    monkeypatch.setattr("postclick.data.sources.csv_ranges._PIECE_BYTES", 60_000)
    monkeypatch.setattr("postclick.data.sources.csv_ranges._BLOCK_BYTES", 20_000)
    monkeypatch.setattr(rees46, "_PART_BYTES", 70_000)
    monkeypatch.setattr(rees46, "_FLUSH_EVENTS", 150)
    monkeypatch.setattr(rees46, "BATCH_ROWS", 100)
    monkeypatch.setattr(tabular, "BATCH_ROWS", 90)


def rows_of(source) -> pl.DataFrame:
    tables = [pl.from_arrow(batch.table) for piece in source.pieces() for batch in source.read(piece)]
    return pl.concat([table for table in tables if len(table)]).sort("exposure_id")


def by_polars(frame: pl.DataFrame) -> pl.DataFrame:
    """Labels a pair, in the order of its first event."""
    found = (
        frame.with_row_index("place")
        .group_by("user_session", "product_id")
        .agg(
            pl.col("place").min().cast(pl.Int64).alias("exposure_id"),
            (pl.col("event_type") == "view").any().cast(pl.Int8).alias("click"),
            (pl.col("event_type") == "cart").any().cast(pl.Int8).alias("action"),
            (pl.col("event_type") == "purchase").any().cast(pl.Int8).alias("conversion"),
        )
    )
    opened = found.filter((pl.col("click") == 1) | (pl.col("conversion") == 1))
    return opened.select("exposure_id", "click", "action", "conversion").sort("exposure_id")


OPTIONS = PrepareOptions(orphan_conversions="set_click", min_count=1)


def whole(log: ExposureLog) -> list[tuple[int, ...]]:
    found = []
    for name in log.splits:
        labels = log.split(name).labels()
        columns = (labels.exposure_id, labels.click, labels.action, labels.conversion, labels.time)
        found += list(zip(*(column.tolist() for column in columns), strict=True))
    return sorted(found)


def test_sessions_are_whole_whatever_the_pieces(tmp_path, small_parts):
    frame = events()
    frame.write_csv(tmp_path / "a.csv")
    source = pickle.loads(pickle.dumps(open_source(tmp_path / "a.csv")))
    assert source.protocol.source == "rees46"
    assert len(source.pieces()) == 3
    assert len(source.side_pieces()) >= 3
    assert rows_of(source).select("exposure_id", "click", "action", "conversion").equals(by_polars(frame))
    log = prepare(source, tmp_path / "log", OPTIONS, jobs=1)
    expected = by_polars(frame)
    assert [row[0] for row in whole(log)] == expected["exposure_id"].to_list()
    assert [row[3] for row in whole(log)] == expected["conversion"].to_list()
    assert all(row[1] == 1 for row in whole(log))
    ledger, pairs = log.ledger, frame.select("user_session", "product_id").n_unique()
    assert ledger["rows"]["read"] == pairs
    assert ledger["rows"]["filtered"] == {NOT_OPENED: pairs - len(expected)}
    assert ledger["values"][EVENTS]["read"] == len(frame)
    assert sum(split["set_click"] for split in ledger["splits"].values()) == expected.filter(click=0).height > 0
    again = prepare(source, tmp_path / "again", OPTIONS, jobs=2)
    assert again.hash == log.hash


def test_every_form_of_the_same_events_gives_the_same_rows(tmp_path, small_parts):
    frame = events(900)
    text = frame.write_csv()
    (tmp_path / "plain.csv").write_text(text)
    with gzip.open(tmp_path / "packed.csv.gz", "wt") as handle:
        handle.write(text)
    frame.write_parquet(tmp_path / "rows.parquet", row_group_size=200)
    times = pl.col("event_time").str.strip_suffix(" UTC").str.to_datetime()
    frame.with_columns(times).write_parquet(tmp_path / "times.parquet")
    expected = rows_of(open_source(tmp_path / "plain.csv"))
    for given in ("packed.csv.gz", "rows.parquet", "times.parquet"):
        assert rows_of(open_source(tmp_path / given)).equals(expected), given
    memory = open_source(frame, key="rees46")
    assert memory.side_pieces() == []
    assert rows_of(memory).equals(expected)
    logs = [open_source(tmp_path / "plain.csv"), memory]
    assert whole(prepare(logs[0], tmp_path / "one", OPTIONS)) == whole(prepare(logs[1], tmp_path / "two", OPTIONS))


def test_a_session_that_spans_files_is_one(tmp_path):
    frame = events(600)
    frame.slice(0, 250).write_csv(tmp_path / "2019-10.csv")
    frame.slice(250).write_csv(tmp_path / "2019-11.csv")
    found = rows_of(open_source(tmp_path))
    labels = ("click", "action", "conversion")
    assert found.select(labels).equals(by_polars(frame).select(labels))
    assert set(found["exposure_id"].to_numpy() >> 40) == {0, 1}
    (piece,) = open_source(tmp_path).pieces()
    assert piece.label == "2019-10.csv and 1 more (sessions)"
    assert [Path(path).name for path in piece.paths] == ["2019-10.csv", "2019-11.csv"]


def test_roles_are_apart(tmp_path):
    frame = events(600)
    frame.slice(0, 400).write_csv(tmp_path / "a.csv")
    frame.slice(400).write_csv(tmp_path / "b.csv")
    source = open_source(train=tmp_path / "a.csv", test=tmp_path / "b.csv")
    assert [piece.role for piece in source.pieces()] == ["train", "test"]
    assert source.protocol.provider_split
    log = prepare(source, tmp_path / "log", PrepareOptions(orphan_conversions="set_click", min_count=1))
    rows = {name: len(log.split(name)) for name in log.splits}
    assert rows["train"] + rows["valid"] == by_polars(frame.slice(0, 400)).height
    assert rows["test"] == by_polars(frame.slice(400)).height


def test_an_interrupted_preparation_goes_on_with_the_events_it_has_dealt_out(tmp_path, small_parts, monkeypatch):
    events().write_csv(tmp_path / "a.csv")
    whole_log = prepare(open_source(tmp_path / "a.csv"), tmp_path / "log", OPTIONS, jobs=1)
    dealt: list[int] = []
    stage = rees46.Rees46Source.stage_side

    def interrupted(self, piece, target):
        if len(dealt) == 2:
            raise KeyboardInterrupt
        dealt.append(piece.index)
        stage(self, piece, target)

    with monkeypatch.context() as patch:
        patch.setattr(rees46.Rees46Source, "stage_side", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(open_source(tmp_path / "a.csv"), tmp_path / "cut", OPTIONS, jobs=1)
    more: list[int] = []
    monkeypatch.setattr(
        rees46.Rees46Source,
        "stage_side",
        lambda self, piece, target: (more.append(piece.index), stage(self, piece, target)),
    )
    log = prepare(open_source(tmp_path / "a.csv"), tmp_path / "cut", OPTIONS, jobs=1, resume=True)
    assert log.hash == whole_log.hash
    assert dealt == [0, 1]
    assert more == [piece.index for piece in open_source(tmp_path / "a.csv").side_pieces()][2:]


def test_a_purchase_without_a_view_is_a_conversion_without_click(tmp_path):
    frame = events(600)
    frame.write_csv(tmp_path / "a.csv")
    orphans = by_polars(frame).filter(click=0).height
    source = open_source(tmp_path / "a.csv")
    with pytest.raises(DataError, match=rf"data\.conversion_without_click .*{orphans} times.*--orphan-conversions"):
        prepare(source, tmp_path / "log")
    log = prepare(source, tmp_path / "log", PrepareOptions(max_reject_ratio=0.5), force=True)
    assert log.ledger["rows"]["rejected"] == {"data.conversion_without_click": orphans}
    rejected = pl.read_parquet(tmp_path / "log.rejects" / "*.parquet")
    assert set(rejected["click"]) == {0}
    # a row that stays without a click is out of the domain of a log of clicks
    options = PrepareOptions(orphan_conversions="view_through", max_reject_ratio=0.5)
    log = prepare(source, tmp_path / "log", options, force=True)
    assert log.ledger["rows"]["rejected"] == {"data.label_domain": orphans}


def test_a_last_line_that_is_cut_off_is_rejected_and_any_other_ragged_line_refused(tmp_path):
    lines = events(60).write_csv().splitlines()
    for name, cut in (("a.csv", lines[-1][:30]), ("b.csv", lines[-1][:45])):
        (tmp_path / name).write_text("\n".join([*lines[:-1], cut]))
        source = open_source(tmp_path / name)
        batches = [batch for piece in source.pieces() for batch in source.read(piece)]
        assert batches[0].values[EVENTS].read == 60
        assert batches[0].values[EVENTS].rejected == 1
    with gzip.open(tmp_path / "c.csv.gz", "wt") as handle:
        handle.write("\n".join([*lines[:-1], lines[-1][:30]]))
    log = prepare(open_source(tmp_path / "c.csv.gz"), tmp_path / "log", OPTIONS)
    assert log.ledger["values"][EVENTS]["rejected"] == 1
    (tmp_path / "d.csv").write_text("\n".join([*lines[:20], lines[20][:30], *lines[21:]]))
    with pytest.raises(DataError, match=r"data\.csv a ragged row: Expected 9 columns, got 3 \| d\.csv:21"):
        rows_of(open_source(tmp_path / "d.csv"))
    (tmp_path / "e.csv").write_text("\n".join([*lines[:-1], lines[-1] + ",more"]))
    with pytest.raises(DataError, match=r"data\.csv a ragged row: Expected 9 columns, got 10"):
        rows_of(open_source(tmp_path / "e.csv"))


def test_events_without_a_session_are_rejected_and_counted(tmp_path):
    frame = events(200).with_columns(
        user_session=pl.when(pl.int_range(200) % 50 == 0).then(None).otherwise(pl.col("user_session"))
    )
    frame.write_csv(tmp_path / "a.csv")
    log = prepare(open_source(tmp_path / "a.csv"), tmp_path / "log", OPTIONS)
    assert log.ledger["values"][EVENTS]["read"] == 200
    assert log.ledger["values"][EVENTS]["rejected"] == 4


def test_another_kind_of_event_is_refused_with_its_line(tmp_path):
    lines = events(60).write_csv().splitlines()
    lines[33] = lines[33].replace(lines[33].split(",")[1], "wishlist")
    (tmp_path / "a.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"data\.label_domain .* a\.csv:32:event_type \| 1 times? .*wishlist"):
        prepare(open_source(tmp_path / "a.csv"), tmp_path / "log")


def test_a_schema_of_ones_own(tmp_path):
    events(200).write_csv(tmp_path / "a.csv")
    schema = Schema((SparseFeature("brand", "item"),), Columns(user_id="user_id", time="time"), "click")
    source = open_source(tmp_path / "a.csv", schema=schema)
    assert rows_of_columns(source) == ["click", "conversion", "user_id", "time", "brand"]
    wrong = Schema((SparseFeature("brnd", "item"),), Columns(), "click")
    with pytest.raises(DataError, match=r"REES46 events give no column 'brnd' .*did you mean 'brand'"):
        open_source(tmp_path / "a.csv", schema=wrong)


def rows_of_columns(source) -> list[str]:
    piece = source.pieces()[0]
    return next(iter(source.read(piece))).table.schema.names


def test_the_schema_names_what_the_rows_have(tmp_path):
    schema = rees46_schema()
    assert schema.population == "click"
    events(50).write_csv(tmp_path / "a.csv")
    assert rows_of_columns(open_source(tmp_path / "a.csv")) == list(schema.raw_columns())


def test_events_are_known_by_their_columns(tmp_path):
    (tmp_path / "a.csv").write_text(f"{HEADER}\n")
    (tmp_path / "b.csv").write_text("user,click\n1,0\n")
    (tmp_path / "c.csv").write_bytes(b"\xff\xfe")
    assert holds_events(tmp_path / "a.csv")
    assert holds_events(tmp_path)
    assert not any(holds_events(tmp_path / name) for name in ("b.csv", "c.csv", "none.csv", "d*.csv"))


@pytest.mark.data
@real
def test_the_real_head(tmp_path):
    log = prepare(open_source(Path(ROOT or "") / "rees46"), tmp_path / "log", jobs=1)
    assert log.schema == rees46_schema()
    rows, splits, values = (log.ledger[name] for name in ("rows", "splits", "values"))
    assert (rows["read"], rows["kept"], rows["rejected"], rows["filtered"]) == (12_294, 12_294, {}, {})
    total = {name: sum(split[name] for split in splits.values()) for name in splits["train"]}
    assert (total["clicks"], total["actions"], total["conversions"]) == (12_294, 127, 211)
    assert total["conversions_without_action"] == 142
    # the file ends in the middle of its last line; two were bought before their first logged view
    assert values[EVENTS] == {"read": 17_435, "kept": 12_632, "truncated": 0, "replaced": 4_802, "rejected": 1}
    assert values["click times"]["replaced"] == 2
