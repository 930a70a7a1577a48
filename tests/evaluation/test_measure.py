import numpy as np
import pytest

from postclick import metrics as pure
from postclick.evaluation.evaluate import DEFAULT_METRICS, WORLD_METRICS
from postclick.evaluation.measure import measure
from postclick.evaluation.rows import Sample


def sample(rows=1200, users=150, seed=0, weighted=False, **parts):
    rng = np.random.default_rng(seed)
    user = rng.integers(0, users, rows).astype(np.int32)
    odds = rng.normal(-1.5, 1.0, rows) + 0.5 * rng.normal(size=users)[user]
    label = (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.int8)
    given = {"user": user, "weight": rng.uniform(0.5, 2.0, rows) if weighted else None} | parts
    return Sample("cvr", "click", odds, given.pop("label", label), **given)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_every_value_equals_the_pure_function(weighted, soft):
    rows = sample(weighted=weighted)
    if soft:
        rows = sample(weighted=weighted, label=1 / (1 + np.exp(-rows.odds - 0.3)))
    found, counts = measure(rows, [*DEFAULT_METRICS, "mae"], level=0.95, seed=0)
    assert list(found) == [*DEFAULT_METRICS, "mae"]
    plain = (rows.odds, rows.label, rows.weight)
    for name in ("auc", "pr_auc", "logloss", "ne", "brier", "pcoc", "ece", "ks", "mean", "mae"):
        assert found[name].value == pytest.approx(getattr(pure, name)(*plain).value, rel=1e-12), name
    for name in ("recall", "f1", "lift"):
        expected = getattr(pure, name)(rows.odds, rows.label, 0.01, rows.weight).value
        assert found[f"{name}[top=0.01]"].value == pytest.approx(expected, rel=1e-12)
    assert found["gauc"].value == pytest.approx(pure.gauc(rows.odds, rows.label, rows.user, rows.weight).value)
    for name, metric in found.items():
        assert metric.n == 1200
        assert metric.positives == pytest.approx(float(rows.label.sum()))
        if name == "ece":
            assert (metric.low is None) == soft
        else:
            assert metric.low < metric.value < metric.high, name
            assert metric.level == 0.95
    assert counts["users"] == len(np.unique(rows.user))


def test_a_wider_level_gives_wider_intervals():
    rows = sample()
    narrow, _ = measure(rows, DEFAULT_METRICS, level=0.5, seed=0)
    wide, _ = measure(rows, DEFAULT_METRICS, level=0.99, seed=0)
    for name in DEFAULT_METRICS:
        assert wide[name].low < narrow[name].low < narrow[name].high < wide[name].high


def test_without_a_user_rows_are_the_unit_and_gauc_is_undefined():
    found, _ = measure(sample(user=None), DEFAULT_METRICS, level=0.95, seed=0)
    assert found["gauc"].undefined == "no user id"
    assert found["auc"].method == "DeLong, logit scale, independent rows"
    assert found["logloss"].method.startswith("row bootstrap-t, 1000 replicates, 1200 rows")


def test_many_users_are_folded():
    rows = sample(rows=40_000, user=np.arange(40_000, dtype=np.int32))
    found, _ = measure(rows, ["logloss"], level=0.95, seed=0)
    assert "32768 groups" in found["logloss"].method
    loss = np.log1p(np.exp(-np.where(rows.label == 1, rows.odds, -rows.odds)))
    half = 1.96 * loss.std() / 200.0
    assert found["logloss"].high - found["logloss"].low == pytest.approx(2 * half, rel=0.15)


def test_raw_scores_have_their_own_auc_and_pcoc():
    rows = sample()
    rows = sample(raw=2 * rows.odds + 1)
    found, _ = measure(rows, ["auc", "auc[score=raw]", "pcoc", "pcoc[score=raw]"], level=0.95, seed=0)
    assert found["auc[score=raw]"].value == found["auc"].value
    assert found["pcoc[score=raw]"].value == pytest.approx(pure.pcoc(rows.raw, rows.label).value)
    assert found["pcoc[score=raw]"].low < found["pcoc[score=raw]"].value
    without, _ = measure(sample(), ["auc[score=raw]"], level=0.95, seed=0)
    assert without == {}
    broken, _ = measure(sample(raw=np.full(1200, np.nan)), ["auc[score=raw]"], level=0.95, seed=0)
    assert broken["auc[score=raw]"].undefined == "scores are not numbers"


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"label": np.zeros(1200, np.int8)}, "no positives"),
        ({"label": np.ones(1200, np.int8)}, "no negatives"),
        ({"weight": np.zeros(1200)}, "no rows"),
        ({"undefined": "log of clicks"}, "log of clicks"),
    ],
)
def test_degenerate_rows_give_reasons_and_the_rest_is_still_reported(parts, reason):
    found, _ = measure(sample(**parts), DEFAULT_METRICS, level=0.95, seed=0)
    assert list(found) == list(DEFAULT_METRICS)
    assert found["auc"].undefined == reason
    for metric in found.values():
        assert (metric.value is None) == (metric.undefined is not None)
    if reason in ("no positives", "no negatives"):
        assert found["logloss"].value is not None
        assert found["mean"].value is not None


def test_no_rows_and_scores_that_are_not_numbers():
    empty = Sample("cvr", "click", np.zeros(0), np.zeros(0, np.int8), user=np.zeros(0, np.int32))
    found, _ = measure(empty, DEFAULT_METRICS, level=0.95, seed=0)
    assert {metric.undefined for metric in found.values()} == {"no rows"}
    broken = Sample("cvr", "click", np.array([np.nan, 0.0]), np.array([0, 1], np.int8))
    found, _ = measure(broken, WORLD_METRICS, level=0.95, seed=0)
    assert {metric.undefined for metric in found.values()} == {"scores are not numbers"}


def test_one_row_one_user_and_constant_scores():
    for rows in (1, 2, 5):
        label = (np.arange(rows) % 2).astype(np.int8)
        flat = Sample("cvr", "click", np.zeros(rows), label, user=np.zeros(rows, np.int32))
        found, _ = measure(flat, DEFAULT_METRICS, level=0.95, seed=0)
        assert found["mean"].value == 0.5
        assert found["auc"].value == (None if rows == 1 else 0.5)


@pytest.mark.parametrize(("suffix", "empty"), [("", "skip"), (",empty=zero", "zero"), (",empty=one", "one")])
def test_lists_of_users_equal_the_pure_functions(suffix, empty):
    rows = sample(weighted=True)
    alone = np.isin(rows.user, [0, 1, 2])
    rows = sample(weighted=True, label=np.where(alone, 0, rows.label).astype(np.int8))
    names = [f"ndcg[k=3{suffix}]", f"recall[k=3{suffix}]"]
    found, _ = measure(rows, [*names, "recall[top=0.01]"], level=0.95, seed=0)
    for name, function in zip(names, (pure.ndcg, pure.recall_at), strict=True):
        expected = function(rows.odds, rows.label, rows.user, 3, rows.weight, empty=empty)
        assert found[name].value == pytest.approx(expected.value, rel=1e-12)
        assert found[name].low < found[name].value < found[name].high
        assert f"of 150 users, without a positive, {'left out' if empty == 'skip' else 'count'}" in found[name].method
    assert 0 < found["recall[top=0.01]"].value < found[names[1]].value


def test_lists_of_users_need_users_and_positives():
    found, _ = measure(sample(user=None), ["ndcg[k=5]"], level=0.95, seed=0)
    assert found["ndcg[k=5]"].undefined == "no user id"
    found, _ = measure(sample(label=np.zeros(1200, np.int8)), ["recall[k=5]"], level=0.95, seed=0)
    assert found["recall[k=5]"].undefined == "no positives"
