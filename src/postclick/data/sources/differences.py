"""How the files of one call differ (D09): columns that some lack or have besides, and ids of another type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from postclick.data.sources.inputs import RawFile, is_csv
from postclick.errors import Finding
from postclick.schema import DenseFeature, EmbeddingFeature, Schema
from postclick.schema.sampling import TextKind

__all__ = ["clock_notes", "compared", "drifted", "ignored_columns"]

_ID_ROLES = ("exposure_id", "user_id", "item_id", "campaign")
_TIME_ROLES = ("time", "click_time", "conversion_time", "observed_until")
_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


def ignored_columns(schema: Schema, files: Sequence[RawFile], samples: Sequence[pa.Table]) -> list[str]:
    """Return the sentence on columns that the schema does not name; one that the first file lacks with its first file.

    Parameters
    ----------
    schema
        Names the columns that are read.
    files, samples
        The files and their first rows.
    """
    known = set(schema.raw_columns())
    extra: dict[str, str] = {}
    for file, sample in zip(files, samples, strict=True):
        for name in sample.column_names:
            if name not in known:
                extra.setdefault(name, file.label)
    if not extra:
        return []
    shown = [name if label == files[0].label else f"{name} (first in {label})" for name, label in extra.items()]
    listed = ", ".join(shown[:8]) + (", ..." if len(extra) > 8 else "")
    return [f"{len(extra)} column{'s' * (len(extra) > 1)} not in the schema and ignored: {listed}"]


def compared(finding: Finding, schema: Schema, files: Sequence[RawFile], samples: Sequence[pa.Table]) -> Finding:
    """Return a finding on a missing column with the first file that has it."""
    if "is missing" not in finding.what:
        return finding
    name = next((name for name in schema.raw_columns() if finding.what.startswith(f"column {name!r} ")), None)
    pairs = zip(files, samples, strict=True)
    having = next((file.label for file, sample in pairs if name in sample.column_names), None)
    return finding if having is None else replace(finding, fix=f"{finding.fix}; {having} has it")


def drifted(
    schema: Schema, files: Sequence[RawFile], samples: Sequence[pa.Table], kinds: Mapping[str, TextKind]
) -> list[Finding]:
    """Return the columns whose ids or times are of one type in some files and of another in others.

    Parameters
    ----------
    schema
        Names the columns.
    files, samples
        The files and their first rows.
    kinds
        Column -> what its text is over all CSV files.
    """
    roles = schema.columns.named()
    times = {name for role, name in roles.items() if role in _TIME_ROLES}
    named = [name for role, name in roles.items() if role in (*_ID_ROLES, *_TIME_ROLES)]
    named += [item.name for item in schema.features if not isinstance(item, DenseFeature | EmbeddingFeature)]
    problems = []
    for name in dict.fromkeys(named):
        found: dict[str, list[str]] = {}
        for file, sample in zip(files, samples, strict=True):
            if sample.column_names.count(name) == 1 and len(sample):
                kind = _csv_kind(kinds.get(name)) if is_csv(file) else _kind(sample.schema.field(name).type)
                kind = {"numbers": "whole numbers"}.get(kind, kind) if name not in times else _time_kind(kind)
                if kind:
                    found.setdefault(kind, []).append(file.label)
        if len(found) > 1:
            described = [
                f"{kind} in {labels[0]}" + (f" and {len(labels) - 1} more" if len(labels) > 1 else "")
                for kind, labels in found.items()
            ]
            place = f"{list(found.values())[1][0]}:{name}"
            what = f"column {name!r} changes its type between files: {', '.join(described)}"
            problems.append(Finding("data.schema_mismatch", what, place, fix="deliver one type in all files"))
    return problems


def _csv_kind(kind: TextKind | None) -> str:
    if kind in ("integer", "integral", "boolean"):
        return "whole numbers"
    return {"number": "numbers", "empty": "", "time": "timestamps"}.get(kind or "empty", "text")


def _time_kind(kind: str) -> str:
    if kind in ("text", "timestamps"):
        return "timestamps"
    return "numbers" if kind else ""


def _kind(kind: pa.DataType) -> str:
    """Return what ids of this type are; floating point may hold whole numbers."""
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_null(plain):
        return ""
    if pa.types.is_list(plain) or pa.types.is_large_list(plain) or pa.types.is_fixed_size_list(plain):
        inner = _kind(plain.value_type)
        return f"lists of {inner}" if inner else ""
    if pa.types.is_temporal(plain):
        return "timestamps"
    numeric = pa.types.is_integer(plain) or pa.types.is_floating(plain) or pa.types.is_decimal(plain)
    return "whole numbers" if numeric or pa.types.is_boolean(plain) else "text"


def clock_notes(schema: Schema, samples: Sequence[pa.Table], kinds: Mapping[str, TextKind]) -> list[str]:
    """Return how the times are read, in sentences: neither a unit nor a zone is guessed in silence (D17).

    Parameters
    ----------
    schema
        Names the time columns and the unit.
    samples
        The first rows of every file.
    kinds
        Column -> what its text is over all CSV files.
    """
    numeric, bare = [], []
    for role, name in schema.columns.named().items():
        if role not in _TIME_ROLES:
            continue
        types = [sample.schema.field(name).type for sample in samples if sample.column_names.count(name) == 1]
        if any(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in types) or kinds.get(name) in (
            "integer",
            "integral",
            "number",
        ):
            numeric.append(name)
        elif any(not pa.types.is_temporal(kind) or getattr(kind, "tz", None) is None for kind in types):
            bare.append(name)
    notes = []
    if numeric:
        unit = _UNITS[schema.columns.time_unit]
        notes.append(f"times in {', '.join(numeric)} are numbers and read as {unit} since 1970 (columns.time_unit)")
    if bare:
        names = ", ".join(bare)
        notes.append(f"times in {names} name no time zone and are read as UTC: local times have to be converted first")
    return notes
