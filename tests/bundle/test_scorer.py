"""The one path that scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from postclick.bundle import Bundle, Constant, Scorer
from postclick.bundle.serving import apply_constants
from postclick.calibration.calibration import compose
from postclick.data.scores import Scores
from postclick.errors import DataError


@pytest.fixture(scope="module")
def scorer(small_run):
    return Scorer(Bundle.load(small_run.path))


def test_raw_and_encoded_rows_score_alike(scorer, small_log, raw_table):
    test = small_log.split("test").read()
    raw = raw_table.slice(len(raw_table) - len(test))
    scored = scorer.score_table(raw)
    assert np.array_equal(scored.scores.odds["cvr"], scorer.score(test.without_labels()).odds["cvr"])
    assert scored.counts.rows == len(test)


def test_batch_size_moves_logits_by_no_more_than_1e5(scorer, small_log):
    rows = small_log.split("test").read().without_labels()
    alone = Scorer(scorer.bundle, batch_size=1).score(rows.take(np.arange(50)))
    together = scorer.score(rows)
    for head in together.heads:
        assert alone.odds[head] == pytest.approx(together.odds[head][:50], abs=1e-5)


def test_served_scores_are_calibrated_and_raw_ones_are_kept(scorer, small_log):
    scores = scorer.score(small_log.split("test").read())
    heads = scorer.bundle.calibration.heads
    assert heads["cvr"].map(scores.raw["cvr"]) == pytest.approx(scores.odds["cvr"])
    product = scores.probability("ctr") * scores.probability("cvr")
    assert scores.probability("ctcvr") == pytest.approx(product, rel=1e-9)
    assert (scores.odds["ctcvr"] <= scores.odds["ctr"]).all()


def test_unseen_and_missing_values_are_counted_and_take_the_unknown_row(scorer, raw_table):
    few = raw_table.slice(0, 4).to_pydict()
    few["user"] = [few["user"][0], 999_999, None, few["user"][3]]
    scored = scorer.score_table(pa.table(few))
    assert (scored.counts.fields["user"].unseen, scored.counts.fields["user"].missing) == (1, 1)
    assert np.isfinite(scored.scores.odds["cvr"]).all()


def test_no_rows_give_no_scores(scorer, raw_table):
    scored = scorer.score_table(raw_table.slice(0, 0))
    assert len(scored.scores) == 0
    assert scored.scores.heads == ("ctr", "cvr", "ctcvr")


def test_missing_columns_are_named_together(scorer, raw_table):
    with pytest.raises(DataError) as caught:
        scorer.score_table(raw_table.drop_columns(["user", "price"]))
    assert "'user'" in str(caught.value)
    assert "'price'" in str(caught.value)


def test_a_constant_head_is_the_prior_and_the_product_follows():
    odds = np.array([-1.0, 2.0])
    scores = compose(Scores({"ctr": odds, "cvr": odds, "ctcvr": odds}, {}))
    served = apply_constants(scores, {"cvr": Constant(0, 99)})
    assert served.probability("cvr") == pytest.approx([0.005, 0.005])
    assert served.probability("ctcvr") == pytest.approx(served.probability("ctr") * 0.005)
    derived = apply_constants(replace(scores, derived=frozenset({"cvr"})), {"ctcvr": Constant(0, 9)})
    assert derived.probability("cvr") == pytest.approx(0.05 / derived.probability("ctr"))
    assert apply_constants(scores, {}) is scores
