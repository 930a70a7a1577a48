"""Source to log: ledger, splits, quarantine, hashes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postclick import files
from postclick.data.ledger import Ledger
from postclick.data.log import ExposureLog
from postclick.data.prepare import PrepareOptions, prepare
from postclick.data.sources.base import SourceProtocol, ValueCounts
from postclick.data.vocabulary import Vocabulary
from postclick.errors import ConfigError, DataError, InputMissingError, PostclickError, StorageError
from postclick.schema import Columns, DenseFeature, EmbeddingFeature, Schema, SequenceFeature, SparseFeature

ALL = PrepareOptions(split="random", min_count=1, max_reject_ratio=1.0)


def test_the_log_holds_every_row_once_and_the_ledger_adds_up(tmp_path, make_source, raw_rows, mixed_schema):
    tables = [raw_rows(1_500), raw_rows(500, 1, 1_500)]
    log = prepare(make_source(mixed_schema, tables), tmp_path / "log")
    assert sorted(np.concatenate([log.split(s).labels().exposure_id for s in log.splits])) == list(range(2_000))
    ledger = Ledger.from_dict(log.ledger)
    ledger.check()
    assert ledger.read == ledger.kept_rows == 2_000
    clicks = sum(int(table.column("click").to_numpy().sum()) for table in tables)
    assert sum(funnel.clicks for funnel in ledger.kept.values()) == clicks
    tags = [value for table in tables for value in table.column("tags").to_pylist()]
    counts = ledger.values["tags"]
    assert counts.read == sum(map(len, tags))
    assert counts.truncated == sum(max(0, len(value) - 3) for value in tags)
    assert files.read_json(log.path / "audit.json")["split"]["kind"] == "time"
    assert not (tmp_path / "log.rejects").exists()
    assert not list(log.path.glob(".*"))


def test_time_splits_80_10_10_in_order(tmp_path, make_source, raw_rows, mixed_schema):
    log = prepare(make_source(mixed_schema, [raw_rows(1_000)]), tmp_path / "log")
    times = [log.split(name).labels().time for name in ("train", "valid", "test")]
    assert [len(part) for part in times] == [800, 100, 100]
    assert times[0].max() < times[1].min()
    assert times[1].max() < times[2].min()
    assert times[2].max() == 999 * 1_000_000


def test_rows_keep_their_features_and_labels(tmp_path, make_source, raw_rows, mixed_schema):
    table = raw_rows(300)
    log = prepare(make_source(mixed_schema, [table], batch_rows=70), tmp_path / "log", replace(ALL, split="time"))
    vocabulary = Vocabulary.load(log.path / "vocabulary")
    for name in log.splits:
        rows = log.split(name).read()
        at = pa.array(rows.labels.exposure_id)
        source = table.take(at)
        np.testing.assert_array_equal(rows.labels.click, source.column("click").to_numpy())
        np.testing.assert_array_equal(rows.labels.conversion, source.column("conversion").to_numpy())
        for place, field in enumerate(("uid", "shop")):
            wanted = vocabulary.rows_of(field, source.column(field).combine_chunks())
            np.testing.assert_array_equal(rows.rows[:, place], wanted)
        ragged = rows.sequences[0]
        tags = vocabulary.decode("tags", ragged.values).to_pylist()
        for index, wanted in enumerate(source.column("tags").to_pylist()):
            got = tags[ragged.offsets[index] : ragged.offsets[index + 1]]
            # a tag that no training row has is unknown
            assert all(value in (None, known) for value, known in zip(got, wanted[:3], strict=True))


def test_equal_inputs_give_equal_hashes(tmp_path, make_source, raw_rows, mixed_schema):
    source = make_source(mixed_schema, [raw_rows(800), raw_rows(700, 3, 800)])
    first, second = (prepare(source, tmp_path / name, ALL) for name in ("a", "b"))
    assert first.hash == second.hash
    assert first.hash != prepare(source, tmp_path / "c", replace(ALL, split="user")).hash
    files.verify(first.path, first.manifest)


def test_the_number_of_processes_does_not_change_the_log(tmp_path, raw_rows, mixed_schema):
    from postclick.data.sources.opening import open_source

    for number in range(2):
        pq.write_table(raw_rows(400, number, 400 * number), tmp_path / f"part{number}.parquet")
    source = open_source(str(tmp_path / "part*.parquet"), schema=mixed_schema)
    assert len(source.pieces()) == 2
    alone = prepare(source, tmp_path / "alone", ALL)
    together = prepare(source, tmp_path / "together", ALL, jobs=2)
    assert alone.hash == together.hash


def test_the_size_of_batches_does_not_change_what_a_row_holds(tmp_path, make_source, raw_rows, mixed_schema):
    tables = [raw_rows(900)]
    logs = [prepare(make_source(mixed_schema, tables, batch_rows=n), tmp_path / f"l{n}", ALL) for n in (37, 900)]
    assert files.sha256(logs[0].path / "vocabulary" / "vocabulary.json") == files.sha256(
        logs[1].path / "vocabulary" / "vocabulary.json"
    )
    np.testing.assert_array_equal(logs[0].split("train").read().rows, logs[1].split("train").read().rows)


def test_neither_rows_nor_pieces_are_held_at_once(tmp_path, make_source, raw_rows, mixed_schema, monkeypatch):
    """A block is encoded as soon as it is full, so at most a block and a batch wait at any time."""
    from postclick.data import passes

    sizes = []
    original = passes.to_arrow
    monkeypatch.setattr(passes, "BLOCK_ROWS", 128)
    monkeypatch.setattr(passes, "to_arrow", lambda e, s: sizes.append(len(e)) or original(e, s))
    log = prepare(make_source(mixed_schema, [raw_rows(2_000)], batch_rows=100), tmp_path / "log", ALL)
    assert max(sizes) == 128
    assert log.split("train").num_blocks > 10


ORPHANS = {"click": [0, 0, 1, 1], "conversion": [1, 0, 1, 0]}


@pytest.mark.parametrize(
    ("policy", "kept", "clicks", "conversions", "view_through", "set_click"),
    [("reject", 3, 2, 1, 0, 0), ("set_click", 4, 3, 2, 0, 1), ("view_through", 4, 2, 1, 1, 0)],
)
def test_conversions_without_click_follow_the_policy(
    tmp_path, make_source, policy, kept, clicks, conversions, view_through, set_click
):
    schema = Schema((SparseFeature("f"),), Columns())
    table = pa.table({"f": [1, 2, 3, 4], **ORPHANS})
    options = replace(ALL, orphan_conversions=policy, split="provider")
    log = prepare(make_source(schema, [table, table.slice(1)], ["train", "test"]), tmp_path / "log", options)
    ledger = Ledger.from_dict(log.ledger)
    splits = [ledger.kept[name] for name in ("train", "valid") if name in ledger.kept]
    assert sum(s.rows for s in splits) == kept
    assert sum(s.clicks for s in splits) == clicks
    assert sum(s.conversions for s in splits) == conversions
    assert sum(s.view_through for s in splits) == view_through
    assert sum(s.set_click for s in splits) == set_click
    assert ledger.rejected.get("data.conversion_without_click", 0) == 4 - kept
    words = [v["text"] for v in files.read_json(log.path / "audit.json")["verdicts"]]
    assert any(f"policy: {policy}" in text for text in words)


def faulty(rows: int = 1_000) -> pa.Table:
    """Row 500, where there is one, has no label."""
    click = np.zeros(rows)
    click[::3] = 1
    click[500:501] = np.nan
    return pa.table({"f": np.arange(rows) % 7, "click": click, "conversion": np.zeros(rows)})


FAULTY_SCHEMA = Schema((SparseFeature("f"),), Columns())


def test_a_thousandth_of_faulty_rows_goes_to_quarantine(tmp_path, make_source):
    source = make_source(FAULTY_SCHEMA, [faulty()], batch_rows=300)
    log = prepare(source, tmp_path / "log", PrepareOptions(split="random", max_reject_ratio=0.001))
    assert log.ledger["rows"] == {"read": 1_000, "kept": 999, "rejected": {"data.label_missing": 1}, "filtered": {}}
    (path,) = (tmp_path / "log.rejects").glob("*.parquet")
    (row,) = pq.read_table(path).to_pylist()
    assert (row["reason"], row["file"], row["row"], row["f"]) == ("data.label_missing", "table0", 500, 500 % 7)


def test_more_faulty_rows_stop_it_and_leave_no_log(tmp_path, make_source):
    source = make_source(FAULTY_SCHEMA, [faulty(999)])
    with pytest.raises(DataError) as caught:
        prepare(source, tmp_path / "log", PrepareOptions(split="random"))
    (finding,) = caught.value.findings
    assert (finding.code, finding.count, finding.where) == ("data.label_missing", 1, "table0:500:click")
    assert "--max-reject-ratio" in finding.fix
    assert caught.value.exit_code == 65
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.rejects"]
    assert pq.read_table(next((tmp_path / "log.rejects").glob("*.parquet"))).num_rows == 1


def test_a_second_try_replaces_the_rejects_and_removes_them_when_there_are_none(tmp_path, make_source):
    options = PrepareOptions(split="random")
    with pytest.raises(DataError):
        prepare(make_source(FAULTY_SCHEMA, [faulty(600)]), tmp_path / "log", options)
    prepare(make_source(FAULTY_SCHEMA, [faulty(500)]), tmp_path / "log", options)
    assert not (tmp_path / "log.rejects").exists()


def test_a_folder_that_is_not_ours_is_not_replaced(tmp_path, make_source):
    (tmp_path / "log.rejects").mkdir()
    (tmp_path / "log.rejects" / "mine").write_text("keep")
    with pytest.raises(StorageError, match=r"io\.exists"):
        prepare(make_source(FAULTY_SCHEMA, [faulty(500)]), tmp_path / "log", PrepareOptions(split="random"))
    assert (tmp_path / "log.rejects" / "mine").read_text() == "keep"


def test_an_existing_log_stays_unless_forced(tmp_path, make_source, raw_rows, mixed_schema):
    log = prepare(make_source(mixed_schema, [raw_rows(300)]), tmp_path / "log")
    with pytest.raises(StorageError) as caught:
        prepare(make_source(mixed_schema, [raw_rows(200)]), tmp_path / "log")
    assert caught.value.exit_code == 73
    assert ExposureLog(tmp_path / "log").hash == log.hash
    assert prepare(make_source(mixed_schema, [raw_rows(200)]), tmp_path / "log", force=True).hash != log.hash


def test_several_faults_are_reported_together_in_trusts_order(tmp_path, make_source):
    schema = Schema((DenseFeature("x"),), Columns(sample_weight="w"))
    table = pa.table(
        {
            "x": [1.0, np.inf, 2.0, 3.0, 4.0],
            "w": [1.0, 1.0, -1.0, 1.0, 1.0],
            "click": [1, 1, 0, 2, 0],
            "conversion": [0, 0, 1, 0, 0],
        }
    )
    with pytest.raises(DataError) as caught:
        prepare(make_source(schema, [table]), tmp_path / "log", PrepareOptions(split="random"))
    codes = ["data.label_domain", "data.conversion_without_click", "data.non_finite", "data.weights"]
    assert [finding.code for finding in caught.value.findings] == codes
    assert not (tmp_path / "log").exists()


def test_weights_out_of_range_are_refused_even_where_rejects_are_allowed(tmp_path, make_source):
    schema = Schema((SparseFeature("f"),), Columns(propensity="p"))
    table = pa.table({"f": [1, 2], "p": [0.5, 1.5], "click": [1, 0], "conversion": [0, 0]})
    with pytest.raises(DataError, match=r"data\.weights.*\(0, 1\].*1\.5"):
        prepare(make_source(schema, [table]), tmp_path / "log", ALL)


def test_no_rows_is_input_missing(tmp_path, make_source, raw_rows, mixed_schema):
    with pytest.raises(InputMissingError) as caught:
        prepare(make_source(mixed_schema, [raw_rows(0)]), tmp_path / "log")
    assert (caught.value.code, caught.value.exit_code) == ("data.empty", 66)
    assert not list(tmp_path.iterdir())


def test_an_empty_file_among_others_is_listed(tmp_path, make_source, raw_rows, mixed_schema):
    log = prepare(make_source(mixed_schema, [raw_rows(0), raw_rows(300)]), tmp_path / "log")
    verdicts = files.read_json(log.path / "audit.json")["verdicts"]
    assert any(v["code"] == "data.empty" and "table0" in v["text"] for v in verdicts)


def test_without_time_or_roles_a_split_must_be_named(tmp_path, make_source):
    with pytest.raises(ConfigError) as caught:
        prepare(make_source(FAULTY_SCHEMA, [faulty(100)]), tmp_path / "log")
    assert caught.value.exit_code == 78
    assert "--split user" in str(caught.value)


def test_the_providers_train_gives_a_tenth_to_valid(tmp_path, make_source, raw_rows, mixed_schema):
    source = make_source(mixed_schema, [raw_rows(3_000), raw_rows(500, 1, 3_000)], ["train", "test"])
    log = prepare(source, tmp_path / "log")
    sizes = {name: len(log.split(name)) for name in log.splits}
    assert sizes["test"] == 500
    assert sizes["train"] + sizes["valid"] == 3_000
    assert 230 < sizes["valid"] < 370


def test_overlapping_splits_are_refused_unless_allowed(tmp_path, make_source, raw_rows, mixed_schema):
    train, test = raw_rows(100), raw_rows(100, 1, 90)
    source = make_source(mixed_schema, [train, test], ["train", "test"])
    with pytest.raises(DataError) as caught:
        prepare(source, tmp_path / "log")
    codes = [(finding.code, finding.count) for finding in caught.value.findings]
    assert codes == [("data.split_leak", 10), ("data.split_leak", None)]
    log = prepare(source, tmp_path / "log", PrepareOptions(allow_overlap=True))
    body = files.read_json(log.path / "audit.json")
    assert body["split"]["overlap"] == {
        "keys": {"train-test": 10},
        "time_us": {"train-test": 9_000_000},
        "allowed": True,
    }
    assert log.ledger["rows"]["kept"] == 200
    declared = SourceProtocol("ratings", provider_split=True, allow_overlap=True, notes=("Ratings at random.",))
    ours = make_source(mixed_schema, [train, test], ["train", "test"], protocol=declared)
    audit = files.read_json(prepare(ours, tmp_path / "second").path / "audit.json")
    assert audit["protocol"]["allow_overlap"]
    assert any("Ratings at random." in verdict["text"] for verdict in audit["verdicts"])


def test_later_copies_of_an_exposure_are_rejected(tmp_path, make_source, raw_rows, mixed_schema):
    table = raw_rows(500)
    twin = table.slice(10, 5)
    flipped = twin.set_column(
        twin.schema.get_field_index("click"), "click", pa.array(1 - twin.column("click").to_numpy())
    )
    flipped = flipped.set_column(flipped.schema.get_field_index("conversion"), "conversion", pa.array([0] * 5))
    source = make_source(mixed_schema, [table, table.slice(200, 20), flipped])
    log = prepare(source, tmp_path / "log", PrepareOptions(max_reject_ratio=0.1))
    assert log.ledger["rows"]["rejected"] == {"data.duplicate_key": 25}
    body = files.read_json(log.path / "audit.json")
    assert body["duplicates"] == {"exact": 20, "conflicting": 5}
    ids = np.concatenate([log.split(name).labels().exposure_id for name in log.splits])
    assert sorted(ids) == list(range(500))
    labels = log.split("train").labels()
    np.testing.assert_array_equal(labels.click, table.column("click").to_numpy()[labels.exposure_id])
    rejects = [pq.read_table(path) for path in sorted((tmp_path / "log.rejects").glob("*.parquet"))]
    assert [(part.num_rows, part.column("file")[0].as_py()) for part in rejects] == [(20, "table1"), (5, "table2")]
    assert rejects[0].column("row").to_pylist() == list(range(20))


def test_copies_beyond_the_ratio_stop_it(tmp_path, make_source, raw_rows, mixed_schema):
    table = raw_rows(100)
    with pytest.raises(DataError, match=r"data\.duplicate_key.*table1:0:id.*100 times"):
        prepare(make_source(mixed_schema, [table, table]), tmp_path / "log")


def test_without_an_exposure_id_file_and_row_serve(tmp_path, make_source):
    table = faulty(400)
    log = prepare(make_source(FAULTY_SCHEMA, [table, table]), tmp_path / "log", PrepareOptions(split="random"))
    ids = np.concatenate([log.split(name).labels().exposure_id for name in log.splits])
    assert sorted(ids) == [*range(400), *((1 << 40) + row for row in range(400))]
    assert files.read_json(log.path / "audit.json")["duplicates"] is None


def test_a_source_of_test_rows_alone_asks_for_inspect(tmp_path, make_source, raw_rows, mixed_schema):
    with pytest.raises(DataError, match="postclick inspect"):
        prepare(make_source(mixed_schema, [raw_rows(50)], ["test"]), tmp_path / "log")


def test_a_given_vocabulary_is_used_as_it_is_or_grown(tmp_path, make_source, raw_rows, mixed_schema):
    options = PrepareOptions(min_count=1)
    first = prepare(make_source(mixed_schema, [raw_rows(300)]), tmp_path / "first", options)
    later = make_source(mixed_schema, [raw_rows(2_000, 5, 300)])
    fixed = prepare(later, tmp_path / "fixed", replace(options, vocabulary=first.path))
    grown = prepare(later, tmp_path / "grown", replace(options, vocabulary=first.path, grow=True))
    base, same, more = (Vocabulary.load(log.path / "vocabulary") for log in (first, fixed, grown))
    assert same.table_rows == base.table_rows < more.table_rows
    assert more.extends(base)
    assert not base.extends(more)
    for name in ("vocabulary/vocabulary.json", "vocabulary/transforms.json", "vocabulary/001.arrow"):
        assert first.manifest.files[name] == fixed.manifest.files[name]
    only_test = make_source(mixed_schema, [raw_rows(50)], ["test"])
    assert prepare(only_test, tmp_path / "test", replace(options, vocabulary=first.path)).splits == ("test",)
    with pytest.raises(InputMissingError, match="there is no vocabulary here"):
        prepare(later, tmp_path / "none", replace(options, vocabulary=tmp_path))


def test_truth_is_kept_for_kept_exposures(tmp_path, make_source, raw_rows, mixed_schema):
    table = raw_rows(200)
    p = np.linspace(0.1, 0.9, 300)
    order = np.random.default_rng(0).permutation(300)
    truth = pa.table({"exposure_id": order, "ctr": p[order], "cvr_do": p[order] / 2, "cvr_click": p[order] / 3})
    truth = truth.append_column("ctcvr", pa.array(p[order] ** 2 / 3))
    pq.write_table(truth, tmp_path / "truth.parquet")
    source = make_source(mixed_schema, [table])
    log = prepare(source, tmp_path / "log", truth=tmp_path / "truth.parquet")
    found = log.truth("test")
    np.testing.assert_array_equal(found.ctr, p[log.split("test").labels().exposure_id])
    pq.write_table(truth.slice(0, 250), tmp_path / "short.parquet")
    with pytest.raises(DataError, match="exposures without truth"):
        prepare(source, tmp_path / "second", truth=tmp_path / "short.parquet")


def test_a_type_that_changes_between_files_is_refused(tmp_path, make_source):
    tables = [
        pa.table({"f": f, "click": [1, 0], "conversion": [0, 0]}) for f in ([1, 2], pa.array([None, None]), ["a", "b"])
    ]
    prepare(make_source(FAULTY_SCHEMA, tables[:2]), tmp_path / "fine", ALL)
    with pytest.raises(DataError, match=r"data\.schema_mismatch column 'f' is integer in table0 and text in table2"):
        prepare(make_source(FAULTY_SCHEMA, tables), tmp_path / "log", ALL)


def test_missing_columns_are_all_named(tmp_path, make_source, mixed_schema, raw_rows):
    table = (
        raw_rows(10)
        .drop_columns(["price"])
        .rename_columns(["id", "uid", "shopp", "tags", "when", "click", "conversion"])
    )
    with pytest.raises(DataError) as caught:
        prepare(make_source(mixed_schema, [table]), tmp_path / "log")
    assert [finding.what for finding in caught.value.findings] == [
        "there is no column 'shop'",
        "there is no column 'price'",
    ]
    assert "did you mean 'shopp'?" in str(caught.value)


def test_an_outcome_among_the_features_is_refused_by_name(tmp_path, make_source):
    schema = Schema((SparseFeature("is_buy"), SparseFeature("f"), SparseFeature("Click_Time")), Columns())
    with pytest.raises(DataError) as caught:
        prepare(make_source(schema, []), tmp_path / "log")
    assert [(f.code, f.where) for f in caught.value.findings] == [
        ("data.leakage", "is_buy"),
        ("data.leakage", "Click_Time"),
    ]


def test_wrong_options_are_reported_together():
    with pytest.raises(ConfigError) as caught:
        PrepareOptions(min_count=0, max_reject_ratio=2.0, orphan_conversions="drop")
    assert len(caught.value.findings) == 3


def test_vectors_and_text_ids_go_through(tmp_path, make_source):
    schema = Schema(
        (EmbeddingFeature("v", 2), SequenceFeature("words", separator="|", min_count=1)),
        Columns(exposure_id="key", user_id="who", campaign="c"),
    )
    table = pa.table(
        {
            "v": pa.array([[1.0, 2.0], None, [3.0, 4.0], [np.nan, 0.0]]),
            "words": ["a|b", "", None, "b||c"],
            "key": ["x", "y", "z", "w"],
            "who": ["u1", None, "u2", "u3"],
            "c": pa.nulls(4),
            "click": [True, False, True, True],
            "conversion": ["1", "0", "1.0", "0"],
        }
    )
    source = make_source(schema, [table], ["train"], batch_rows=2)
    log = prepare(source, tmp_path / "log", PrepareOptions(max_reject_ratio=0.5))
    assert log.ledger["rows"]["rejected"] == {"data.non_finite": 1}
    assert log.ledger["values"]["words"] == {"read": 5, "kept": 2, "truncated": 0, "replaced": 0, "rejected": 3}
    rows = log.split("train").read()
    place = {key: index for index, key in enumerate(rows.labels.exposure_id)}
    found = {key: rows.embeddings[index].tolist() for key, index in place.items()}
    assert found.items() <= {"x": [1.0, 2.0], "y": [0.0, 0.0], "z": [3.0, 4.0]}.items()
    assert found


def test_what_the_source_did_to_values_enters_the_ledger(tmp_path, make_source, raw_rows, mixed_schema):
    done = {"uid": ValueCounts(read=3, replaced=3), "elsewhere": ValueCounts(read=1, rejected=1)}
    log = prepare(make_source(mixed_schema, [raw_rows(1_000)], values=done, batch_rows=500), tmp_path / "log")
    assert log.ledger["values"]["uid"] == {"read": 1_006, "kept": 1_000, "truncated": 0, "replaced": 6, "rejected": 0}
    assert log.ledger["values"]["elsewhere"]["rejected"] == 2
    lost = {"uid": ValueCounts(read=3, replaced=2)}
    with pytest.raises(PostclickError, match=r"internal\.ledger"):
        prepare(make_source(mixed_schema, [raw_rows(100)], values=lost), tmp_path / "second")
    assert not (tmp_path / "second").exists()


LABEL = st.sampled_from([0, 1, 0, 1, 0, 1, None, 2, -1])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            LABEL,
            LABEL,
            st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True, width=32)),
            st.one_of(st.none(), st.lists(st.one_of(st.none(), st.integers(-5, 5)), max_size=5)),
            st.integers(0, 6),
        ),
        min_size=1,
        max_size=40,
    ),
    policy=st.sampled_from(["reject", "set_click", "view_through"]),
)
def test_in_is_kept_and_rejected_for_rows_and_values(tmp_path, make_source, rows, policy):
    schema = Schema((DenseFeature("x", missing="zero"), SequenceFeature("s", max_length=2)), Columns(exposure_id="id"))
    names = ("click", "conversion", "x", "s", "id")
    types = (pa.int64(), pa.int64(), pa.float64(), pa.list_(pa.int64()), pa.int64())
    columns = {name: pa.array([row[i] for row in rows], types[i]) for i, name in enumerate(names)}
    source = make_source(schema, [pa.table(columns)], ["train"], batch_rows=7)
    options = PrepareOptions(max_reject_ratio=1.0, orphan_conversions=policy, min_count=1)
    try:
        log = prepare(source, tmp_path / "log", options, force=True)
    except PostclickError as error:
        assert error.code in ("data.empty", "data.no_train")  # noqa: PT017 - every row may be faulty
        return
    ledger = Ledger.from_dict(log.ledger)
    ledger.check()
    assert ledger.read == len(rows)
    assert ledger.values["s"].read == sum(len(row[3] or ()) for row in rows)
    stored = [log.split(name).labels() for name in log.splits]
    assert sum(map(len, stored)) == ledger.kept_rows
    quarantine = sum(pq.read_table(path).num_rows for path in (tmp_path / "log.rejects").glob("*.parquet"))
    assert quarantine == ledger.rejected_rows
    for labels in stored:
        assert set(labels.click) <= {0, 1}
        assert not ((labels.conversion == 1) & (labels.click == 0)).any()
