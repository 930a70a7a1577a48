from collections import Counter

import numpy as np
import pytest

from postclick.simulation import simulate

WEIGHTED = {"508", "509", "702", "853"}


def features(text):
    triples = []
    for feature in text.split("\x01"):
        field, rest = feature.split("\x02")
        value, weight = rest.split("\x03")
        triples.append((field, int(value), float(weight)))
    return triples


def rows(path):
    return [line.rstrip("\n").split(",") for line in path.read_text("utf-8").splitlines()]


def read(world, split):
    """The format of the public documentation by a plain loop."""
    common = {}
    for key, number, text in rows(world.path / f"common_features_{split}.csv"):
        assert key not in common
        common[key] = features(text)
        assert len(common[key]) == int(number)
    skeleton = []
    for identity, click, conversion, key, number, text in rows(world.path / f"sample_skeleton_{split}.csv"):
        own = features(text)
        assert len(own) == int(number)
        skeleton.append((int(identity), int(click), int(conversion), own + common[key]))
    assert len(common) == len({key for *_, key, _, _ in rows(world.path / f"sample_skeleton_{split}.csv")})
    return skeleton


@pytest.fixture(scope="module")
def logged(raw):
    return {split: read(raw, split) for split in ("train", "test")}


def test_train_is_the_first_half_and_test_the_rest(logged):
    assert [row[0] for row in logged["train"]] == list(range(1, 35_001))
    assert [row[0] for row in logged["test"]] == list(range(35_001, 70_002))


def test_clicks_and_conversions_are_those_that_the_world_counts(raw, logged):
    both = logged["train"] + logged["test"]
    assert sum(click for _, click, _, _ in both) == raw.counts["clicks"]
    assert sum(click * conversion for _, click, conversion, _ in both) == raw.counts["conversions"]
    orphans = sum((1 - click) * conversion for _, click, conversion, _ in both)
    assert orphans == raw.counts["orphan_conversions"] > 300


def test_every_row_has_the_eighteen_fields_and_the_multivalued_ones(raw, logged):
    single = {feature.name for feature in raw.schema.features}
    assert len(single) == 18
    for *_, found in logged["train"][:3_000]:
        count = Counter(field for field, _, _ in found)
        assert single - WEIGHTED <= set(count)
        assert set(count) <= single | {"210", "109_14", "110_14", "127_14", "150_14"}
        assert all(count[field] == 1 for field in single - WEIGHTED)
        assert all(1 <= count[field] <= 8 for field in ("109_14", "110_14", "127_14", "150_14"))
        assert 1 <= count["210"] <= 3
        assert all(weight > 0 for _, _, weight in found)
        assert all(weight == 1 for field, _, weight in found if field in single - WEIGHTED)


def test_combination_fields_are_sometimes_absent_sometimes_twice_and_weighted(logged):
    times = Counter()
    weights = []
    for *_, found in logged["train"]:
        count = Counter(field for field, _, _ in found)
        times.update((field, count[field]) for field in WEIGHTED)
        weights += [weight for field, _, weight in found if field == "508"]
    for field in WEIGHTED:
        assert times[field, 0] > 5_000
        assert 0.005 < times[field, 2] / times[field, 1] < 0.02
        assert {count for name, count in times if name == field} == {0, 1, 2}
    assert len(set(weights)) > 1_000


def test_an_item_keeps_its_attributes_and_values_stay_in_their_vocabularies(raw, logged):
    import json

    sizes = json.loads((raw.path / "world.json").read_text())["vocabulary"]["fields"]
    shown = {}
    for *_, found in logged["test"]:
        first = {field: value for field, value, _ in found}
        own = tuple(first[field] for field in ("206", "207", "216"))
        assert shown.setdefault(first["205"], own) == own
        assert all(1 <= first[field] <= sizes[field] for field in sizes if field in first)
    assert len(set(shown)) > 500


def test_the_truth_belongs_to_the_sample_ids(raw, logged):
    truth = raw.truth()
    click = np.array([row[1] for row in logged["train"] + logged["test"]])
    top = np.argsort(truth.ctr)[-3_000:]
    assert click[top].mean() == pytest.approx(truth.ctr[top].mean(), abs=0.04)
    assert truth.ctr[top].mean() > 0.5


def test_full_vocabularies_reach_beyond_the_rows(tmp_path):
    world = simulate(tmp_path / "w", exposures=400, layout="ali-ccp", full_vocabulary=True)
    largest = max(value for *_, found in read(world, "train") for field, value, _ in found if field == "205")
    assert largest > 200_000
