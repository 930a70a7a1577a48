"""A proposal of a schema from the first rows of raw data: roles by the usual names, kinds by the values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from postclick.errors import DataError, Finding, InputMissingError, nearest
from postclick.schema.features import (
    DenseFeature,
    EmbeddingFeature,
    Feature,
    SequenceFeature,
    Side,
    SparseFeature,
)
from postclick.schema.sampling import sample_table
from postclick.schema.schema import Columns, Schema

__all__ = ["ALI_CCP_SIDES", "explain", "infer", "propose", "sample_table"]

# The usual names of each role, the likeliest first; compared in lower case with words joined by "_".
_NAMES: dict[str, tuple[str, ...]] = {
    "click": ("click", "clicked", "is_click", "is_clicked", "click_label", "label_click", "ctr_label", "label_ctr"),
    "conversion": (
        *("conversion", "converted", "is_conversion", "is_converted", "conversion_label", "label_conversion"),
        *("purchase", "purchased", "is_purchase", "buy", "bought", "is_buy", "order", "ordered", "is_order"),
        *("pay", "paid", "is_pay", "cvr_label", "label_cvr", "ctcvr_label", "label_ctcvr", "convert"),
    ),
    "action": (
        *("action", "in_shop_action", "cart", "add_to_cart", "addtocart", "is_cart", "is_add_to_cart", "carted"),
        *("wish", "wishlist", "favorite", "favourite", "is_favorite", "is_fav", "fav", "collect"),
    ),
    "exposure_id": (
        *("exposure_id", "impression_id", "imp_id", "sample_id", "request_id", "show_id", "event_id", "row_id"),
        *("exposure", "impression"),
    ),
    "user_id": ("user_id", "userid", "uid", "user", "u_id", "member_id", "customer_id", "visitor_id", "visitorid"),
    "item_id": (
        *("item_id", "itemid", "iid", "item", "i_id", "product_id", "productid", "goods_id", "sku_id", "ad_id"),
        *("video_id", "news_id", "offer_id", "creative_id"),
    ),
    "time": (
        *("time", "timestamp", "time_stamp", "event_time", "exposure_time", "impression_time", "request_time"),
        *("show_time", "log_time", "datetime", "date_time", "ts", "event_timestamp", "date"),
    ),
    "click_time": ("click_time", "click_timestamp", "click_ts"),
    "conversion_time": (
        "conversion_time",
        "conversion_timestamp",
        "purchase_time",
        "order_time",
        "buy_time",
        "pay_time",
    ),
    "observed_until": ("observed_until", "attribution_end"),
    "sample_weight": ("sample_weight", "weight", "example_weight", "row_weight"),
    "propensity": ("propensity", "propensity_score", "logged_propensity", "pscore"),
    "randomised": ("randomised", "randomized", "is_random", "is_randomised", "is_randomized", "random"),
    "value": ("value", "conversion_value", "order_value", "revenue", "gmv"),
    "bid": ("bid", "bid_price"),
    "campaign": ("campaign", "campaign_id"),
}
_LABELS = ("click", "conversion", "action", "randomised")
_ALSO_FEATURES: dict[str, Side] = {"user_id": "user", "item_id": "item", "campaign": "context"}
_SESSIONS = {"search_id", "session_id", "session", "user_session", "page_id", "pv_id", "request_id", "query_id"}
_QUANTITY = re.compile(
    r"(^|_)(numerical|num|count|cnt|amount|price|cost|duration|length|score|rate|ratio|qty|quantity|seconds|sec|ms|"
    r"days|hours|minutes|avg|mean|sum|total|max|min|std)(_|$|\d)"
)
_SIDE_PREFIXES: dict[Side, tuple[str, ...]] = {
    "user": ("user_", "u_", "usr_", "member_", "customer_"),
    "item": ("item_", "i_", "product_", "goods_", "sku_", "ad_", "shop_", "seller_", "brand_", "category_"),
}
_ID_VALUES_AT_LEAST = 1000
ALI_CCP_SIDES: dict[str, Side] = {
    **dict.fromkeys(("101", "121", "122", "124", "125", "126", "127", "128", "129"), "user"),
    **dict.fromkeys(("109_14", "110_14", "127_14", "150_14"), "user"),
    **dict.fromkeys(("205", "206", "207", "210", "216"), "item"),
    **dict.fromkeys(("508", "509", "702", "853", "301"), "context"),
}
"""Sides of the field numbers of Ali-CCP, as its documentation groups them; combinations are context."""


def infer(source: Any, *, rows: int = 20_000) -> Schema:
    """Propose a schema from the first `rows` rows of a file, folder, glob, frame, table or dict of arrays.

    Roles go by the usual names (and, for labels, by holding only 0 and 1); user and item ids are features too,
    exposure ids, sessions, times, weights and outcomes are not. Floats become dense, whole numbers and text sparse
    (whole numbers whose name says a quantity: dense), equally long lists of floats embeddings, other lists sequences.

    Raises
    ------
    DataError
        ``data.schema_mismatch``: no click or no conversion column, both reported together.
    InputMissingError
        ``data.empty``: not one row to judge from.
    """
    table = sample_table(source, rows)
    if len(table) == 0:
        raise InputMissingError(Finding("data.empty", "no row to infer a schema from", fix="pass files with rows"))
    return propose(table)


def propose(table: pa.Table) -> Schema:
    """Propose a schema from a sample that `sample_table` typed."""
    roles = _roles(table)
    problems = [_no_label(role, table) for role in ("click", "conversion") if role not in roles]
    if problems:
        raise DataError(*problems)
    features = [feature for name in table.column_names if (feature := _judge(table, name, roles)[0]) is not None]
    unit = _time_unit(table[roles["time"]]) if "time" in roles else "s"
    named: dict[str, Any] = {**roles, "time_unit": unit}
    return Schema(tuple(features), Columns(**named))


def _no_label(role: str, table: pa.Table) -> Finding:
    near = next((hit for name in _NAMES[role] if (hit := nearest(name, table.column_names))), None)
    known = ", ".join(_NAMES[role][:4])
    fix = f"is it {near!r}? " if near else ""
    columns = ", ".join(table.column_names[:8])
    what = f"no {role} column recognised among {columns}{', ...' if table.num_columns > 8 else ''}"
    return Finding("data.schema_mismatch", what, fix=f"{fix}name it in a schema (--schema), or call it one of {known}")


def _plain(name: str) -> str:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")


def _roles(table: pa.Table) -> dict[str, str]:
    plain: dict[str, str] = {}
    for name in table.column_names:
        plain.setdefault(_plain(name), name)
    roles: dict[str, str] = {}
    for role, names in _NAMES.items():
        hits = [plain[name] for name in names if name in plain]
        found = next((hit for hit in hits if _suits(role, hit, table)), None)
        if found is not None and found not in roles.values():
            roles[role] = found
    if {"101", "205", "301"} <= set(table.column_names):
        roles = {"user_id": "101", "item_id": "205", **roles}
    order = list(_NAMES)
    return dict(sorted(roles.items(), key=lambda pair: order.index(pair[0])))


def _suits(role: str, name: str, table: pa.Table) -> bool:
    """Whether the values allow the role; the plain name of a label is believed whatever it holds (faults are rows')."""
    column = table[name]
    if role in _LABELS:
        return _plain(name) == role or _binary(column)
    if role == "exposure_id":
        return not _listed(column.type) and len(column.unique()) == len(column)
    if role in ("user_id", "item_id", "campaign"):
        return not _listed(column.type) and (not pa.types.is_floating(column.type) or _whole(column))
    if role == "time" and _plain(name) == "date":
        return bool(pa.types.is_temporal(column.type))
    if role in ("time", "click_time", "conversion_time", "observed_until"):
        return bool(pa.types.is_temporal(column.type)) or _number(column.type)
    return _number(column.type)


def _number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _listed(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _binary(column: pa.ChunkedArray) -> bool:
    if pa.types.is_boolean(column.type):
        return True
    if not _number(column.type):
        return False
    values = set(pc.unique(column.drop_null()).to_pylist())
    return bool(values) and values <= {0, 1}


def _whole(column: pa.ChunkedArray) -> bool:
    """Whether every number is whole: ids with gaps come as floating point."""
    known = pc.drop_null(column)
    return bool(len(known) and pc.all(pc.equal(pc.floor(known), known)).as_py())


def _time_unit(column: pa.ChunkedArray) -> Literal["s", "ms", "us", "ns"]:
    """Seconds since 1970 are about 1e9 in our years, and each finer unit is a thousand times larger."""
    if pa.types.is_temporal(column.type):
        return "s"
    largest = pc.max(pc.abs(column)).as_py() or 0
    steps: tuple[tuple[float, Literal["s", "ms", "us", "ns"]], ...] = ((1e11, "s"), (1e14, "ms"), (1e17, "us"))
    return next((unit for limit, unit in steps if largest < limit), "ns")


def _side(name: str, role: str | None, names: Iterable[str]) -> Side:
    if role in _ALSO_FEATURES:
        return _ALSO_FEATURES[role]
    if name in ALI_CCP_SIDES and {"101", "205", "301"} <= set(names):
        return ALI_CCP_SIDES[name]
    plain = _plain(name)
    return next((side for side, prefixes in _SIDE_PREFIXES.items() if plain.startswith(prefixes)), "context")


def _judge(table: pa.Table, name: str, roles: dict[str, str]) -> tuple[Feature | None, str]:
    """Return the feature that a column is, or None, and the reason in words."""
    role = next((key for key, column in roles.items() if column == name), None)
    if role is not None and role not in _ALSO_FEATURES:
        return None, f"the {role.replace('_', ' ')} by its name"
    twin = next((key for key, names in _NAMES.items() if _plain(name) in names and key not in _ALSO_FEATURES), None)
    if role is None and twin not in (None, "sample_weight", "bid"):
        return None, f"left out: a name of the {twin.replace('_', ' ')}, which must not be a feature"
    if role is None and _plain(name) in _SESSIONS:
        return None, "left out: names a session or page, not the user, the item or the context"
    side = _side(name, role, table.column_names)
    column = table[name]
    if role is not None:
        return SparseFeature(name, side), f"the {role.replace('_', ' ')} by its name, and a feature"
    return _by_values(column, name, side)


def _by_values(column: pa.ChunkedArray, name: str, side: Side) -> tuple[Feature | None, str]:
    kind = column.type
    rules: tuple[tuple[Callable[[pa.DataType], bool], Callable[..., tuple[Feature | None, str]]], ...] = (
        (_listed, _list_feature),
        (lambda kind: bool(pa.types.is_integer(kind)), _whole_feature),
        (_number, lambda _column, name, side: (DenseFeature(name, side), "numbers")),
        (lambda kind: bool(pa.types.is_null(kind)), lambda *_: (None, "left out: no value in the sample")),
        (_category, lambda column, name, side: (SparseFeature(name, side), f"{_distinct(column)} different values")),
    )
    for applies, judge in rules:
        if applies(kind):
            return judge(column, name, side)
    return None, f"left out: {kind} is no kind of feature"


def _category(kind: pa.DataType) -> bool:
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return bool(text or pa.types.is_boolean(kind) or pa.types.is_dictionary(kind))


def _distinct(column: pa.ChunkedArray) -> int:
    return len(column.unique())


def _whole_feature(column: pa.ChunkedArray, name: str, side: Side) -> tuple[Feature | None, str]:
    distinct, lowest = _distinct(column), pc.min(column).as_py()
    if distinct == len(column) >= _ID_VALUES_AT_LEAST and pc.max(column).as_py() - lowest == distinct - 1:
        return None, "left out: numbers the rows"
    if _QUANTITY.search(_plain(name)):
        return DenseFeature(name, side), "whole numbers whose name says a quantity"
    if lowest is not None and lowest < -1:
        return DenseFeature(name, side), "whole numbers, negative ones among them"
    return SparseFeature(name, side), f"whole numbers, {distinct} different ones"


def _list_feature(column: pa.ChunkedArray, name: str, side: Side) -> tuple[Feature | None, str]:
    inner = column.type.value_type
    if not pa.types.is_floating(inner):
        if pa.types.is_integer(inner) or _category(inner):
            return SequenceFeature(name, side), "lists of ids"
        return None, f"left out: lists of {inner} are no kind of feature"
    lengths = pc.unique(pc.list_value_length(column.drop_null())).to_pylist()
    if len(lengths) == 1 and lengths[0]:
        return EmbeddingFeature(name, lengths[0], side), f"vectors of {lengths[0]} numbers"
    return None, "left out: lists of numbers of different length (weights? name them in the schema)"


def explain(schema: Schema, table: pa.Table) -> str:
    """Put a proposal in words, one line a column: what it is taken for and why.

    Parameters
    ----------
    schema
        What `infer` proposed, or a schema of the user's.
    table
        The sample (`sample_table`).
    """
    roles = schema.columns.named()
    features = {feature.name: feature for feature in schema.features}
    weights = {item.weights for item in schema.sequences if item.weights}
    width = max((len(name) for name in table.column_names), default=0)
    lines = []
    for name in table.column_names:
        role = next((key for key, column in roles.items() if column == name), None)
        feature = features.get(name)
        what = [role.replace("_", " ")] if role else []
        if feature is not None:
            what.append(f"{type(feature).__name__.removesuffix('Feature').lower()} feature of the {feature.side}")
        if name in weights:
            what.append("weights of a sequence")
        reason = _judge(table, name, roles)[1]
        lines.append(f"{name:<{width}}  {' and '.join(what) or 'not used'}  ({reason})")
    counts = f"{len(schema.sparse)} sparse, {len(schema.dense)} dense, {len(schema.sequences)} sequence"
    lines.append(f"{len(schema.features)} features: {counts}, {len(schema.embeddings)} embedding")
    unit = f"; numeric times are read as {schema.columns.time_unit}" if schema.columns.time else ""
    return "\n".join([*lines, f"judged from {len(table)} rows{unit}"])
