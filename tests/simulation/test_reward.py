from __future__ import annotations

import numpy as np
import pytest

from postclick.errors import ConfigError
from postclick.simulation.reward import RewardKnobs, draw_ratings


def drawn(rows=40_000, seed=2, **knobs):
    return list(draw_ratings(RewardKnobs(**knobs), seed, rows))


def joined(parts, name):
    return np.concatenate([getattr(part, name) for part in parts])


def logit(p):
    return np.log(p) - np.log1p(-p)


@pytest.fixture(scope="module")
def parts():
    return drawn()


def test_rates_are_those_asked_for_exactly(parts):
    ctr, cvr = joined(parts, "ctr"), joined(parts, "cvr_do")
    assert ctr.mean() == pytest.approx(0.2, abs=1e-9)
    assert ctr @ cvr / ctr.sum() == pytest.approx(0.5, abs=1e-9)
    np.testing.assert_array_equal(cvr, joined(parts, "cvr_click"))
    np.testing.assert_array_equal(ctr, joined(parts, "propensity"))
    assert abs(cvr.mean() - 0.5) > 0.01  # annotated rows are not the rows


def test_labels_are_drawn_from_the_truth(parts):
    click, conversion = joined(parts, "click"), joined(parts, "conversion")
    ctr, cvr = joined(parts, "ctr"), joined(parts, "cvr_do")
    assert not conversion[click == 0].any()
    for chance, label in ((ctr, click), (cvr[click == 1], conversion[click == 1])):
        bins = np.digitize(chance, np.quantile(chance, np.arange(1, 8) / 8))
        for which in range(8):
            inside = bins == which
            spread = np.sqrt((chance * (1 - chance))[inside].sum())
            assert abs((label - chance)[inside].sum()) < 4 * spread


def test_the_annotation_is_linear_in_the_vector_and_the_preference_is_bent(parts):
    vector = joined(parts, "vector").astype(np.float64)
    design = np.c_[np.ones(len(vector)), vector]
    left = {}
    for name in ("ctr", "cvr_do"):
        target = logit(joined(parts, name))
        fitted = design @ np.linalg.lstsq(design, target, rcond=None)[0]
        left[name] = (target - fitted).var() / target.var()
    assert left["ctr"] < 1e-9
    # h has variance 1, of which its best line explains Cov(h, v)^2 = (1/2)^2 / (1/2 - 1/(2 pi))
    assert left["cvr_do"] == pytest.approx(0.6 * (1 - 0.25 / (0.5 - 0.5 / np.pi)), abs=0.02)
    assert logit(joined(parts, "cvr_do")).std() == pytest.approx(2.0, rel=0.03)


def test_the_vector_is_standard_normal_and_time_rises(parts):
    vector, time = joined(parts, "vector"), joined(parts, "time")
    assert vector.dtype == np.float32
    assert vector.shape == (40_000, 32)
    np.testing.assert_allclose(np.cov(vector.T), np.eye(32), atol=0.04)
    assert (np.diff(time) >= 0).all()
    np.testing.assert_array_equal(joined(parts, "exposure_id"), np.arange(1, 40_001))


def test_without_selection_annotation_knows_nothing_of_the_preference():
    parts = drawn(selection=0.0)
    ctr, cvr = joined(parts, "ctr"), joined(parts, "cvr_do")
    assert abs(np.corrcoef(logit(ctr), logit(cvr))[0, 1]) < 0.02
    assert cvr.mean() == pytest.approx(0.5, abs=0.01)


def test_only_preferred_rows_are_annotated_where_labels_are_positive():
    parts = drawn(positive_unlabelled=True, annotation_rate=0.4, preference_rate=0.4)
    ctr, cvr, propensity = (joined(parts, name) for name in ("ctr", "cvr_do", "propensity"))
    np.testing.assert_array_equal(joined(parts, "click"), joined(parts, "conversion"))
    np.testing.assert_allclose(ctr, propensity * cvr, rtol=1e-15)
    assert (joined(parts, "cvr_click") == 1).all()
    assert (propensity.mean(), cvr.mean()) == (pytest.approx(0.4, abs=1e-9), pytest.approx(0.4, abs=1e-9))
    # the weighted risk of the docs: o / pi is an unbiased label of the preference
    label = joined(parts, "click") / propensity
    assert label.mean() == pytest.approx(cvr.mean(), abs=4 * label.std() / 200)


def test_equal_arguments_give_equal_rows_and_another_seed_does_not():
    one, same, other = (drawn(rows=20_000, seed=seed) for seed in (5, 5, 6))
    for name in ("vector", "ctr", "click", "conversion"):
        np.testing.assert_array_equal(joined(one, name), joined(same, name))
    assert (joined(one, "click") != joined(other, "click")).any()


def test_values_out_of_range_are_told_together():
    with pytest.raises(ConfigError) as caught:
        RewardKnobs(annotation_rate=0.0, size=2, bend=1.5)
    assert [finding.where for finding in caught.value.findings] == ["set.annotation_rate", "set.bend", "set.size"]
