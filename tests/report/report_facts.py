"""Facts made by hand, and the page that is drawn of them."""

from __future__ import annotations

from typing import Any

from postclick.report.facts import Cell, Contestant, Curve, Figures, Pair, RunFacts, Study, Trial
from postclick.report.log_facts import Delay, Funnel, LogFacts
from postclick.report.page import page
from postclick.report.sections import sections

HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=document.title='owned'>",
    "abc\u202egnp.exe",
    "{{7*7}}{% for %}",
    '=HYPERLINK("http://example.invalid")',
    "&amp;\"' onload='x' \x00\x1b[31m",
    "x" * 10_000,
)
METRICS = ("cvr/auc@world", "cvr/pcoc@click", "ctcvr/logloss@exposure")


def metric(value: float | None, low: float | None = None, high: float | None = None, **more: Any) -> dict[str, Any]:
    undefined = "overlap is too thin" if value is None else None
    return {
        "value": value,
        "low": low,
        "high": high,
        "n": 2000,
        "positives": 100,
        "undefined": undefined,
        "derived": False,
    } | more


def overlap(*, sufficient: bool = True) -> dict[str, Any]:
    levels = [0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0]
    clicked = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.6, 0.8]
    return {
        "propensity": "the system's own ctr",
        "rows": 2000,
        "clicks": 200,
        "floor": 0.01,
        "quantiles": {"levels": levels, "clicked": clicked, "unclicked": [value / 3 for value in clicked]},
        "under_floor": {"exposures": 0.1, "clicks": 0.01},
        "left_out": 0.02 if sufficient else 0.0612,
        "effective_clicks": 123.0,
        "effective_share": 0.615,
        "largest_weight": 55.0,
        "largest_share": 0.02,
        "calibration": {"pcoc": 1.02, "weight_ratio": 1.01},
        "balance": {"ctr": {"before": 1.01, "after": 0.02}},
        "sufficient": sufficient,
        "verdict": "overlap suffices" if sufficient else "overlap is too thin",
        "doubts": [],
    }


def run_facts(name: str = "run", **more: Any) -> RunFacts:
    curve = Curve("cvr@click", (0.0123, 0.1), (0.02, 0.0987), (100.0, 100.0), (0.01, 0.05), (0.05, 0.15))
    world = Curve("cvr@world", (0.02, 0.11), (0.01, 0.0765), (100.0, 100.0))
    sliced = Curve("cvr@click|device=phone", (0.02, 0.12), (0.02, 0.1), (50.0, 50.0), (0.0, 0.05), (0.06, 0.18))
    checks = (
        {
            "step": 10,
            "best": True,
            "terms": {"ctr": 0.3, "ctcvr": 0.06},
            "valid": {"ctr/logloss@exposure": 0.31, "logloss": 0.37},
        },
        {
            "step": 20,
            "best": False,
            "terms": {"ctr": 0.28, "ctcvr": 0.05},
            "valid": {"ctr/logloss@exposure": 0.32, "logloss": 0.38},
        },
    )
    tasks = {"ctr": {"rows": 9, "weight": [0.0421, 0.9579], "top": [0.0, 1.0], "entropy": 0.3, "collapsed": [0]}}
    given: dict[str, Any] = {
        "name": name,
        "system": "esmm",
        "seed": 0,
        "settings": {"arguments": {"embedding_size": 8}, "training": {"batch_size": 100}, "calibration": {}},
        "log": "a" * 64,
        "bundle": "b" * 64,
        "heads": {"ctr": "head", "cvr": "head", "ctcvr": "head"},
        "checks": checks,
        "metrics": {
            "cvr/pcoc@world": metric(1.511, 1.471, 1.553),
            "cvr/pcoc@click": metric(1.02, 0.9, 1.14),
            "cvr/pcoc@click|device=phone": metric(1.3, 1.1, 1.5),
            "cvr/mean[estimator=naive]@exposure": metric(0.102, 0.09, 0.11),
            "cvr/mean[estimator=ips]@exposure": metric(None),
        },
        "ledger": {"rows": 2000, "clicks": 200, "conversions": 20},
        "overlap": overlap(),
        "experts": {"tasks": tasks, "verdict": ["expert 0 of task ctr gets 4.2% of the weight: collapsed"]},
        "calibration": {"cvr": {"method": "platt", "rows": 100, "positives": 10}},
        "curves": (curve, world, sliced),
        "record": {"seconds": 1.5, "device": "cpu", "versions": {"postclick": "0"}},
        "trained": Funnel("train", 16000, 1600, 160),
    }
    return RunFacts(**(given | more))


def log_facts(name: str = "world", **more: Any) -> LogFacts:
    given: dict[str, Any] = {
        "name": name,
        "hash": "a" * 64,
        "known": True,
        "funnels": (Funnel("train", 16000, 1600, 160, 400), Funnel("test", 2000, 200, 20, 50)),
        "read": 18123,
        "kept": 18000,
        "rejected": {"data.conversion_without_click": 123},
        "split": "time",
        "fields": {"user_id": ("sparse", "user"), "price": ("dense", "item")},
        "distinct": {"user_id": 321},
        "unseen": {"user_id": 0.1783},
        "verdicts": (("warning", "17.8 % of user_id in test are unseen."), ("note", "fine")),
        "simulated": True,
        "delay": Delay((60.0, 3600.0, 86400.0), (0.1, 0.55, 1.0), 7, ("The slowest are missing.",)),
    }
    return LogFacts(**(given | more))


def study_of(labels: tuple[str, ...] = ("ESMM", "CSTWA", "MMoE"), name: str = "world", **more: Any) -> Study:
    """Three rows that differ by one number each: the first is the baseline."""
    sizes = (8, 16, 32, 64, 128, 256, 512)
    contestants = []
    for index, label in enumerate(labels):
        run = run_facts(
            f"run-{index}", settings={"arguments": {"embedding_size": sizes[index]}, "training": {}, "calibration": {}}
        )
        base = 0.6 + 0.01 * index
        cells = {
            "cvr/auc@world": Cell(base, seeds=(base - 0.01, base + 0.01), seed_sd=0.0142),
            "cvr/pcoc@click": Cell(1.1 + 0.1 * index, seed_sd=0.02),
            "ctcvr/logloss@exposure": Cell(0.05 - 0.001 * index, seed_sd=0.001, derived=index == 2),
        }
        contestants.append(Contestant(label, "esmm", run, 2, cells, {"training.l2": 1e-6}))
    pairs = tuple(
        Pair("cvr/auc@world", label, labels[0], 0.012 * index, 0.004 * index, 0.020 * index, "better", "", 2)
        for index, label in enumerate(labels)
        if index
    )
    trials = tuple(Trial(label, {"training.l2": l2}, 0.3 + l2) for label in labels for l2 in (1e-6, 1e-4))
    given: dict[str, Any] = {
        "name": name,
        "origin": "bench",
        "log": log_facts(name),
        "contestants": tuple(contestants),
        "metrics": METRICS,
        "pairs": pairs,
        "baseline": labels[0],
        "oracle": {"cvr/auc@world": 0.7667},
        "trials": trials,
        "grid_metric": "the validation loss",
    }
    return Study(**(given | more))


def html_of(*studies: Study, missing: tuple[str, ...] = ()) -> str:
    figures = Figures(studies, missing, "0.1.0")
    return page(figures, sections(figures))
