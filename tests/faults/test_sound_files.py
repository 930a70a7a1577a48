"""The other side of each fault: what only looks like one is read, counted and noted; output that is safe to look at."""

from __future__ import annotations

import gzip
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from planted import (
    FEATURES,
    ROWS,
    START,
    changed,
    clicks_before,
    immature,
    missing_column,
    overlapping,
    prepare,
    rows,
    sequences,
    too_many_values,
    write,
)
from postclick.data.arrays import CENSORED
from postclick.data.ledger import Ledger
from postclick.data.log import ExposureLog
from postclick.schema import DenseFeature, SparseFeature


def verdicts(said, code: str) -> list[str]:
    return [verdict["text"] for verdict in said.json["audit"]["verdicts"] if verdict["code"] == code]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_d06_empty_files_among_others_are_fine_and_listed(form: str, tmp_path: Path, say: Callable) -> None:
    body = rows()
    write(tmp_path, "a", {name: values[:0] for name, values in body.items()}, form)
    write(tmp_path, "b", body, form)
    if form == "csv":
        (tmp_path / "c.csv").write_bytes(b"")
    said = say(*prepare(tmp_path, tmp_path / f"*.{form}"), "--json")
    assert said.code == 0, said.err
    empty = ["a.csv holds no rows.", "c.csv holds no rows."] if form == "csv" else ["a.parquet holds no rows."]
    assert verdicts(said, "data.empty") == empty
    assert said.json["ledger"]["rows"]["read"] == ROWS


def test_d06_a_file_without_row_groups_is_listed(tmp_path: Path, say: Callable) -> None:
    import pyarrow.parquet as pq

    path = write(tmp_path, "b", rows(), "parquet")
    pq.ParquetWriter(tmp_path / "a.parquet", pq.read_schema(path)).close()
    said = say(*prepare(tmp_path, tmp_path / "*.parquet"), "--json")
    assert said.code == 0, said.err
    assert verdicts(said, "data.empty") == ["a.parquet holds no rows."]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_d09_an_extra_column_is_ignored_with_a_note_and_a_missing_one_says_who_has_it(
    form: str, tmp_path: Path, say: Callable
) -> None:
    body = rows(500)
    write(tmp_path, "a", body, form)
    write(tmp_path, "b", {**body, "id": body["id"] + 500, "extra": body["item"]}, form)
    said = say(*prepare(tmp_path, tmp_path / f"*.{form}"), "--json")
    assert said.code == 0, said.err
    assert any(f"ignored: extra (first in b.{form})" in text for text in verdicts(said, "audit.protocol"))
    for path in tmp_path.glob(f"*.{form}"):
        path.unlink()
    refused = say(*missing_column(tmp_path, form), "--json", "--force")
    assert refused.findings[0]["fix"] == f"did you mean 'price_eur'?; a.{form} has it"


def test_d13_hashing_is_the_way_out_and_its_collisions_are_said(tmp_path: Path, say: Callable) -> None:
    said = say(*too_many_values(tmp_path, "csv"), "--json")
    assert "MB of embeddings" in said.findings[0]["what"]
    features = [SparseFeature("id", hash_buckets=50, expected_values=20), *FEATURES]
    said = say(*prepare(tmp_path, tmp_path / "rows.csv", features=features), "--json")
    assert said.code == 0, said.err
    assert said.json["audit"]["collisions"]["id"] > 0.9


def test_d15_a_good_feature_is_not_taken_for_a_leak(tmp_path: Path, say: Callable) -> None:
    body = rows()
    body["good"] = body["click"] + np.random.default_rng(3).normal(0, 0.5, ROWS)  # AUC about .92
    argv = prepare(tmp_path, write(tmp_path, "rows", body, "parquet"), features=(*FEATURES, DenseFeature("good")))
    said = say(*argv, "--json")
    assert said.code == 0, said.err
    entry = said.json["audit"]["leakage"]["good"]["click"]
    assert 0.85 < entry["low"] < entry["auc"] < 0.97
    assert entry["positives"] >= 50


def test_d15_fewer_than_fifty_positives_prove_nothing(tmp_path: Path, say: Callable) -> None:
    body = rows(400)
    body["conversion"][np.flatnonzero(body["conversion"])[40:]] = 0
    body["paid_cents"] = body["conversion"] * 100
    argv = prepare(tmp_path, write(tmp_path, "rows", body, "parquet"), features=(*FEATURES, DenseFeature("paid_cents")))
    assert say(*argv).code == 0


def test_d17_the_tolerance_is_the_schemas(tmp_path: Path, say: Callable) -> None:
    argv = changed(at=clicks_before, with_click_time="at", with_clock_tolerance=120.0)(tmp_path, "csv")
    said = say(*argv, "--json")
    assert said.code == 0, said.err
    assert any("read as seconds since 1970" in text for text in verdicts(said, "audit.protocol"))


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_d17_a_time_without_zone_is_noted(form: str, tmp_path: Path, say: Callable) -> None:
    body = rows()
    body["ts"] = pa.array(np.asarray(body["ts"], "datetime64[s]"))
    said = say(*prepare(tmp_path, write(tmp_path, "rows", body, form), split="time"), "--json")
    assert said.code == 0, said.err
    assert any("name no time zone and are read as UTC" in text for text in verdicts(said, "audit.protocol"))


def test_d17_half_of_the_rows_in_another_unit_stop_it(tmp_path: Path, say: Callable) -> None:
    body = rows()
    body["ts"] = np.where(np.arange(ROWS) % 2, body["ts"], body["ts"] * 1_000)
    write(tmp_path, "rows", body, "parquet")
    for unit, count in (("s", ROWS // 2), ("ms", ROWS // 2)):
        said = say(*prepare(tmp_path, tmp_path / "rows.parquet", time_unit=unit), "--json")
        assert (said.code, said.findings[0]["code"], said.findings[0]["count"]) == (65, "data.time_order", count)
        assert "columns.time_unit" in said.findings[0]["fix"]


@pytest.mark.parametrize("same_ids", [True, False])
def test_d18_an_overlap_that_is_allowed_marks_the_audit(same_ids: bool, tmp_path: Path, say: Callable) -> None:
    argv = overlapping(same_ids)(tmp_path, "parquet")
    said = say(*argv, "--allow-overlap", "--json")
    assert said.code == 0
    assert any("this was allowed" in text for text in verdicts(said, "data.split_leak"))
    assert said.json["audit"]["options"]["allow_overlap"] is True


def test_d19_open_windows_are_censored_where_the_schema_says_so(tmp_path: Path, say: Callable) -> None:
    refused = say(*immature(tmp_path, "parquet"), "--json")
    count = refused.findings[0]["count"]
    path, window = tmp_path / "rows.parquet", 86_400.0
    named = {"observed_until": "until", "attribution_window": window, "immature": "censor"}
    said = say(*prepare(tmp_path, path, **named), "--json")
    assert said.code == 0, said.err
    log = ExposureLog(tmp_path / "log")
    labels = [log.split(name).labels() for name in log.splits]
    censored = sum(int((part.conversion == CENSORED).sum()) for part in labels)
    body = rows()
    still_open = (body["click"] == 1) & (body["conversion"] == 0) & (START + 60 * ROWS - body["ts"] < window)
    assert censored == count == still_open.sum()
    assert sum(int((part.conversion == 1).sum()) for part in labels) == body["conversion"].sum()


def test_d19_without_a_window_no_click_is_final(tmp_path: Path, say: Callable) -> None:
    body = {**rows(), "until": np.full(ROWS, START + 10**8)}
    said = say(*prepare(tmp_path, write(tmp_path, "rows", body, "csv"), observed_until="until"), "--json")
    assert said.code == 65
    assert said.findings[0]["code"] == "data.immature_labels"
    assert "columns.attribution_window" in said.findings[0]["fix"]
    window = {"observed_until": "until", "attribution_window": 60.0}
    assert say(*prepare(tmp_path, tmp_path / "rows.csv", **window)).code == 0


def test_d20_every_value_is_in_the_ledger(tmp_path: Path, say: Callable) -> None:
    values = [["a"] * (row % 6) for row in range(ROWS)]
    argv = sequences("|", lambda row: "|".join(values[row]) + "|" * (row == 9))(tmp_path, "csv")
    said = say(*argv, "--json")
    ledger = Ledger.from_dict(said.json["ledger"])
    count = ledger.values["tags"]
    assert count.read == sum(map(len, values)) + 1
    assert count.truncated == sum(max(0, len(value) - 3) for value in values)
    assert count.rejected == 1  # the empty one after the last bar of row 9
    assert count.read == count.kept + count.truncated + count.rejected


SAFE = {"a\u202eb": "right to left", "c\x1b[31md": "terminal colour", "e\x9bf": "C1 control", "\u2066g": "isolate"}


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_d21_what_cannot_be_seen_is_escaped_in_every_output(form: str, tmp_path: Path, say: Callable) -> None:
    body = rows()
    body["shop"] = np.asarray(list(SAFE))[body["item"] % len(SAFE)]
    body["price\u202e\x1b"] = body["price"]
    path = write(tmp_path, "rows\u202e", body, form)
    texts = []
    for argv in (["inspect", path], ["inspect", path, "--json"]):
        said = say(*argv)
        assert said.code == 0, said.err
        texts += [said.out, said.err]
    schema = tmp_path / "schema.toml"
    schema.write_text(texts[0], "utf-8")
    assert any(item["name"] == "price\u202e\x1b" for item in tomllib.loads(texts[0])["feature"])
    for more in ([], ["--json"], ["--max-reject-ratio", "0", "--json"], ["--max-reject-ratio", "0"]):
        if "--max-reject-ratio" in more:
            body["click"] = (
                pa.array(["\u202e\x1b[0m", *map(str, body["click"].tolist()[1:])]) if len(texts) < 9 else body["click"]
            )
            path = write(tmp_path, "rows\u202e", body, form)
        said = say(
            "prepare", path, "--schema", schema, "--split", "random", "--out", tmp_path / "log", "--force", *more
        )
        texts += [said.out, said.err]
        assert said.code == (65 if "--max-reject-ratio" in more else 0), said.err
    seen = "".join(texts)
    assert "\\u202e" in seen
    assert [char for char in set(seen) if not char.isprintable() and char != "\n"] == []


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("CRLF", lambda data: data.replace(b"\n", b"\r\n")),
        ("byte order mark", lambda data: b"\xef\xbb\xbf" + data),
        ("semicolons", lambda data: data.replace(b",", b";")),
        ("tabs", lambda data: data.replace(b",", b"\t")),
        ("no last line break", lambda data: data.rstrip(b"\n")),
        ("blank lines", lambda data: data.replace(b"\n", b"\n\n", 5)),
        ("line breaks in quotes", lambda data: data.replace(b'"north"', b'"no\nrth"')),
        ("quotes in quotes", lambda data: data.replace(b'"north"', b'"no""rth"')),
        ("quotes inside words", lambda data: data.replace(b'"north"', b'no"rth')),
    ],
)
def test_d22_csv_as_people_write_it_is_read(name: str, edit: Callable, tmp_path: Path, say: Callable) -> None:
    path = write(tmp_path, "rows", rows(), "csv")
    path.write_bytes(edit(path.read_bytes()))
    said = say(*prepare(tmp_path, path), "--json")
    assert said.code == 0, said.err
    assert said.json["ledger"]["rows"]["kept"] == ROWS
    assert said.json["audit"]["distinct"]["shop"] == 3


def test_d22_the_line_is_named_after_line_breaks_in_quotes(tmp_path: Path, say: Callable) -> None:
    path = write(tmp_path, "rows", rows(), "csv")
    lines = path.read_bytes().split(b"\n")
    lines[10] = lines[10].replace(b'th"', b't\n\nh"').replace(b'st"', b's\n\nt"')
    lines[500] += b",1,2"
    path.write_bytes(b"\n".join(lines))
    said = say(*prepare(tmp_path, path), "--json")
    assert said.findings[0]["where"] == "rows.csv:503"  # line 501, and two breaks inside a cell before it
    assert "Expected 8 columns, got 10" in said.findings[0]["what"]


def test_d23_weights_that_are_fine_are_reported_with_their_effective_sample_size(tmp_path: Path, say: Callable) -> None:
    body = {**rows(), "w": np.where(np.arange(ROWS) < 5, 1_000.0, 1.0)}
    said = say(*prepare(tmp_path, write(tmp_path, "rows", body, "csv"), sample_weight="w"), "--json")
    assert said.code == 0
    weights = said.json["audit"]["weights"]
    assert sum(entry["rows"] for entry in weights.values()) == ROWS
    entry = weights["train"]
    assert entry["effective"] < 0.1 * entry["rows"]
    assert any("effective sample of" in text for text in verdicts(said, "audit.weights"))


def test_d24_an_honest_compressed_file_is_read(tmp_path: Path, say: Callable) -> None:
    path = write(tmp_path, "rows", rows(), "csv")
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert say(*prepare(tmp_path, tmp_path / "rows.csv.gz")).code == 0


def test_inspect_says_what_prepare_would_refuse(tmp_path: Path, say: Callable) -> None:
    body = rows()
    body["seconds"] = body["click"] * (1.0 + body["price"])
    body["conversion"][np.flatnonzero(body["click"] == 0)[:40]] = 1
    said = say("inspect", write(tmp_path, "rows", body, "csv"), "--json")
    assert said.code == 0
    stops = [verdict["code"] for verdict in said.json["audit"]["verdicts"] if verdict["level"] == "stop"]
    assert stops == ["data.conversion_without_click", "data.leakage"]
    assert said.json["ledger"]["rows"]["rejected"] == {"data.conversion_without_click": 40}


def test_inspect_finds_copies_ids_and_drift(tmp_path: Path, say: Callable) -> None:
    body = rows()
    body["season"] = np.where(np.arange(ROWS) < 1_500, "summer", "winter")
    body["request"] = np.arange(ROWS) * 3 + np.arange(ROWS) % 2
    body = {name: np.concatenate([np.asarray(values), np.asarray(values)[:30]]) for name, values in body.items()}
    body["click"][-1] = 1 - body["click"][-1]
    body["conversion"][-1] = 0
    features = (*FEATURES, SparseFeature("season"), SparseFeature("request"))
    path = write(tmp_path, "rows", body, "parquet")
    prepare(tmp_path, path, features=features)
    said = say("inspect", path, "--schema", tmp_path / "schema.toml", "--json")
    audit = said.json["audit"]
    assert audit["duplicates"] == {"exact": 29, "conflicting": 1}
    assert any(text.startswith("request has 2,000 values") for text in verdicts(said, "data.id_like"))
    (fields,) = audit["drift"].values()
    assert fields["season"]["word"] == "large"
    assert fields["shop"]["word"] == "stable"
    assert any("winter" not in text and "large drift" in text for text in verdicts(said, "audit.drift"))


def test_a_fault_is_one_message_in_a_process_of_its_own(tmp_path: Path) -> None:
    argv = changed(click=([17], 7), conversion=([18], None))(tmp_path, "csv")
    command = [sys.executable, "-m", "postclick", *argv, "--max-reject-ratio", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 65
    assert [line.split(" ")[0] for line in done.stderr.splitlines()] == ["data.label_missing", "data.label_domain"]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
