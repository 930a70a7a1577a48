"""``model.json``."""

from __future__ import annotations

import json
from math import log

import pytest

from postclick.bundle.header import Constant, Header
from postclick.data.log import LogSpec
from postclick.errors import BundleError, TrustError
from postclick.schema import Schema, SparseFeature

SCHEMA = Schema((SparseFeature("item"),))
SPEC = LogSpec(SCHEMA, 10, 100.0, 20.0, 3.0, None, (9,))


def header():
    return Header(
        "esmm",
        {"embedding_size": 8, "tower": {"hidden": [4]}},
        {"ctr": "head", "cvr": "head", "ctcvr": "head"},
        Header.numbers(SPEC),
        "abc",
        {"cvr": Constant(0, 20)},
    )


def test_json_and_back():
    again = Header.from_dict(json.loads(json.dumps(header().to_dict())))
    assert again == header()
    assert again.log_spec(SCHEMA) == SPEC
    assert set(again.versions) == {"postclick", "torch", "numpy"}


def test_the_prior_of_a_constant_head():
    assert Constant(0, 9).odds == pytest.approx(log(0.05 / 0.95))
    assert Constant(9, 9).odds == pytest.approx(log(0.95 / 0.05))


def test_a_newer_format_names_who_wrote_it():
    form = header().to_dict() | {"format": 2, "versions": {"postclick": "9.9"}}
    with pytest.raises(BundleError, match=r"bundle\.version.*format 2.*written by 9\.9") as caught:
        Header.from_dict(form)
    assert caught.value.exit_code == 78


@pytest.mark.parametrize(
    "change",
    [
        {"system": 3},
        {"heads": []},
        {"spec": {}},
        {"spec": Header.numbers(SPEC) | {"table_rows": -1}},
        {"spec": Header.numbers(SPEC) | {"table_rows": 2**40}},
        {"spec": Header.numbers(SPEC) | {"field_rows": 9}},
        {"spec": Header.numbers(SPEC) | {"field_rows": [-1]}},
        {"spec": Header.numbers(SPEC) | {"field_rows": [2.5]}},
        {"spec": Header.numbers(SPEC) | {"field_rows": [2**40]}},
        {"constants": {"cvr": {"positives": 3, "rows": 2}}},
        {"constants": {"cvr": {"positives": 0.5, "rows": 2}}},
        {"versions": {"torch": None}},
    ],
)
def test_what_is_not_a_header_is_refused(change):
    with pytest.raises(TrustError, match=r"bundle\.malformed"):
        Header.from_dict(header().to_dict() | change)


@pytest.mark.parametrize("form", [None, [], "x", {}])
def test_what_is_not_even_a_table(form):
    with pytest.raises(TrustError, match=r"bundle\.malformed"):
        Header.from_dict(form)


def test_a_log_without_ids_has_a_table_of_no_rows():
    form = header().to_dict()
    form["spec"] = form["spec"] | {"table_rows": 0, "field_rows": []}
    assert Header.from_dict(form).spec["table_rows"] == 0


def test_rows_of_fields_may_be_missing_but_not_of_other_fields():
    form = header().to_dict()
    del form["spec"]["field_rows"]
    assert Header.from_dict(form).log_spec(SCHEMA).field_rows is None
    form["spec"] |= {"field_rows": [3, 3]}
    with pytest.raises(TrustError, match="field_rows has 2 numbers, the schema 1 fields"):
        Header.from_dict(form).log_spec(SCHEMA)
