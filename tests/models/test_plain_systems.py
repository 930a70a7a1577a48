"""The plain PyTorch forms that `benchmarks/train_throughput.py` times are the systems they stand for."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from postclick.data.log import LogSpec
from postclick.models.base import Batch
from postclick.models.catalog import build
from postclick.models.systems import MODELS
from postclick.nn.embedding import FusedEmbedding
from postclick.nn.features import Features
from postclick.schema import Schema, SparseFeature

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NOT_TIMED = {"dfm", "es-dfm"}
"""They learn from times, which the drawn rows of the benchmark have none of."""
SIZES, EMBEDDING, ROWS = (5, 3, 7), 4, 64
PAPER = {
    **{key: {"imputation": "error"} for key in ("multi-dr", "escm2-dr")},
    **{key: {"risk": {"reach": "off", "targeted": False}} for key in ("dr-jl", "mrdr")},
}
"""Arguments that make a system the paper's form, which is what is timed against it."""
TASKS = (r"\1", "cvr")
"""The task of a network of its own: its name; MRDR's imputation is a CVR."""
OWN_HEADS = tuple(rf"\1_network.heads.{task}.linear.\2" for task in TASKS)
OWN_TOWERS = tuple(rf"\1_network.towers.{task}.steps.\2.\3" for task in TASKS)
NAMES = (
    # plain's name, then postclick's, which keeps a tower's last linear layer (9) apart as a head; tried in order
    (r"^towers\.(\w+)\.9\.(\w+)$", (r"network.heads.\1.linear.\2", r"\1_head.linear.\2", *OWN_HEADS)),
    (r"^towers\.(\w+)\.(\d)\.(\w+)$", (r"network.towers.\1.steps.\2.\3", r"\1_tower.steps.\2.\3", *OWN_TOWERS)),
    (r"^(ctr|cvr)\.9\.(\w+)$", (r"network.heads.\1.linear.\2",)),
    (r"^(ctr|cvr)\.(\d)\.(\w+)$", (r"network.towers.\1.steps.\2.\3",)),
    (r"^experts\.(\d)\.", (r"network.trunk.bank.experts.\1.steps.",)),
    (r"^task_gates\.(\d)\.0\.", (r"network.trunk.gates.\1.linear.",)),
    (r"^levels\.(\d)\.own\.(\d)\.(\d)\.", (r"network.trunk.levels.\1.own.\2.experts.\3.steps.",)),
    (r"^levels\.(\d)\.shared\.(\d)\.", (r"network.trunk.levels.\1.shared.experts.\2.steps.",)),
    (r"^levels\.(\d)\.gates\.(\d)\.0\.", (r"network.trunk.levels.\1.gates.\2.linear.",)),
    (r"^levels\.(\d)\.shared_gate\.0\.", (r"network.trunk.levels.\1.shared_gate.linear.",)),
    (r"^information\.0\.", (r"information.steps.0.",)),
    (r"^gate_layer\.", (r"information.",)),
    (r"^information\.(\w+)\.0\.", (r"transfer.information.\1.steps.0.",)),
    (r"^attention\.", (r"transfer.attention.",)),
    (r"^fuse\.0\.", (r"transfer.fuse.steps.0.",)),
    (r"^(value|query|key)\.", (r"transfer.\1.",)),
    (r"^heads\.click\.", (r"ctr_head.linear.",)),
    (r"^heads\.(\w+)\.", (r"\1_head.linear.",)),
    (r"^click_head\.", (r"ctr_head.linear.",)),
    (r"^both_head\.", (r"ctcvr_head.linear.",)),
    (r"^click\.", (r"ctr_tower.steps.",)),
    (r"^both\.", (r"ctcvr_tower.steps.",)),
    (r"^(action|purchase)\.", (r"\1_tower.steps.",)),
)


@pytest.fixture(scope="module")
def modules() -> tuple[ModuleType, ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        return importlib.import_module("plain_systems"), importlib.import_module("every_system")


def ours_of(name: str, found: dict[str, Tensor]) -> str:
    """Return what postclick calls the parameter that the plain form calls `name`."""
    for pattern, candidates in NAMES:
        if re.search(pattern, name):
            return next(made for other in candidates if (made := re.sub(pattern, other, name)) in found)
    raise AssertionError(name)


def copy_weights(plain: nn.Module, ours: nn.Module) -> None:
    """Give `ours` the weights of `plain`; fails where a dense parameter is left out or has another shape."""
    fused = [module for module in ours.modules() if isinstance(module, FusedEmbedding)]
    found = {name: each for name, each in ours.named_parameters() if not name.endswith("table.weight")}
    given = {name: each for name, each in plain.named_parameters() if "tables" not in name}
    fields = [each for name, each in plain.named_parameters() if "tables" in name]
    with torch.no_grad():
        for index, table in enumerate(fused):
            table.weight[len(SIZES) :] = torch.cat(fields[index * len(SIZES) :][: len(SIZES)])
        assert len(fields) == len(fused) * len(SIZES)
        named = {ours_of(name, found): each for name, each in given.items()}
        assert set(named) == set(found)
        for name, each in named.items():
            assert found[name].shape == each.shape
            found[name].copy_(each)


def drawn() -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    random = np.random.default_rng(0)
    ids = torch.from_numpy(np.stack([random.integers(0, size, ROWS) for size in SIZES], axis=1))
    click, conversion, action = (torch.from_numpy(random.integers(0, 2, ROWS).astype(np.float32)) for _ in range(3))
    return ids, (click, click * conversion, action)


@pytest.mark.parametrize("key", [key for key in MODELS if key not in NOT_TIMED])
def test_the_plain_form_has_the_loss_of_the_system(key: str, modules: tuple[ModuleType, ModuleType]) -> None:
    plain_systems, every_system = modules
    assert not NOT_TIMED & set(plain_systems.PLAIN)
    torch.manual_seed(3)
    spec = LogSpec(Schema(tuple(SparseFeature(f"f{index}") for index in range(3))), 18, 10.0, 5.0, 2.0, 3.0)
    sizes = {"embedding_size": EMBEDDING, **every_system.equal_sizes(key)}
    ours = build(key, spec, {**sizes, **PAPER.get(key, {})}).eval()
    plain = plain_systems.PLAIN[key](SIZES, EMBEDDING).eval()
    plain.floor = 0.1 * spec.ctr
    for parameter in plain.parameters():
        nn.init.normal_(parameter, std=0.3)  # far from where it starts, so that every part counts
    copy_weights(plain, ours)
    if key == "cstwa":  # weights count once the window is full
        plain.last = torch.linspace(0.0, 0.6, plain.WINDOW)
        ours.window.update(plain.last)
    ids, (click, conversion, action) = drawn()
    firsts = torch.tensor([3, *(3 + np.cumsum(SIZES)[:-1])])
    empty = torch.zeros(ROWS, 0)
    features = Features((ids + firsts).to(torch.int32), empty, empty)
    batch = Batch(features, click=click, conversion=conversion, action=action)
    with torch.no_grad():
        losses = ours.loss(ours(batch), batch)
        rows = ids, click, conversion, action
        expected = sum(plain.losses(*rows)) if hasattr(plain, "losses") else plain.loss(*rows)
    assert float(sum(losses.terms.values())) == pytest.approx(float(expected), rel=1e-5)


def test_a_plain_form_is_timed_of_every_multi_task_system(
    modules: tuple[ModuleType, ModuleType],
) -> None:
    assert set(modules[0].PLAIN) <= set(MODELS)
    assert {"mlp", "esmm", "omoe", "mmoe", "ple", "aitm", "esm2", "esmc", "esms", "esmg"} <= set(modules[0].PLAIN)
