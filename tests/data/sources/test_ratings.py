from __future__ import annotations

import gzip

import numpy as np
import pyarrow as pa
import pytest

from postclick.data.sources.inputs import Inputs
from postclick.data.sources.ratings import RatingsSource
from postclick.errors import ConfigError, DataError, InputMissingError
from postclick.schema import Schema, SparseFeature


def read(source, role):
    batches = [batch.table for piece in source.pieces() if piece.role == role for batch in source.read(piece)]
    return pa.Table.from_batches(batches).to_pylist()


@pytest.fixture
def coat(tmp_path):
    (tmp_path / "train.ascii").write_text("0 3 0\n2 0 5\n")
    (tmp_path / "test.ascii").write_text("4 0 0\n0 0 1\n")
    (tmp_path / "user_features.ascii").write_text("1 0 0 1\n0 1 0 0\n")
    (tmp_path / "user_features_map.txt").write_text("gender:men\ngender:women\nage:20-30\nage:over 60")
    (tmp_path / "item_features.ascii").write_text("1 0\n0 1\n1 1\n")
    (tmp_path / "item_features_map.txt").write_text("gender:men\ngender:women\n")
    return tmp_path


def test_coat(coat):
    source = RatingsSource.open("coat", Inputs((coat,)))
    assert source.schema.population == "click"
    assert [feature.name for feature in source.schema.features] == [
        *("user_id", "item_id", "user_gender", "user_age", "item_gender"),
    ]
    assert [feature.side for feature in source.schema.features] == ["user", "item", "user", "user", "item"]
    men = {"user_gender": "men", "user_age": "over 60"}
    women = {"user_gender": "women", "user_age": None}  # no age is marked
    assert read(source, "train") == [
        {"click": 1, "conversion": 1, "user_id": 0, "item_id": 1, "randomised": 0, **men, "item_gender": "women"},
        {"click": 1, "conversion": 0, "user_id": 1, "item_id": 0, "randomised": 0, **women, "item_gender": "men"},
        {"click": 1, "conversion": 1, "user_id": 1, "item_id": 2, "randomised": 0, **women, "item_gender": None},
    ]
    test = read(source, "test")
    assert [(row["user_id"], row["item_id"], row["conversion"], row["randomised"]) for row in test] == [
        (0, 0, 1, 1),
        (1, 2, 0, 1),
    ]
    protocol = source.protocol
    assert (protocol.threshold, protocol.allow_overlap, protocol.provider_split) == (3.0, True, True)
    assert "a conversion is a rating of at least 3" in protocol.notes


def test_the_threshold_is_the_callers(coat):
    source = RatingsSource.open("coat", Inputs((coat,)), threshold=4)
    assert [row["conversion"] for row in read(source, "train")] == [0, 0, 1]
    with pytest.raises(ConfigError, match="expected a number, got nan"):
        RatingsSource.open("coat", Inputs((coat,)), threshold=float("nan"))


def test_a_schema_of_ids_alone(coat):
    schema = RatingsSource.open("coat", Inputs((coat,))).schema
    ids = Schema((SparseFeature("user_id", "user"), SparseFeature("item_id", "item")), schema.columns, "click")
    rows = read(RatingsSource.open("coat", Inputs((coat,)), schema=ids), "train")
    assert list(rows[0]) == ["click", "conversion", "user_id", "item_id", "randomised"]


def test_coat_with_files_that_are_missing_or_wrong(coat):
    (coat / "item_features_map.txt").write_text("gender:men\n")
    with pytest.raises(DataError, match=r"1 names for 2 columns of item_features\.ascii"):
        RatingsSource.open("coat", Inputs((coat,)))
    (coat / "item_features_map.txt").unlink()
    with pytest.raises(InputMissingError, match=r"Coat needs item_features_map\.txt"):
        RatingsSource.open("coat", Inputs((coat,)))
    (coat / "test.ascii").unlink()
    with pytest.raises(InputMissingError, match=r"holds no test\.ascii"):
        RatingsSource.open("coat", Inputs((coat,)))


def test_kuairec_is_a_test(tmp_path):
    with gzip.open(tmp_path / "random.txt.gz", "wt") as handle:
        handle.write("14,10070,1.33\n14,2517,0.99\n15,2517,\n")
    for item in (tmp_path, tmp_path / "random.txt.gz"):
        source = RatingsSource.open("kuairec", Inputs((item,)))
        assert [piece.role for piece in source.pieces()] == ["test"]
        rows = read(source, "test")
        assert [row["conversion"] for row in rows] == [1, 0, None]
        assert {row["randomised"] for row in rows} == {1}
    assert source.protocol.threshold == 1.0


@pytest.mark.parametrize(
    ("names", "delimiter"),
    [
        (("ydata-ymusic-rating-study-v1_0-train.txt", "ydata-ymusic-rating-study-v1_0-test.txt"), "\t"),
        (("user.txt", "random.txt"), ","),
    ],
)
def test_yahoo(tmp_path, names, delimiter):
    rng = np.random.default_rng(0)
    for name in names:
        lines = rng.integers(1, 6, (50, 3))
        (tmp_path / name).write_text("\n".join(delimiter.join(map(str, line)) for line in lines))
    source = RatingsSource.open("yahoo-r3", Inputs((tmp_path,)))
    assert [(piece.role, piece.label) for piece in source.pieces()] == list(zip(("train", "test"), names, strict=True))
    assert [{row["randomised"] for row in read(source, role)} for role in ("train", "test")] == [{0}, {1}]
    assert [row["conversion"] for row in read(source, "test")] == (lines[:, 2] >= 3).astype(int).tolist()


def test_files_by_role(tmp_path):
    for name in ("mine.txt", "random.txt"):
        (tmp_path / name).write_text("1,2,3\n")
    source = RatingsSource.open("yahoo-r3", Inputs(train=(tmp_path / "mine.txt",), test=(tmp_path / "random.txt",)))
    assert [(piece.role, piece.payload) for piece in source.pieces()] == [("train", 0), ("test", 1)]
    with pytest.raises(InputMissingError, match=r"expected one of .*user\.txt.*--train or --test"):
        RatingsSource.open("yahoo-r3", Inputs((tmp_path / "mine.txt",)))


def test_malformed_ratings(tmp_path):
    (tmp_path / "random.txt").write_text("1,2,3\n1,2\n")
    with pytest.raises(DataError, match=r"data\.csv .*random\.txt:2"):
        read(RatingsSource.open("kuairec", Inputs((tmp_path,))), "test")
    (tmp_path / "random.txt").write_text("1,2,3,4\n")
    with pytest.raises(DataError, match=r"expected user, item and rating a line, found 4 cells"):
        read(RatingsSource.open("kuairec", Inputs((tmp_path,))), "test")
    (tmp_path / "random.txt").write_text("1,x,3\n")
    with pytest.raises(DataError, match=r"data\.csv .*invalid value 'x'.*random\.txt:1"):
        read(RatingsSource.open("kuairec", Inputs((tmp_path,))), "test")
