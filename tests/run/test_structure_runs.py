"""A run of cstwa: its stages come first, and its bundle scores without them."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from postclick.bundle import Bundle, Scorer
from postclick.run import RunConfig, run, stages
from postclick.structure.storage import read_arrays
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


# --- an entity is not its own neighbour ---


def graphs(log, folder, migrator, **changes):
    """Train one epoch; returns what mining was asked for, and the stored graphs by side."""
    asked, real = [], stages.neighbours

    def spied(vectors, k, **options):
        asked.append(options["include_self"])
        return real(vectors, k, **(options | changes))

    arguments = ARGUMENTS | {"pretrained": "fresh", "escaper": None, "migrator": migrator}
    config = RunConfig("cstwa", arguments, replace(TRAINING, max_epochs=1), seed=3, device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "neighbours", spied)
        run(log, config, folder / "run", stages=folder / "stages")
    places = {side: stages.locate(folder / "run", f"{side}-graph") for side in ("user", "item")}
    return asked, {side: read_arrays(place).arrays for side, place in places.items()}


def is_own_neighbour(arrays):
    """Return for each entity whether its mined list or its row of G holds itself: two ways to see it."""
    size = len(arrays["entity"])
    own = np.arange(size)[:, None]
    matrix = csr_array((arrays["values"], arrays["indices"], arrays["indptr"]), shape=(size, size))
    return (arrays["neighbours"] == own).any(axis=1), matrix.diagonal() > 0.0


@pytest.fixture(scope="module")
def usual(small_log, tmp_path_factory):
    return graphs(small_log, tmp_path_factory.mktemp("usual"), {"neighbours": 4})


def test_mining_is_asked_for_others_and_gives_others(usual):
    asked, found = usual
    assert asked == [False, False]
    for arrays in found.values():
        listed, diagonal = is_own_neighbour(arrays)
        assert not listed.any()
        assert not diagonal.any()
        assert arrays["values"].any()


def test_self_included_on_request_makes_another_graph(usual, small_log, tmp_path):
    asked, found = graphs(small_log, tmp_path, {"neighbours": 4, "include_self": True})
    assert asked == [True, True]
    for side, arrays in found.items():
        listed, diagonal = is_own_neighbour(arrays)
        assert listed.all()
        assert diagonal.all()
        assert np.array_equal(arrays["entity"], usual[1][side]["entity"])
        same = arrays["values"].shape == usual[1][side]["values"].shape
        assert not (same and np.allclose(arrays["values"], usual[1][side]["values"]))


def test_a_miner_that_includes_self_unasked_is_seen(usual, small_log, tmp_path):
    """The planted twin: the settings say others alone, the search does otherwise."""
    asked, found = graphs(small_log, tmp_path, {"neighbours": 4}, include_self=True)
    assert asked == usual[0]
    assert all(listed.all() and diagonal.all() for listed, diagonal in map(is_own_neighbour, found.values()))
