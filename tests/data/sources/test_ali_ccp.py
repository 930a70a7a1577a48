from __future__ import annotations

import pickle
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from postclick.data.sources import ali_ccp
from postclick.data.sources.ali_ccp import AITM_FIELDS, COMMON, AliCcpSource, ali_ccp_schema
from postclick.data.sources.base import ValueCounts
from postclick.data.sources.inputs import Inputs
from postclick.errors import ConfigError, DataError, InputMissingError
from postclick.schema import Columns, Schema, SequenceFeature, SparseFeature

MULTI = ("109_14", "110_14", "127_14", "150_14", "210", "508", "509", "702", "853")


def string(values) -> str:
    return "\x01".join(f"{field}\x02{value}\x03{weight}" for field, value, weight in values)


def write_role(folder: Path, role: str, rows: int, seed: int) -> tuple[list, dict]:
    """Write a role's two files and return what is in them."""
    rng = np.random.default_rng(seed)
    common = {}
    for key in range(rows // 4 + 1):
        values = [(field, int(rng.integers(1, 10**7)), 1.0) for field in AITM_FIELDS[:9]]
        values += [(field, int(rng.integers(1, 99)), round(rng.random(), 5)) for field in MULTI[:4] for _ in range(3)]
        common[f"{key:016x}"] = values
    skeleton = []
    for row in range(rows):
        fields = [field for field in AITM_FIELDS[9:] if rng.random() < 0.8]
        values = [(field, int(rng.integers(1, 10**7)), 1.0) for field in [*fields, "210", "210", "853"]]
        key = f"{int(rng.integers(0, len(common) + 1)):016x}"  # one key is not in the common file
        skeleton.append((row + 1, int(rng.random() < 0.3), int(rng.random() < 0.1), key, values))
    (folder / f"sample_skeleton_{role}.csv").write_text(
        "".join(f"{number},{click},{buy},{key},{len(v)},{string(v)}\n" for number, click, buy, key, v in skeleton)
    )
    lines = [f"{key},{len(values)},{string(values)}\n" for key, values in common.items()]
    (folder / f"common_features_{role}.csv").write_text("".join(lines))
    return skeleton, common


def read(source: AliCcpSource, role: str = "train"):
    batches = [batch for piece in source.pieces() for batch in source.read(piece) if piece.role == role]
    counts: dict[str, ValueCounts] = defaultdict(ValueCounts)
    for batch in batches:
        for name, count in batch.values.items():
            counts[name] += count
    return pa.Table.from_batches([batch.table for batch in batches]).to_pylist(), dict(counts), batches


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(ali_ccp, "_PIECE_BYTES", 4096)
    monkeypatch.setattr(ali_ccp, "_BATCH_ROWS", 7)
    ali_ccp._cached_common.cache_clear()
    return tmp_path


def test_aitm_equals_a_plain_reader(folder):
    skeleton, common = write_role(folder, "train", 120, 0)
    write_role(folder, "test", 30, 1)
    source = AliCcpSource.open(Inputs((folder,)))
    rows, counts, batches = read(source)
    replaced: dict[str, int] = defaultdict(int)
    lost = 0
    assert len(rows) == len(skeleton)
    for row, (number, click, buy, key, values) in zip(rows, skeleton, strict=True):
        wanted = dict.fromkeys(AITM_FIELDS)
        lost += key not in common
        for field, value, _ in [*common.get(key, []), *values]:
            if field in wanted:
                replaced[field] += wanted[field] is not None
                wanted[field] = value
        assert row == {"click": click, "conversion": buy, "exposure_id": number, **wanted}
    expected = {field: ValueCounts(read=count, replaced=count) for field, count in replaced.items() if count}
    assert lost > 0
    assert counts == expected | {COMMON: ValueCounts(read=lost, rejected=lost)}
    assert [batch.first_row for batch in batches] == [batch.table["exposure_id"][0].as_py() - 1 for batch in batches]
    assert max(batch.table.num_rows for batch in batches) <= 7
    assert len([piece for piece in source.pieces() if piece.role == "train"]) > 2
    assert source.protocol.provider_split


def test_full_equals_a_plain_reader(folder):
    skeleton, common = write_role(folder, "train", 60, 2)
    rows, _, _ = read(AliCcpSource.open(Inputs((folder,)), fields="full"))
    for row, (_, _, _, key, values) in zip(rows, skeleton, strict=True):
        everything = [*common.get(key, []), *values]
        for field in MULTI:
            assert row[field] == [value for name, value, _ in everything if name == field]
            weights = [weight for name, _, weight in everything if name == field]
            np.testing.assert_array_equal(np.float32(row[f"{field}:weight"]), np.float32(weights))


def test_long_histories_are_cut_and_counted(folder):
    write_role(folder, "train", 20, 3)
    schema = Schema((SequenceFeature("109_14", "user", weights="w", max_length=2),), Columns(exposure_id="exposure_id"))
    rows, counts, _ = read(AliCcpSource.open(Inputs((folder,)), schema=schema))
    known = [row for row in rows if row["109_14"]]
    assert {len(row["109_14"]) for row in known} == {2}
    assert counts["109_14"] == ValueCounts(read=len(known), truncated=len(known))


def test_pieces_can_be_read_alone_and_in_any_order(folder):
    write_role(folder, "train", 80, 4)
    source = pickle.loads(pickle.dumps(AliCcpSource.open(Inputs((folder,)))))
    pieces = pickle.loads(pickle.dumps(source.pieces()))
    numbers = [
        value.as_py()
        for piece in reversed(pieces)
        for batch in source.read(piece)
        for value in batch.table["exposure_id"]
    ]
    assert sorted(numbers) == list(range(1, 81))


def test_a_last_line_without_a_line_end_counts(folder):
    skeleton, _ = write_role(folder, "train", 9, 5)
    path = folder / "sample_skeleton_train.csv"
    path.write_bytes(path.read_bytes()[:-1])
    rows, _, _ = read(AliCcpSource.open(Inputs((folder,))))
    assert [row["exposure_id"] for row in rows] == [entry[0] for entry in skeleton]


def test_a_repeated_key_is_counted_once(folder):
    write_role(folder, "train", 40, 6)
    path = folder / "common_features_train.csv"
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    _, counts, _ = read(AliCcpSource.open(Inputs((folder,))))
    assert counts[COMMON].replaced == 1


def test_files_by_role(folder):
    write_role(folder, "train", 8, 7)
    write_role(folder, "test", 5, 8)
    skeleton = folder / "sample_skeleton_test.csv"
    assert {piece.role for piece in AliCcpSource.open(Inputs((skeleton,))).pieces()} == {"test"}
    assert {piece.role for piece in AliCcpSource.open(Inputs(train=(folder,))).pieces()} == {"train"}
    both = AliCcpSource.open(Inputs(train=(skeleton,), test=(skeleton,)))
    assert [piece.role for piece in both.pieces()] == ["train", "test"]


def test_what_is_missing_is_said(folder):
    with pytest.raises(InputMissingError, match=r"holds no sample_skeleton_train\.csv"):
        AliCcpSource.open(Inputs((folder,)))
    write_role(folder, "train", 3, 9)
    (folder / "common_features_train.csv").unlink()
    with pytest.raises(
        InputMissingError, match=r"sample_skeleton_train\.csv needs common_features_train\.csv beside it"
    ):
        AliCcpSource.open(Inputs((folder,)))
    with pytest.raises(InputMissingError, match=r"the source ali-ccp reads files, got dict"):
        AliCcpSource.open(Inputs(({"a": [1]},)))
    (folder / "common_features_train.csv").write_text("")
    (folder / "sample_skeleton_train.csv").write_text("")
    with pytest.raises(InputMissingError, match=r"data\.empty"):
        AliCcpSource.open(Inputs((folder,)))


def test_a_malformed_line_is_named_across_pieces(folder):
    write_role(folder, "train", 50, 10)
    path = folder / "sample_skeleton_train.csv"
    lines = path.read_text().splitlines()
    lines[41] = lines[41].replace(",", ";", 1)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"data\.csv .*sample_skeleton_train\.csv:42 "):
        read(AliCcpSource.open(Inputs((folder,))))


def test_schemas():
    assert [feature.name for feature in ali_ccp_schema("aitm").features] == list(AITM_FIELDS)
    full = ali_ccp_schema("full")
    assert [feature.name for feature in full.sequences] == list(MULTI)
    assert {feature.weights for feature in full.sequences} == {f"{name}:weight" for name in MULTI}
    assert (full.columns.user_id, full.columns.item_id, full.columns.exposure_id) == ("101", "205", "exposure_id")
    with pytest.raises(ConfigError, match="expected 'aitm' or 'full', got 'all'"):
        ali_ccp_schema("all")


def test_a_schema_with_other_columns_is_refused(folder):
    write_role(folder, "train", 3, 11)
    schema = Schema((SparseFeature("101"), SparseFeature("2055"), SparseFeature("price")), Columns(time="ts"))
    with pytest.raises(DataError) as error:
        AliCcpSource.open(Inputs((folder,)), schema=schema)
    assert len(error.value.findings) == 3
    assert "raw Ali-CCP has no column '2055' of this kind | schema | did you mean '205'?" in str(error.value)
