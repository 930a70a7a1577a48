import numpy as np
import pytest

from postclick.metrics.curve import curve_of
from postclick.metrics.curve_bootstrap import curve_bootstrap
from postclick.metrics.estimate import Estimate
from postclick.metrics.ranking import curve_auc, curve_pr_auc
from postclick.metrics.thresholds import curve_ks, curve_recall

METRICS = {
    "pr_auc": (curve_pr_auc, "logit"),
    "ks": (curve_ks, "logit"),
    "recall": (lambda ranked: curve_recall(ranked, 0.1), "logit"),
}


def sample(seed=0, users=300, each=10):
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), each)
    odds = -2.0 + rng.normal(size=users)[user] + 0.5 * rng.normal(size=users * each)
    label = (rng.random(users * each) < 1 / (1 + np.exp(-odds))).astype(np.int8)
    return odds, label, user


def standard_error(odds, label, user, function, replicates=300):
    """The plain loop: draw users, repeat their rows, sort again."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(replicates):
        weight = rng.poisson(1.0, user.max() + 1)[user].astype(float)
        value = function(curve_of(odds, label, weight)).value
        found.append(np.log(value / (1 - value)))
    return np.std(found, ddof=1)


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_the_standard_error_equals_a_plain_user_bootstrap(metric):
    odds, label, user = sample()
    function, _ = METRICS[metric]
    exact = function(curve_of(odds, label))
    found = curve_bootstrap(odds, label, None, user, METRICS)[metric](exact)
    ends = np.log([found.low / (1 - found.low), found.high / (1 - found.high)])
    spread = (ends[1] - ends[0]) / 2 / 1.959964
    assert spread == pytest.approx(standard_error(odds, label, user, function), rel=0.2)
    assert found.value == exact.value
    assert "user bootstrap" in found.method


def test_clusters_widen_the_interval():
    odds, label, user = sample(3, users=60, each=40)
    metrics = {"auc": (curve_auc, "logit")}
    exact = curve_auc(curve_of(odds, label))
    twice = [np.tile(column, 4) for column in (odds, label, user)]
    by_user = curve_bootstrap(twice[0], twice[1], None, twice[2], metrics)["auc"](exact)
    by_row = curve_bootstrap(twice[0], twice[1], None, None, metrics)["auc"](exact)
    assert by_user.high - by_user.low > 1.5 * (by_row.high - by_row.low)
    assert by_row.method.startswith("row bootstrap")


def test_weights_soft_labels_and_equal_seeds():
    odds, _, user = sample(4)
    soft, weight = 1 / (1 + np.exp(-odds)), np.random.default_rng(0).random(len(odds))
    exact = curve_pr_auc(curve_of(odds, soft, weight))
    first, second = (curve_bootstrap(odds, soft, weight, user, METRICS, seed=2)["pr_auc"](exact) for _ in range(2))
    assert first == second
    assert first.low < exact.value < first.high


def test_no_interval_for_undefined_or_hopeless_values():
    odds, label = np.arange(10.0), np.zeros(10, np.int8)
    label[3] = 1
    attach = curve_bootstrap(odds, label, None, np.arange(10), METRICS)
    assert attach["pr_auc"](Estimate.of(0.2)).low is None  # a third of the replicates have no positive
    assert attach["pr_auc"](Estimate.none("no positives")).value is None
