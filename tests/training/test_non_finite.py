"""What is said and left where training stops for a NaN."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from postclick.data.arrays import Exposures
from postclick.training.non_finite import NON_FINITE, not_finite

Make = Callable[[int, int], Exposures]


def test_the_message_and_the_file_name_the_batch(exposures: Make, tmp_path: Path) -> None:
    batch = exposures(20, 3)
    dense = np.array([[1.0, -7.5]] * 19 + [[np.inf, np.nan]], np.float32)
    means = ({"ctr": 0.5, "cvr": float("nan")}, {"weight": None})
    error = not_finite("the loss is NaN in", 2, 45, replace(batch, dense=dense), means, tmp_path)
    (finding,) = error.findings
    assert (finding.code, error.exit_code, finding.count) == ("train.non_finite", 70, 20)
    assert finding.what == "the loss is NaN in epoch 2, step 45 (both from 0)"
    assert finding.examples == ("300000", "300001", "300002", "300003", "300004")
    left = json.loads((tmp_path / NON_FINITE).read_text())
    assert batch.labels is not None
    assert left == {
        "epoch": 2,
        "step": 45,
        "exposure_ids": list(range(300_000, 300_020)),
        "batch": {
            "rows": 20,
            "clicks": int(batch.labels.click.sum()),
            "conversions": int(batch.labels.conversion.sum()),
            "dense_not_finite": 2,
            "dense_largest": 7.5,
            "embeddings_not_finite": 0,
            "embeddings_largest": 0.0,
        },
        "terms": {"ctr": 0.5, "cvr": None},
        "diagnostics": {"weight": None},
    }


def test_without_a_folder_or_numeric_ids_there_is_still_an_error(exposures: Make) -> None:
    batch = exposures(4, 1)
    assert batch.labels is not None
    nameless = replace(batch, labels=replace(batch.labels, exposure_id=None))
    for each in (nameless, batch.without_labels()):
        (finding,) = not_finite("NaN in", 0, 1, each, ({}, {}), None).findings
        assert (finding.count, finding.examples) == (4, ())
