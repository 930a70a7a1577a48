"""What a system says about itself holds."""

import dataclasses
import importlib
import inspect
import pkgutil

import numpy as np
import pytest
import torch

import postclick.models
from postclick.binding import parameters
from postclick.data.scores import HEADS, probability
from postclick.errors import DataError
from postclick.models.base import Citation, ConversionModel
from postclick.models.batching import to_batch
from postclick.models.catalog import build
from postclick.models.scoring import score
from postclick.models.systems import MODELS

SHARED_BY_SYSTEMS = {"arguments", "debiasing", "delayed", "task_heads", "two_sided"}
NOT_SYSTEMS = {"base", "batching", "catalog", "gates", "scoring", "systems"} | SHARED_BY_SYSTEMS
# Systems whose ctcvr is ctr * cvr by construction; of the others ctcvr > ctr is counted.
PRODUCT = {
    "mlp": True,
    "mlp-conversion=exposure": False,
    "mlp-interaction={'rank': 2}": True,
    "esmm": True,
    "esmm-shared_embedding=False": True,
    "esmm-trunk=mmoe": True,
    "mlp-trunk=mf": True,
    "mlp-click_space=aman": True,
    "mlp-click_space=oversample": True,
    "mlp-click_space=unbias": True,
    "esmm-trunk=mf": True,
    "esmm-trunk=ncf": True,
    "omoe": False,
    "omoe-conversion=cvr": True,
    "mmoe": False,
    "mmoe-conversion=cvr": True,
    "ple": False,
    "ple-conversion=cvr": True,
    "aitm": False,
    "esm2": True,
    "esm2-other_action=False": True,
    "esm2-purchase=both": True,
    "esmc": True,
    "esms": True,
    "esmg": False,
    "multi-ipw": True,
    "multi-dr": True,
    "multi-dr-imputation=error": True,
    "escm2-ips": True,
    "escm2-dr": True,
    "escm2-dr-risk={'updates': 'alternating'}": True,
    "dr-jl": True,
    "mrdr": True,
    "dcmt": True,
    "ddpo": True,
    "ddpo-transfer=None": True,
    "nise": True,
    "chorus": True,
    "dfm": True,
    "dfm-cut_at_window=False": True,
    "es-dfm": True,
    "cstwa": False,
    "cstwa-migrator=None": False,
    "cstwa-perceptron=None": False,
    "cstwa-escaper=None": False,
    "cstwa-calibrator=None": False,
    "cstwa-migrator=None-perceptron=None-escaper=None": False,
    "cstwa-migrator={'reading': 'B'}": False,
    "cstwa-migrator={'reading': 'D'}": False,
}
# A paper with several systems is one file, named by the first; every other file holds one system.
PAPERS = {
    "esmc": {"esmc", "esms", "esmg"},
    "multi_ipw": {"multi-ipw", "multi-dr"},
    "escm2": {"escm2-ips", "escm2-dr"},
}


def systems_in_the_folder():
    found = {}
    for module in pkgutil.iter_modules(postclick.models.__path__):
        if module.name in NOT_SYSTEMS:
            continue
        members = vars(importlib.import_module(f"postclick.models.{module.name}")).values()
        found[module.name] = [
            member
            for member in members
            if inspect.isclass(member)
            and issubclass(member, ConversionModel)
            and not inspect.isabstract(member)
            and member.__module__ == f"postclick.models.{module.name}"
        ]
    return found


def test_every_file_of_the_folder_holds_one_paper_and_the_table_lists_it():
    found = systems_in_the_folder()
    listed = {}
    for key, system in MODELS.items():
        listed.setdefault(system.__module__.rpartition(".")[2], {})[key] = system
    assert {module: set(members) for module, members in found.items()} == {
        module: set(systems.values()) for module, systems in listed.items()
    }
    for module, systems in listed.items():
        assert set(systems) == PAPERS.get(module, {module.replace("_", "-")})


def test_every_case_says_whether_it_is_a_product(cases):
    assert set(PRODUCT) == {case.name for case in cases}


def test_defaults_cannot_be_changed(case):
    for name, parameter in parameters(MODELS[case.key]).items():
        assert parameter.default is not inspect.Parameter.empty, f"{name} has no default"
        hash(parameter.default)  # raises for lists, dicts and dataclasses that are not frozen
        assert parameter.argument.doc, f"{name} has no documentation"


def test_is_cited_and_documented(case):
    system = MODELS[case.key]
    citation = system.citation
    assert isinstance(citation, Citation)
    assert 1990 <= citation.year <= 2100
    assert citation.link.startswith("https://")
    assert all((citation.title, citation.authors, citation.venue))
    for section in ("What it estimates", "Departures", "References", str(citation.year)):
        assert section in (system.__doc__ or ""), section


def test_heads_and_observed_agree_with_the_outputs(case, make_model, toy):
    model = make_model(case)
    outputs = model(to_batch(toy.exposures.take(np.arange(16))))
    assert set(model.heads) == set(outputs.heads())
    assert set(model.heads) <= set(HEADS)
    assert set(model.heads.values()) <= {"head", "derived"}
    assert model.observed
    for head, population in model.observed:
        assert model.heads[head] == "head"
        assert population in ("exposure", "click")
    for head in outputs.heads().values():
        assert head.log_p.shape == head.log_not_p.shape == (16,)
        assert head.log_p.dtype == torch.float32
        torch.testing.assert_close(head.log_p.exp() + head.log_not_p.exp(), torch.ones(16))


def test_product_systems_keep_ctcvr_below_ctr_and_others_count(case, fitted, fresh_toy):
    scores = score(fitted(case), fresh_toy.exposures)
    ctr, ctcvr = scores.odds["ctr"], scores.odds["ctcvr"]
    product = scores.probability("ctr") * scores.probability("cvr")
    if PRODUCT[case.name]:
        assert np.all(ctcvr <= ctr)
        np.testing.assert_allclose(scores.probability("ctcvr"), product, rtol=1e-5)
        assert scores.clipped == 0
    else:
        assert "cvr" in scores.derived
        assert scores.clipped == np.sum(ctcvr > ctr)
        whole = ctcvr < ctr
        np.testing.assert_allclose(scores.probability("ctcvr")[whole], product[whole], rtol=1e-4)
        assert np.all(probability(scores.odds["cvr"]) <= 1)


def test_phases_move_every_parameter_on_terms_that_exist(case, make_model, toy):
    model, batch = make_model(case), to_batch(toy.exposures.take(np.arange(16)))
    terms = set(model.loss(model(batch), batch).terms)
    phases = model.phases()
    assert {id(p) for phase in phases for p in phase.parameters} == {id(p) for p in model.parameters()}
    assert all(set(phase.terms) <= terms for phase in phases)
    assert len({phase.name for phase in phases}) == len(phases)


def test_tables_and_shared_parameters_are_the_systems_own(case, make_model):
    model = make_model(case)
    own = {id(parameter) for parameter in model.parameters()}
    tables = [id(table) for table in model.tables()]
    assert tables
    assert len(set(tables)) == len(tables)
    assert set(tables) <= own
    assert {id(parameter) for parameter in model.shared_parameters()} <= own - set(tables)


def test_scoring_needs_no_labels_and_puts_the_mode_back(case, make_model, toy):
    few = toy.exposures.take(np.arange(20))
    model = make_model(case, train=True)
    scores = score(model, few.without_labels())
    assert model.training
    assert len(scores) == 20
    np.testing.assert_array_equal(scores.odds["ctr"], score(model, few).odds["ctr"])


def test_a_log_without_a_click_builds(case, toy):
    spec = dataclasses.replace(toy.spec, clicks=0.0, conversions=0.0)
    torch.manual_seed(0)
    scores = score(build(case.key, spec, case.arguments), toy.exposures.take(np.arange(20)))
    assert all(np.isfinite(scores.odds[head]).all() for head in scores.heads)


def test_the_loss_without_labels_is_refused(case, make_model, toy):
    model = make_model(case)
    batch = to_batch(toy.exposures.take(np.arange(4)).without_labels())
    with pytest.raises(DataError, match="a loss needs the labels click and conversion"):
        model.loss(model(batch), batch)
