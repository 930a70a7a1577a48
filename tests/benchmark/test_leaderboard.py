"""What the leaderboard says beyond the means: data, tests, groups, ceiling."""

from __future__ import annotations

import json

import numpy as np
import pytest

from postclick.benchmark.cells import Cell, cell
from postclick.benchmark.experiment import ORACLE
from postclick.benchmark.markdown import markdown, tables_of
from postclick.bundle import Bundle, Scorer
from postclick.data.log import ExposureLog
from postclick.evaluation import compare, oracle
from postclick.evaluation.comparison import Difference
from postclick.run.assessment import judged_rows


@pytest.fixture(scope="session")
def log(benchmark_folder):
    _, out, _ = benchmark_folder
    return ExposureLog(next(path.parent for path in out.glob("shared/*/ledger.json")))


def test_table_1_counts_what_is_in_the_log(benchmark_folder, log):
    facts = benchmark_folder[2].data["small"]
    splits = {name: log.split(name).labels() for name in log.splits}
    assert facts.users == len(np.unique(np.concatenate([labels.user_id for labels in splits.values()])))
    assert facts.items == len(np.unique(np.concatenate([labels.item_id for labels in splits.values()])))
    for name, labels in splits.items():
        found = facts.splits[name]
        assert (found.rows, found.clicks) == (len(labels), int((labels.click == 1).sum()))
        assert found.conversions == int((labels.conversion == 1).sum())
        assert found.cvr == found.conversions / found.clicks
        assert found.ctcvr == pytest.approx(found.ctr * found.cvr)
        assert found.actions is None


def test_comparisons_from_kept_readings_are_those_of_the_scores(benchmark_folder, log):
    _, out, board = benchmark_folder
    lines = [json.loads(line) for line in (out / "runs.jsonl").read_text("utf-8").splitlines()]
    scores: dict[str, list] = {}
    for line in lines:
        if line["stage"] == "final":
            rows, _, _ = judged_rows(Scorer(Bundle.load(out / "runs" / line["key"]), "cpu"), log, "test")
            scores.setdefault(line["label"], []).append(rows.scores)
    names = ["cvr/auc@world", "cvr/pcoc@world", "cvr/brier@world"]
    options = {"truth": rows.truth, "metrics": names}
    against = compare(scores, rows.labels, baseline="MLP on clicks", **options)
    pairs = compare(scores, rows.labels, **options)
    for name in names:
        made, found = board.tables["small"]["esmm"][name], against.difference(name, "esmm", "MLP on clicks")
        assert (made.difference, made.low, made.high) == pytest.approx((found.value, found.low, found.high), rel=1e-9)
        assert (made.verdict, made.needed) == (found.verdict, found.needed)
        assert board.groups["small"][name]["head"] == pairs.groups(name)


def test_the_last_row_of_a_world_is_its_ceiling(benchmark_folder, log):
    table = benchmark_folder[2].tables["small"]
    assert list(table)[-1] == ORACLE
    best = oracle(log.split("test").labels(), log.truth("test"), metrics=["cvr/auc@world", "ctr/ks@exposure"])
    for name, metric in best.metrics.items():
        assert table[ORACLE][name].value == metric.value
    assert all(table[ORACLE]["cvr/brier@world"].value <= row["cvr/brier@world"].value for row in table.values())


def row(label: str, value: float, *, derived: bool = False):
    from postclick.benchmark.rows import RunRow

    entry = {"value": value, "derived": derived, "undefined": None}
    return RunRow(f"d/{label}/seed-000", "d", label, "esmm", "final", 0, "", metrics={"cvr/auc@click": entry})


def test_gain_is_the_difference_as_a_share_of_the_baseline():
    found = Difference("cvr/auc@click", "a", "b", "better", value=0.06, low=0.02, high=0.1, reference=0.6, p_holm=0.01)
    made = cell("cvr/auc@click", [row("a", 0.66)], found)
    assert made.gain == pytest.approx(0.1)
    assert (made.verdict, made.p_holm) == ("better", 0.01)
    assert cell("cvr/auc@click", [row("a", 0.66)], None).gain is None


def test_the_page_words_each_sign_and_sets_derived_heads_apart():
    far = Cell(0.7, 0.01, 3, difference=0.1, low=0.05, high=0.15, verdict="better", gain=0.1667, p_holm=0.002)
    near = Cell(0.61, 0.01, 3, True, None, 0.01, -0.02, 0.04, "cannot tell", 0.0167, 0.5, "about 900 more conversions")
    tables = {"d": {"base": {"m": Cell(0.6, 0.01, 3)}, "far": {"m": far}, "near": {"m": near}}}
    groups = {"d": {"m": {"head": {"far": "a", "base": "b"}, "derived": {"near": "a", "other": "a"}}}}
    means = tables_of(tables, ["m"], "base", "run", ["a note"])
    assert "| far | 0.7000 ±0.0100 + |" in means
    assert "| near | 0.6100 ±0.0100 =* |" in means
    page = markdown(means, {}, tables, ["m"], "base", groups)
    assert "| m | far | +0.1000 | [+0.0500, +0.1500] | +16.67% | 0.002 | better |" in page
    assert "| cannot tell (needs about 900 more conversions), derived |" in page
    head, derived = page.split("## Who cannot be told apart")[1].split("derived heads, which are never called best")
    assert "| far | a |" in head
    assert "near" not in head
    assert "| near | a |" in derived


def test_a_slice_in_a_name_does_not_end_its_cell():
    tables = {"d": {"a | b": {"cvr/auc@random|new-pair": Cell(0.6, 0.01, 3)}}}
    means = tables_of(tables, ["cvr/auc@random|new-pair"], None, "run", [])
    assert r"| d | cvr/auc@random\|new-pair |" in means
    assert r"| a \| b | 0.6000 ±0.0100 |" in means
