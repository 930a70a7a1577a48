"""Heads whose training labels are of one class: refused, or on request a constant prior (TRUST D04)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from postclick.bundle.header import Constant
from postclick.data.arrays import CENSORED, Labels
from postclick.errors import DataError, Finding

__all__ = ["constant_heads"]

_NAMES = {"ctr": ("click", "exposures"), "cvr": ("conversion", "clicks"), "ctcvr": ("conversion", "exposures")}
_NAMES |= {"action": ("action", "clicks"), "ctar": ("action", "exposures")}


def constant_heads(
    labels: Labels,
    heads: Mapping[str, str],
    *,
    population: str = "exposure",
    allow: bool = False,
    negatives_everywhere: bool = False,
) -> dict[str, Constant]:
    """Return the heads that cannot be learned from the training labels, with their counts.

    Parameters
    ----------
    labels
        Of the training split.
    heads
        The system's heads: ``head`` or ``derived``. Where cvr is derived, ctcvr is judged in its place, and ctar where
        action is.
    population
        With ``click`` every row is a click by definition: ctr is the constant, and that is no fault.
    negatives_everywhere
        Unclicked rows are negatives of the CVR: it is judged on all exposures.
    allow
        Return them in place of refusing (``--allow-degenerate``).

    Raises
    ------
    DataError
        ``data.single_class``, one finding a head, unless `allow`.
    """
    judged = ["ctr", "cvr" if heads.get("cvr") == "head" else "ctcvr"]
    if "action" in heads or "ctar" in heads:
        judged.append("action" if heads.get("action") == "head" else "ctar")
    # a cvr with negatives everywhere has the label of ctcvr
    judged_as = {"cvr": "ctcvr"} if negatives_everywhere else {}
    found = {head: _count(judged_as.get(head, head), labels) for head in judged}
    constants = {head: count for head, count in found.items() if count.positives in (0, count.rows)}
    refused = [head for head in constants if not (head == "ctr" and population == "click")]
    if refused and not allow:
        raise DataError(*(_finding(head, constants[head]) for head in refused))
    return constants


def _count(head: str, labels: Labels) -> Constant:
    label: NDArray[np.int8] = labels.click if head == "ctr" else labels.conversion
    if head in ("action", "ctar"):
        label = labels.action if labels.action is not None else np.full(len(labels), CENSORED, np.int8)
        # without a click an action is none: the label is click times action
        label = np.where(labels.click == 1, label, np.minimum(label, np.int8(0)))
    known = labels.conversion_known if head in ("cvr", "ctcvr") else label != CENSORED
    if head in ("cvr", "action"):
        known &= labels.click == 1
    return Constant(int((label[known] == 1).sum()), int(known.sum()))


def _finding(head: str, count: Constant) -> Finding:
    label, rows = _NAMES[head]
    what = f"the {head} head has one class only: {count.positives} {label}s on {count.rows} {rows} in train"
    fix = "bring more rows, or make this head the constant prior with --allow-degenerate"
    return Finding("data.single_class", what, f"train:{label}", count.rows, fix=fix)
