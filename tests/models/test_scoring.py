"""Scores: slices join to the whole, odds are float64, the mode is put back."""

import numpy as np
import pytest
import torch

from postclick.data.arrays import Exposures
from postclick.errors import DataError
from postclick.losses.probability import LogProbability
from postclick.models.base import Citation, ConversionModel, Losses, Outputs
from postclick.models.catalog import build
from postclick.models.scoring import score


class Fixed(ConversionModel):
    """Logits are read from the features: ctr from the dense one, ctcvr from the first of the image."""

    citation = Citation("", "", "", 2000, "")

    def __init__(self, spec):
        super().__init__(spec)
        self.nothing = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    @property
    def heads(self):
        return {"ctr": "head", "cvr": "derived", "ctcvr": "head"}

    @property
    def observed(self):
        return (("ctr", "exposure"),)

    def forward(self, batch):
        assert not self.training
        assert torch.is_inference_mode_enabled()
        assert batch.click is None
        self.seen.append(len(batch))
        ctr = LogProbability.from_logit(batch.features.dense[:, 0])
        ctcvr = LogProbability.from_logit(batch.features.embeddings[:, 0])
        return Outputs(ctr, ctcvr.quotient(ctr), ctcvr)

    def loss(self, outputs, batch):
        return Losses({})


def test_odds_are_the_logits(spec, exposures):
    given = exposures(200)
    given.dense[:, 0] = np.linspace(-40, 40, 200)
    given.embeddings[:, 0] = given.dense[:, 0] - 3
    scores = score(Fixed(spec), given)
    assert scores.odds["ctr"].dtype == np.float64
    np.testing.assert_allclose(scores.odds["ctr"], given.dense[:, 0].astype(float), rtol=1e-6, atol=1e-6)
    assert scores.raw == {}
    assert scores.derived == {"cvr"}
    assert scores.clipped == 0


def test_counts_the_clipped_quotients(spec, exposures):
    given = exposures(10)
    given.dense[:, 0] = 0.0
    given.embeddings[:, 0] = [-1, 1, -1, 2, -1, -1, -1, 3, -1, 0]  # three exceed; equality does not
    assert score(Fixed(spec), given, batch_size=4).clipped == 3


@pytest.mark.parametrize("batch_size", [1, 5, 7, 20, 100])
def test_slices_join_to_the_whole(spec, exposures, batch_size):
    torch.manual_seed(0)
    model, given = build("esmm", spec, {}), exposures(20)
    whole, sliced = score(model, given), score(model, given, batch_size=batch_size)
    for head in whole.heads:
        np.testing.assert_allclose(sliced.odds[head], whole.odds[head], atol=1e-5)


def test_several_pieces_join_in_order_and_are_cut_at_the_batch_size(spec, exposures):
    pieces = [exposures(7, seed=1), exposures(0, seed=2), exposures(4, seed=3)]
    model = Fixed(spec)
    scores = score(model, iter(pieces), batch_size=4)
    assert model.seen == [4, 3, 0, 4]
    joined = np.concatenate([score(Fixed(spec), piece).odds["ctcvr"] for piece in pieces])
    np.testing.assert_array_equal(scores.odds["ctcvr"], joined)


def test_no_rows_have_every_head_and_no_piece_is_refused(spec, exposures):
    scores = score(build("mlp", spec, {}), exposures(0))
    assert scores.heads == ("ctr", "cvr", "ctcvr")
    assert len(scores) == 0
    with pytest.raises(DataError, match="there is nothing to score"):
        score(Fixed(spec), [])


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_put_back_also_after_an_error(spec, exposures, training):
    model, given = build("esmm", spec, {}).train(training), exposures(4)
    score(model, given)
    assert model.training == training
    broken = Exposures(given.rows, given.dense[:, :0], given.embeddings, given.sequences)
    with pytest.raises(RuntimeError):
        score(model, broken)
    assert model.training == training


def test_scores_equal_a_hand_written_numpy_forward_pass(spec, exposures):
    torch.manual_seed(0)
    model, given = build("esmm", spec, {"tower": {"hidden": [6, 4], "dropout": [0.5]}}), exposures(10)
    weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    table, ragged = weights["network.encoder.table.weight"], given.sequences[0]
    logits = {"ctr": [], "cvr": []}
    for row in range(10):
        part = slice(ragged.offsets[row], ragged.offsets[row + 1])
        values, w = table[ragged.values[part]], ragged.weights[part].astype(float)
        pooled = w @ values / w.sum() if len(w) else np.zeros(8)
        x = np.concatenate([table[given.rows[row]].ravel(), pooled, given.dense[row], given.embeddings[row]])
        for head, found in logits.items():
            h = x
            for layer in (0, 3):
                name = f"network.towers.{head}.steps.{layer}"
                h = np.maximum(weights[f"{name}.weight"] @ h + weights[f"{name}.bias"], 0)
            last = f"network.heads.{head}.linear"
            found.append(float((weights[f"{last}.weight"] @ h + weights[f"{last}.bias"])[0]))
    scores = score(model, given)
    for head, found in logits.items():
        np.testing.assert_allclose(scores.odds[head], found, atol=1e-6)
    ctr, cvr = (1 / (1 + np.exp(-np.array(logits[head]))) for head in ("ctr", "cvr"))
    np.testing.assert_allclose(scores.probability("ctcvr"), ctr * cvr, rtol=1e-6)
