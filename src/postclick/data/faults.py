"""Row faults: which rows go to quarantine, and why; the first reason in TRUST's order counts."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from postclick.data.columns import column, list_parts, numbers
from postclick.data.sequences import check_weights, sequence_weights
from postclick.errors import DataError, Finding
from postclick.schema import Schema

__all__ = ["REASONS", "RowFaults", "feature_faults", "findings", "located", "merge_examples", "placed"]

REASONS = {
    "data.label_missing": "labels that are null, NaN or infinite",
    "data.label_domain": "labels other than 0 and 1",
    "data.conversion_without_click": "conversions without a click",
    "data.non_finite": "numbers that are infinite or missing where the feature allows neither",
    "data.duplicate_key": "exposure ids that occurred before, or are missing",
    "data.time_order": "times that are missing, out of order, or far from all others",
}
"""Code -> what it means, in TRUST's order (D01, D02, D03, D11, D16, D17)."""

_FIXES = {
    "data.label_missing": "complete the labels at their source",
    "data.label_domain": "map the labels to 0 and 1",
    "data.conversion_without_click": "name a policy: --orphan-conversions reject, set_click or view_through",
    "data.non_finite": "repair the numbers, or declare what missing ones mean",
    "data.duplicate_key": "keep one row an exposure",
    "data.time_order": "repair the times; columns.time_unit and columns.clock_tolerance say how they are read",
}
_CODES = tuple(REASONS)
_KEPT_EXAMPLES = 3
_LARGEST = float(np.finfo(np.float32).max)


@dataclass
class RowFaults:
    """The faults of a batch of B rows.

    Parameters
    ----------
    rows
        B.
    """

    rows: int
    reason: NDArray[np.int8] = field(init=False)
    examples: dict[str, list[tuple[int, str, str]]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.reason = np.zeros(self.rows, np.int8)

    @property
    def any(self) -> bool:
        """Whether there is a faulty row."""
        return bool(self.reason.any())

    @property
    def faulty(self) -> NDArray[np.bool_]:
        """[B]: whether the row goes to quarantine."""
        return self.reason > 0

    def mark(
        self,
        code: str,
        mask: NDArray[np.bool_],
        name: str,
        values: pa.Array | None = None,
        show: Callable[[int], str] | None = None,
    ) -> None:
        """Give the rows of `mask` the reason `code`, unless an earlier code has them already.

        Parameters
        ----------
        code
            One of `REASONS`.
        mask
            bool [B].
        name
            The column that is at fault.
        values
            The column, for examples.
        show
            Puts a row in words, for examples; instead of `values`.
        """
        rank = _CODES.index(code) + 1
        fresh = mask & ((self.reason == 0) | (self.reason > rank))
        if not fresh.any():
            return
        self.reason[fresh] = rank
        seen = self.examples.setdefault(code, [])
        for row in np.flatnonzero(fresh)[: _KEPT_EXAMPLES - len(seen)]:
            shown = "" if values is None else str(values[int(row)].as_py())
            seen.append((int(row), name, show(int(row)) if show else shown))

    def counts(self) -> dict[str, int]:
        """Return reason -> rows, of the reasons that occur."""
        found = np.bincount(self.reason, minlength=len(_CODES) + 1)[1:]
        return {code: int(count) for code, count in zip(_CODES, found, strict=True) if count}

    def names(self, index: NDArray[np.int64]) -> list[str]:
        """Return the reasons of the faulty rows at `index`."""
        return [_CODES[rank - 1] for rank in self.reason[index]]

    def located(self, label: str, first_row: int) -> dict[str, tuple[tuple[str, str], ...]]:
        """Return reason -> (``file:row:column``, value) of the first few."""
        return {
            code: tuple((f"{label}:{first_row + row}:{name}", value) for row, name, value in found)
            for code, found in self.examples.items()
        }


def merge_examples(
    left: Mapping[str, tuple[tuple[str, str], ...]], right: Mapping[str, tuple[tuple[str, str], ...]]
) -> dict[str, tuple[tuple[str, str], ...]]:
    """Join the examples of two parts, the first few a reason."""
    return {code: (*left.get(code, ()), *right.get(code, ()))[:_KEPT_EXAMPLES] for code in (*left, *right)}


def findings(
    rejected: Mapping[str, int],
    examples: Mapping[str, tuple[tuple[str, str], ...]],
    details: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Return one finding a reason, in TRUST's order: the first place, the count and the first values.

    Parameters
    ----------
    rejected
        Reason -> rows.
    examples
        Reason -> (place, value) of the first few.
    details
        Reason -> what else there is to say of it.
    """
    result = []
    for code, what in REASONS.items():
        if rejected.get(code):
            found = examples.get(code, ())
            where = found[0][0] if found else ""
            shown = tuple(value for _, value in found if value)
            more = f" ({details[code]})" if details and code in details else ""
            result.append(Finding(code, what + more, where, rejected[code], shown, _FIXES[code]))
    return result


@contextlib.contextmanager
def placed(label: str, first_row: int) -> Iterator[None]:
    """Name file and row in the findings of what is raised inside: ``row 3:price`` becomes ``label:65539:price``.

    Parameters
    ----------
    label
        The file.
    first_row
        Number of the batch's first row in it.
    """
    try:
        yield
    except DataError as error:
        raise DataError(*(located(item, label, first_row) for item in error.findings)) from error


def located(finding: Finding, label: str, first_row: int) -> Finding:
    """Return a finding of a batch with its file and row number, as `placed`."""
    if finding.where == label or finding.where.startswith(f"{label}:"):
        return finding
    inside = re.match(r"row (\d+)(:|$)", finding.where)
    rest = finding.where[inside.end() :] if inside else finding.where
    number = f"{first_row + int(inside.group(1))}" if inside else ""
    return replace(finding, where=":".join(part for part in (label, number, rest) if part))


def feature_faults(batch: pa.RecordBatch, schema: Schema, faults: RowFaults) -> None:
    """Mark rows whose dense, embedding or weight numbers are not finite (D11); missing ones by the feature's policy.

    A number that float32 cannot hold counts as infinite.
    """
    for dense in schema.dense:
        raw = column(batch, dense.name)
        values = numbers(raw, dense.name)
        absent = np.isnan(values)
        faults.mark("data.non_finite", ~absent & (np.abs(values) > _LARGEST), dense.name, raw)
        if dense.missing == "reject":
            faults.mark("data.non_finite", absent, dense.name, raw)
    for embedding in schema.embeddings:
        raw, lengths = list_parts(column(batch, embedding.name), embedding.name)
        _mark_rows(faults, numbers(raw, embedding.name), lengths, embedding.name)
    for sequence in schema.sequences:
        if sequence.weights:
            check_weights(batch, sequence)
            weights, lengths = sequence_weights(column(batch, sequence.weights), sequence)
            _mark_rows(faults, weights, lengths, sequence.weights)


def _mark_rows(faults: RowFaults, values: NDArray[Any], lengths: NDArray[np.int64], name: str) -> None:
    """Mark the rows that hold a value which is not finite in float32."""
    wrong = ~(np.abs(values) <= _LARGEST)
    if wrong.any():
        row = np.repeat(np.arange(len(lengths)), lengths)
        faults.mark("data.non_finite", np.bincount(row[wrong], minlength=len(lengths)) > 0, name)
