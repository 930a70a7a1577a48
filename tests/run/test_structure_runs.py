"""A run of cstwa: its stages come first, and its bundle scores without them."""

import shutil

import numpy as np

from postclick.bundle import Bundle, Scorer
from postclick.run import RunConfig, run
from postclick.training.config import TrainingConfig

ARGUMENTS = {
    "embedding_size": 4,
    "tower": {"hidden": [8], "dropout": [0.1]},
    "escaper": {"window": 1000, "high": 0.9},
    "pretrained": "pretrained",
}
TRAINING = TrainingConfig(batch_size=400, max_epochs=3, learning_rate=0.01, checks_per_epoch=1, patience=None)


def test_a_bundle_holds_what_migrated_and_needs_no_stage(small_log, tmp_path):
    stages = tmp_path / "stages"
    config = RunConfig("cstwa", ARGUMENTS, TRAINING, seed=3, device="cpu")
    result = run(small_log, config, tmp_path / "run", stages=stages)
    metrics = result.evaluation.to_dict()["metrics"]
    raw, served = (metrics[f"ctcvr/{name}@exposure"]["value"] for name in ("pcoc[score=raw]", "pcoc"))
    assert raw != served
    shutil.rmtree(stages)
    bundle = Bundle.load(tmp_path / "run")
    assert bundle.hash == result.bundle
    assert result.training.best_epoch > 0  # the best weights are of an epoch that began with a migration
    assert all(vectors.shift.any() for vectors in bundle.model.sides.values())
    assert bundle.model.window.bounds.isfinite().all()
    scores = Scorer(bundle).score(small_log.split("test").read().without_labels())
    assert not np.array_equal(scores.odds["ctcvr"], scores.raw["ctcvr"])
