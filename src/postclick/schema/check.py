"""Whether the columns of raw data are those that a schema declares: every mistake in one pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

import pyarrow as pa
from pyarrow import types as t

from postclick.errors import Finding, nearest
from postclick.schema.features import EmbeddingFeature, Feature, SequenceFeature, SparseFeature
from postclick.schema.schema import Schema

__all__ = ["check_columns"]

_Test: TypeAlias = Callable[[pa.DataType], bool]
_NUMERIC_ROLES = ("sample_weight", "propensity", "value", "bid")
_TIME_ROLES = ("time", "click_time", "conversion_time", "observed_until")


def check_columns(schema: Schema, names_and_types: pa.Schema, where: str, *, labels: bool = True) -> list[Finding]:
    """Compare the columns of raw data with a schema.

    Parameters
    ----------
    schema
        What is declared.
    names_and_types
        What the data has; columns the schema does not name are of no account.
    where
        The file, for the findings.
    labels
        False: the columns of the funnel may be missing (scoring).

    Returns
    -------
    list
        Missing columns (with the nearest spelling), duplicated ones and wrong types, all as ``data.schema_mismatch``.
        Whether the values of a float column declared sparse are whole is seen when they are read (``data.lossy_cast``).
    """
    counts = Counter(names_and_types.names)
    needs = _needs(schema)
    features = {feature.name for feature in schema.features}
    optional = set() if labels else set(schema.columns.named().values()) - features
    findings = []
    for name, (purpose, allowed, wanted) in needs.items():
        if counts[name] == 0:
            if name not in optional:
                findings.append(_missing(name, purpose, names_and_types.names, set(needs), where))
        elif counts[name] > 1:
            what = f"column {name!r} ({purpose}) occurs {counts[name]} times"
            findings.append(Finding("data.schema_mismatch", what, where, fix="give every column its own name"))
        elif not _allows(allowed, kind := names_and_types.field(name).type):
            what = f"column {name!r} is {_words(kind)}, declared as {purpose}"
            findings.append(Finding("data.schema_mismatch", what, f"{where}:{name}", fix=f"{purpose} takes {wanted}"))
    return findings


def _missing(name: str, purpose: str, have: list[str], needed: set[str], where: str) -> Finding:
    spare = [item for item in have if item not in needed]
    near = nearest(name, spare) or next((item for item in spare if item.lower() == name.lower()), None)
    fix = f"did you mean {near!r}?" if near else f"the data has {', '.join(have[:8])}{', ...' if len(have) > 8 else ''}"
    return Finding("data.schema_mismatch", f"column {name!r} ({purpose}) is missing", where, fix=fix)


def _needs(schema: Schema) -> dict[str, tuple[str, tuple[_Test, ...], str]]:
    """Return column -> (what it is declared as, the types allowed, those types in words); features override roles."""
    needs: dict[str, tuple[str, tuple[_Test, ...], str]] = {}
    for role, name in schema.columns.named().items():
        needs[name] = (f"the {role.replace('_', ' ')}", *_role_types(role))
    for feature in schema.features:
        needs[feature.name] = _feature_types(feature)
        if isinstance(feature, SequenceFeature) and feature.weights:
            tests = (_numbers_list, t.is_string, t.is_large_string) if feature.separator else (_numbers_list,)
            needs[feature.weights] = (f"the weights of {feature.name!r}", tests, "lists of numbers")
    return needs


def _role_types(role: str) -> tuple[tuple[_Test, ...], str]:
    if role in _NUMERIC_ROLES:
        return (_number,), "numbers"
    if role in _TIME_ROLES:
        return (_number, t.is_temporal, _text), "numbers or timestamps"
    return (_number, t.is_boolean, _text), "numbers or text"


def _feature_types(feature: Feature) -> tuple[str, tuple[_Test, ...], str]:
    if isinstance(feature, SparseFeature):
        return "a sparse feature", (_number, t.is_boolean, _text), "one id or text a row; lists are kind = 'sequence'"
    if isinstance(feature, SequenceFeature):
        if feature.separator is not None:
            return "a sequence feature", (_ids_list, _text), f"lists, or text split at {feature.separator!r}"
        return "a sequence feature", (_ids_list,), "lists of ids; text needs a separator"
    if isinstance(feature, EmbeddingFeature):

        def fits(kind: pa.DataType) -> bool:
            return _numbers_list(kind) and (not t.is_fixed_size_list(kind) or kind.list_size == feature.size)

        return "an embedding feature", (fits,), f"lists of {feature.size} numbers"
    return "a dense feature", (_number, t.is_boolean), "numbers; text is kind = 'sparse'"


def _allows(tests: tuple[_Test, ...], kind: pa.DataType) -> bool:
    plain = kind.value_type if t.is_dictionary(kind) else kind
    return bool(t.is_null(plain)) or any(test(plain) for test in tests)


def _number(kind: pa.DataType) -> bool:
    return bool(t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind))


def _text(kind: pa.DataType) -> bool:
    return bool(t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind))


def _list(kind: pa.DataType) -> bool:
    return bool(t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind))


def _ids_list(kind: pa.DataType) -> bool:
    return _list(kind) and (t.is_null(kind.value_type) or t.is_integer(kind.value_type) or _text(kind.value_type))


def _numbers_list(kind: pa.DataType) -> bool:
    return _list(kind) and (t.is_null(kind.value_type) or _number(kind.value_type))


def _words(kind: pa.DataType) -> str:
    if _text(kind):
        return "text"
    if _list(kind):
        return f"lists of {_words(kind.value_type)}"
    return str(kind)
