from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from postclick.data.sources.inputs import Inputs
from postclick.data.sources.opening import open_source
from postclick.data.sources.ratings import RatingsSource
from postclick.errors import ConfigError, DataError, InputMissingError
from postclick.schema import Columns, Schema, SparseFeature

DATA = Path(os.environ.get("POSTCLICK_DATA", "none"))
real = pytest.mark.skipif(not DATA.is_dir(), reason="POSTCLICK_DATA does not name the real data")


def batches(source, role):
    return [batch for piece in source.pieces() if piece.role == role for batch in source.read(piece)]


def table(source, role):
    return pa.Table.from_batches([batch.table for batch in batches(source, role)])


def read(source, role):
    return table(source, role).to_pylist()


@pytest.fixture
def coat(tmp_path):
    (tmp_path / "train.ascii").write_text("0 3 0\n2 0 5\n")
    (tmp_path / "test.ascii").write_text("4 0 0\n0 0 5\n")
    (tmp_path / "user_features.ascii").write_text("1 0 0 1\n0 1 0 0\n")
    (tmp_path / "user_features_map.txt").write_text("gender:men\ngender:women\nage:20-30\nage:over 60")
    (tmp_path / "item_features.ascii").write_text("1 0\n0 1\n1 1\n")
    (tmp_path / "item_features_map.txt").write_text("gender:men\ngender:women\n")
    return tmp_path


def test_every_pair_is_an_exposure_and_a_rating_the_click(coat):
    source = RatingsSource.open("coat", Inputs((coat,)))
    assert source.schema.population == "exposure"
    assert [feature.name for feature in source.schema.features] == [
        *("user_id", "item_id", "user_gender", "user_age", "item_gender"),
    ]
    assert [feature.side for feature in source.schema.features] == ["user", "item", "user", "user", "item"]
    men = {"user_gender": "men", "user_age": "over 60"}
    women = {"user_gender": "women", "user_age": None}  # no age is marked
    items = ({"item_gender": "men"}, {"item_gender": "women"}, {"item_gender": None})
    labels = {(0, 1): (1, 1), (1, 0): (1, 0), (1, 2): (1, 1)}  # of ratings 3, 2 and 5
    assert read(source, "train") == [
        {
            **dict(zip(("click", "conversion"), labels.get((user, item), (0, 0)), strict=True)),
            **{"user_id": user, "item_id": item, "randomised": 0},
            **(men, women)[user],
            **items[item],
        }
        for user in range(2)
        for item in range(3)
    ]
    test = read(source, "test")
    assert [(row["user_id"], row["item_id"], row["click"], row["conversion"], row["randomised"]) for row in test] == [
        (0, 0, 1, 1, 1),
        (1, 2, 1, 1, 1),
    ]


def test_the_protocol_says_what_the_splits_are(coat):
    protocol = RatingsSource.open("coat", Inputs((coat,))).protocol
    assert (protocol.threshold, protocol.allow_overlap, protocol.provider_split) == (3.0, True, True)
    told = "\n".join(protocol.notes)
    assert "a conversion is a rating of at least 3" in told
    assert "every pair of 2 users and 3 items, clicked where there is a rating: 3 of 6" in told
    assert "1 of the 2 test pairs are rated in train too, 1 with the same rating" in told
    assert "the other 1 are exposures of train without a click" in told


def test_the_threshold_is_the_callers(coat):
    source = RatingsSource.open("coat", Inputs((coat,)), threshold=4)
    assert [row["conversion"] for row in read(source, "train") if row["click"]] == [0, 0, 1]
    with pytest.raises(ConfigError, match="expected a number, got nan"):
        RatingsSource.open("coat", Inputs((coat,)), threshold=float("nan"))


def test_a_schema_of_ids_alone(coat):
    schema = RatingsSource.open("coat", Inputs((coat,))).schema
    ids = Schema((SparseFeature("user_id", "user"), SparseFeature("item_id", "item")), schema.columns)
    rows = read(RatingsSource.open("coat", Inputs((coat,)), schema=ids), "train")
    assert list(rows[0]) == ["click", "conversion", "user_id", "item_id", "randomised"]


def test_coat_with_files_that_are_missing_or_wrong(coat):
    (coat / "test.ascii").write_text("4 0 0\n0 0 5\n1 0 0\n")
    with pytest.raises(DataError, match="ratings of 3 users and 3 items, features of 2 and 3"):
        RatingsSource.open("coat", Inputs((coat,)))
    (coat / "item_features_map.txt").write_text("gender:men\n")
    with pytest.raises(DataError, match=r"1 names for 2 columns of item_features\.ascii"):
        RatingsSource.open("coat", Inputs((coat,)))
    (coat / "item_features_map.txt").unlink()
    with pytest.raises(InputMissingError, match=r"Coat needs item_features_map\.txt"):
        RatingsSource.open("coat", Inputs((coat,)))
    (coat / "test.ascii").unlink()
    with pytest.raises(InputMissingError, match=r"holds no test\.ascii"):
        RatingsSource.open("coat", Inputs((coat,)))


def test_kuairec_may_be_a_test_alone(tmp_path):
    with gzip.open(tmp_path / "random.txt.gz", "wt") as handle:
        handle.write("14,10070,1.33\n14,2517,0.99\n15,2517,\n")
    for item in (tmp_path, tmp_path / "random.txt.gz"):
        source = RatingsSource.open("kuairec", Inputs((item,)))
        assert [piece.role for piece in source.pieces()] == ["test"]
        rows = read(source, "test")
        assert [(row["user_id"], row["item_id"]) for row in rows] == [(14, 10070), (14, 2517), (15, 2517)]
        assert [row["conversion"] for row in rows] == [1, 0, None]
        assert {row["randomised"] for row in rows} == {1}
    assert source.protocol.threshold == 1.0
    with pytest.raises(ConfigError, match="there are no ratings of train to estimate it from"):
        RatingsSource.open("kuairec", Inputs((tmp_path,)), propensity="popularity")


def test_kuairec_as_its_authors_publish_it(tmp_path):
    head = "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
    line = "{},{},9,8,2020-07-05 00:08:23.438,20200705,1593878903.4,{}\n"
    big = [(1, 7, 0.2), (2, 7, 1.5), (1, 9, 2.0), (1, 7, 1.1)]  # user 1 watched video 7 twice
    (tmp_path / "big_matrix.csv").write_text(head + "".join(line.format(*row) for row in big))
    (tmp_path / "small_matrix.csv").write_text(head + line.format(3, 9, 0.7))
    source = open_source(tmp_path)
    assert source.protocol.source == "kuairec"
    found = {(row["user_id"], row["item_id"]): (row["click"], row["conversion"]) for row in read(source, "train")}
    watched = {(1, 7): (1, 1), (1, 9): (1, 1), (2, 7): (1, 1)}  # the later time counts
    assert found == {(user, item): watched.get((user, item), (0, 0)) for user in (1, 2, 3) for item in (7, 9)}
    assert batches(source, "train")[0].filtered == {"rated again later": 1}
    assert [(row["user_id"], row["conversion"]) for row in read(source, "test")] == [(3, 0)]


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
    assert len(read(source, "train")) == 25


def test_files_by_role(tmp_path):
    for name in ("mine.txt", "random.txt"):
        (tmp_path / name).write_text("1,2,3\n")
    source = RatingsSource.open("yahoo-r3", Inputs(train=(tmp_path / "mine.txt",), test=(tmp_path / "random.txt",)))
    assert [(piece.role, piece.payload) for piece in source.pieces()] == [("train", 0), ("test", 1)]
    with pytest.raises(InputMissingError, match=r"expected one of .*user\.txt.*--train or --test"):
        RatingsSource.open("yahoo-r3", Inputs((tmp_path / "mine.txt",)))
    with pytest.raises(InputMissingError, match=r"no valid file.*leave --valid out"):
        RatingsSource.open("yahoo-r3", Inputs(train=(tmp_path / "mine.txt",), valid=(tmp_path / "mine.txt",)))


def test_a_rating_without_a_number_is_a_click_without_a_label(tmp_path):
    (tmp_path / "user.txt").write_text("1,1,3\n1,2,\n2,1,1\n")
    (tmp_path / "random.txt").write_text("1,1,3\n")
    rows = read(RatingsSource.open("yahoo-r3", Inputs((tmp_path,))), "train")
    assert [(row["click"], row["conversion"]) for row in rows] == [(1, 1), (1, None), (1, 0), (0, 0)]


def test_malformed_ratings(tmp_path):
    def opened(text):
        (tmp_path / "random.txt").write_text(text)
        return RatingsSource.open("kuairec", Inputs((tmp_path,)))

    with pytest.raises(DataError, match=r"data\.csv .*random\.txt:2"):
        opened("1,2,3\n1,2\n")
    with pytest.raises(DataError, match=r"expected user, item and rating a line, found 4 cells"):
        opened("1,2,3,4\n")
    with pytest.raises(DataError, match=r"data\.csv .*invalid value 'x'.*random\.txt:1"):
        opened("1,x,3\n")
    with pytest.raises(DataError, match=r"data\.csv a line without a user or an item .*random\.txt"):
        opened("1,,3\n")
    assert batches(opened(""), "test") == []


def test_a_propensity_is_logged_and_its_users_leave_the_test(tmp_path):
    rng = np.random.default_rng(1)
    for name, rows in (("user.txt", 400), ("random.txt", 300)):
        lines = np.stack([rng.integers(0, 40, rows), rng.integers(0, 30, rows), rng.integers(1, 6, rows)], axis=1)
        (tmp_path / name).write_text("\n".join(",".join(map(str, line)) for line in lines))
    whole = table(RatingsSource.open("yahoo-r3", Inputs((tmp_path,))), "test")
    tests = []
    for name in ("popularity", "logistic", "naive-bayes"):
        source = RatingsSource.open("yahoo-r3", Inputs((tmp_path,)), propensity=name)
        assert source.schema.columns.propensity == "propensity"
        train, test = table(source, "train"), table(source, "test")
        for each in (train, test):
            value = each["propensity"].to_numpy()
            assert ((value > 0) & (value <= 1)).all()
        assert np.mean(train["propensity"]) == pytest.approx(np.mean(train["click"]), rel=0.02)
        left = batches(source, "test")[0].filtered["random ratings kept for propensities"]
        assert len(test) == len(whole) - left
        assert len(set(whole["user_id"].to_pylist()) - set(test["user_id"].to_pylist())) == 2  # 5 % of 40
        assert any(f"propensity is P(rated) by {name}" in note for note in source.protocol.notes)
        tests.append(test.drop_columns(["propensity"]))
    assert tests[0] == tests[1] == tests[2]


def test_propensities_that_cannot_be(tmp_path):
    (tmp_path / "mine.txt").write_text("1,1,3\n1,2,1\n")
    inputs = Inputs(train=(tmp_path / "mine.txt",))
    with pytest.raises(ConfigError, match=r"no propensity 'naive_bayes'.*did you mean 'naive-bayes'"):
        RatingsSource.open("yahoo-r3", inputs, propensity="naive_bayes")
    with pytest.raises(ConfigError, match="needs ratings of random items, and there is no test"):
        RatingsSource.open("yahoo-r3", inputs, propensity="naive-bayes")
    schema = Schema((SparseFeature("item_id"),), Columns(item_id="item_id"))
    with pytest.raises(ConfigError, match="the schema does not name the column"):
        RatingsSource.open("yahoo-r3", inputs, schema=schema, propensity="popularity")
    with pytest.raises(ConfigError, match="the source tabular has no ratings, so no propensity"):
        open_source({"click": [1]}, key="tabular", propensity="popularity")


@pytest.mark.data
@real
def test_real_coat():
    source = open_source(DATA / "coat")
    train, test = table(source, "train"), table(source, "test")
    assert (len(train), sum(train["click"].to_pylist()), len(test)) == (87_000, 6_960, 4_640)
    told = "366 of the 4,640 test pairs are rated in train too, 366 with the same rating"
    assert any(told in note and "the other 4,274" in note for note in source.protocol.notes)
    ratings = np.loadtxt(DATA / "coat" / "train.ascii")
    np.testing.assert_array_equal(np.reshape(train["conversion"], ratings.shape), ratings >= 3)
    bayes = table(open_source(DATA / "coat", propensity="naive-bayes"), "test")
    assert len(bayes) == 4_640 - 15 * 16  # 5 % of 290 users, rounded up
