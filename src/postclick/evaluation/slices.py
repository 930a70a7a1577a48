"""Slices of the evaluated rows: values of chosen columns, and users, items or pairs that training has not seen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from postclick.errors import printable
from postclick.evaluation.rows import EvaluationRows

__all__ = ["MOST_VALUES", "left_out", "slice_masks"]

MOST_VALUES = 20
"""Values of a column that get their own metrics, those with most rows first."""


def slice_masks(rows: EvaluationRows) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the name behind the bar (``column=value``, ``cold-item``, ``new-pair``) and the mask of each slice."""
    for column, values in rows.slices.items():
        codes = rows.codes[column]
        counts = np.bincount(codes)
        for code in np.argsort(-counts, kind="stable")[:MOST_VALUES]:
            mask = codes == code
            yield f"{column}={printable(values[np.argmax(mask)])}", mask
    masks = (("cold-item", rows.cold_item), ("cold-user", rows.cold_user), ("new-pair", rows.new_pair))
    for name, mask in masks:
        if mask is not None:
            yield name, mask


def left_out(rows: EvaluationRows) -> dict[str, int]:
    """Return, a column, how many of its values get no metrics of their own."""
    more = {column: int(codes.max(initial=-1)) + 1 - MOST_VALUES for column, codes in rows.codes.items()}
    return {column: count for column, count in more.items() if count > 0}
