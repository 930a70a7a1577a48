"""One simulated log in Ali-CCP's layout, and ways to train on it that end in scores of its test split.

`train_throughput.py --check-quality` and `lazy_against_exact.py` share it. At a CTR of 20 % and a CVR of 16 % half of
800,000 exposures hold more than the 10,000 training conversions that a comparison of systems asks for; the other half
is the test split.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from plain_torch import PlainTraining
from postclick.data.arrays import Exposures
from postclick.data.log import ExposureLog
from postclick.data.prepare import prepare
from postclick.data.scores import Scores, log_odds
from postclick.data.sources.opening import open_source
from postclick.simulation import simulate

RATES = {"ctr": 0.2, "cvr": 0.16}
METRICS = ("ctr/auc@exposure", "ctcvr/auc@exposure", "cvr/auc@click", "ctr/logloss@exposure", "ctcvr/logloss@exposure")


def make_log(folder: Path, exposures: int, seed: int = 0) -> ExposureLog:
    """Simulate and prepare; the first half of the exposures is the training file, the second the test file."""
    simulate(folder / "world", knobs=RATES, exposures=exposures, seed=seed, layout="ali-ccp")
    return prepare(open_source(folder / "world"), folder / "log", truth=folder / "world" / "truth.parquet")


def described(log: ExposureLog) -> str:
    """Return the size of the log in words."""
    spec = log.spec
    return (
        f"{spec.rows:,.0f} training exposures, {spec.conversions:,.0f} conversions, {spec.table_rows:,} table rows, "
        f"{len(log.split('test')):,} test exposures"
    )


def plain_scores(log: ExposureLog, *, embedding: int, batch_size: int, epochs: int, seed: int) -> Scores:
    """Train `PlainESMM` for `epochs`; returns its scores of the test split."""
    train, test = log.split("train").read(), log.split("test").read()
    labels = train.labels
    assert labels is not None, "a training split has labels"
    ids, held_out, sizes = _local_ids(train, test)
    told = labels.click.astype(np.float32), labels.conversion.astype(np.float32)
    training = PlainTraining(ids, *told, sizes, embedding=embedding, batch_size=batch_size, seed=seed)
    steps = training.steps()
    for _ in range(epochs * -(-len(ids) // batch_size)):
        next(steps)
    training.model.eval()
    with torch.inference_mode():
        parts = [training.model(torch.from_numpy(held_out[first : first + 16_384])) for first in _starts(held_out)]
    ctr, cvr = (torch.cat(side).double() for side in zip(*parts, strict=True))
    log_click, log_no_click, log_cvr, log_no_cvr = (
        torch.nn.functional.logsigmoid(side).numpy() for side in (ctr, -ctr, cvr, -cvr)
    )
    log_neither = np.logaddexp(log_no_click, log_click + log_no_cvr)
    odds = {"ctr": ctr.numpy(), "cvr": cvr.numpy(), "ctcvr": log_odds(log_click + log_cvr, log_neither)}
    return Scores(odds, {})


def _starts(rows: Sequence[object] | NDArray[np.int64]) -> range:
    return range(0, len(rows), 16_384)


def _local_ids(train: Exposures, test: Exposures) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[int, ...]]:
    """Number the table rows of each field from 0, as tables of their own want them."""
    both = np.concatenate([train.rows, test.rows])
    ids = np.empty(both.shape, np.int64)
    sizes = []
    for column in range(both.shape[1]):
        known, ids[:, column] = np.unique(both[:, column], return_inverse=True)
        sizes.append(len(known))
    return ids[: len(train)], ids[len(train) :], tuple(sizes)
