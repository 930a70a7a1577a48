"""Gates summed while scoring, on a real MMoE: healthy, and with a collapse planted in its weights."""

import math

import numpy as np
import pytest
import torch

from postclick.evaluation import expert_use, verdicts
from postclick.models.base import Batch
from postclick.models.batching import to_features
from postclick.models.catalog import build
from postclick.models.gates import GateSums, gate_use_of
from postclick.models.scoring import score

EXPERTS = 4


@pytest.fixture
def mmoe(spec):
    torch.manual_seed(0)
    return build(
        "mmoe",
        spec,
        {"experts": {"count": EXPERTS, "hidden": [6], "dropout": [0.1]}, "tower": {"hidden": [], "dropout": [0.0]}},
    )


def plant(model, task, expert, strength):
    """Make the gate of `task` prefer one expert on every row: one input is made constant, the gate reads it alone."""
    with torch.no_grad():
        model.network.encoder.table.weight[:, 0] = 1.0
        gate = model.network.trunk.gates[model.network.tasks.index(task)].linear.weight
        gate.zero_()
        gate[expert, 0] = strength


def test_sums_equal_a_loop_over_rows(mmoe, exposures):
    rows = exposures(50)
    found = gate_use_of(mmoe, rows, batch_size=7)
    mmoe.eval()
    with torch.no_grad():
        gates = {
            name.removeprefix("gate/"): gate.double().numpy()
            for name, gate in mmoe(Batch(to_features(rows, torch.device("cpu")))).extras.items()
        }
    assert list(found) == list(gates) == ["ctr", "ctcvr"]
    for task, gate in gates.items():
        entropy = sum(-sum(share * math.log(share) for share in row) for row in gate)
        tops = [max(range(EXPERTS), key=lambda index, row=row: row[index]) for row in gate]
        assert found[task].rows == 50
        assert found[task].weight == pytest.approx([sum(row[k] for row in gate) for k in range(EXPERTS)], rel=1e-5)
        assert found[task].top.tolist() == [tops.count(k) for k in range(EXPERTS)]
        assert found[task].entropy == pytest.approx(entropy, rel=1e-5)


def test_a_healthy_system_has_no_collapsed_expert(mmoe, exposures):
    use = expert_use(gate_use_of(mmoe, exposures(200)))
    assert verdicts(use) == ()
    for task in use.values():
        assert sum(task.weight) == pytest.approx(1.0, abs=1e-6)
        assert sum(task.top) == pytest.approx(1.0)
        assert 0.5 < task.entropy <= 1.0


def test_a_planted_collapse_is_named_and_the_other_task_is_not(mmoe, exposures):
    plant(mmoe, "ctcvr", 2, 20.0)
    use = expert_use(gate_use_of(mmoe, exposures(200)))
    assert use["ctcvr"].weight[2] == pytest.approx(1.0, abs=1e-6)
    assert use["ctcvr"].top == (0.0, 0.0, 1.0, 0.0)
    assert use["ctcvr"].entropy == pytest.approx(0.0, abs=1e-6)
    assert use["ctcvr"].collapsed == (0, 1, 3)
    assert use["ctr"].collapsed == ()
    said = verdicts(use)
    assert said[0] == "the gate of task ctcvr has collapsed onto expert 2: it gets 100.0% of the weight"
    assert [sentence.split(" gets")[0] for sentence in said[1:]] == [f"expert {k} of task ctcvr" for k in (0, 1, 3)]


def test_one_starved_expert_among_four_is_named_alone(mmoe, exposures):
    plant(mmoe, "ctr", 1, -4.0)  # e^-4 / (3 + e^-4) = 0.6 %
    (said,) = verdicts(expert_use(gate_use_of(mmoe, exposures(200))))
    assert said == "expert 1 of task ctr gets 0.6% of the weight, where an even gate gives 25.0%: collapsed"


def test_a_system_without_gates_has_none(spec, exposures):
    assert gate_use_of(build("esmm", spec, {}), exposures()) == {}


def test_looking_on_changes_no_score(mmoe, exposures):
    rows = exposures(40)
    sums = GateSums()
    alone, seen = score(mmoe, rows), score(mmoe, rows, observe=sums.add)
    assert all(np.array_equal(alone.odds[head], seen.odds[head]) for head in alone.heads)
    assert sums.totals["ctr"].rows == 40
