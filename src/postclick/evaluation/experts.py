"""How a system with gates uses its experts on a split, and which of them have collapsed, in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from postclick.data.gates import GateTotals

__all__ = ["COLLAPSED_BELOW", "ExpertUse", "expert_use", "experts_form", "experts_from", "verdicts"]

COLLAPSED_BELOW = 0.1
"""An expert has collapsed for a task whose gate gives it less than this, times 1/K, in the mean over rows."""


@dataclass(frozen=True)
class ExpertUse:
    """What one task takes from its K experts; experts are counted from 0, in the order of the network's.

    Parameters
    ----------
    rows
        Rows it was measured on; each counts once.
    weight
        [K], mean weight of each expert; sums to 1.
    top
        [K], share of the rows on which it has the largest weight; sums to 1.
    entropy
        Mean over rows of H(g) / log K: 1 where every row weighs all experts alike, 0 where every row takes one alone
        (not always the same one). 1 for K = 1.
    """

    rows: int
    weight: tuple[float, ...]
    top: tuple[float, ...]
    entropy: float

    @property
    def even(self) -> float:
        """The weight of an expert whose gate tells none apart, 1/K."""
        return 1.0 / len(self.weight)

    @property
    def collapsed(self) -> tuple[int, ...]:
        """Experts that get less than `COLLAPSED_BELOW` / K of the weight."""
        return tuple(index for index, share in enumerate(self.weight) if share < COLLAPSED_BELOW * self.even)


def expert_use(totals: Mapping[str, GateTotals]) -> dict[str, ExpertUse]:
    """Return shares from sums, by task; tasks whose gate saw no row are left out."""
    return {task: _use(found) for task, found in totals.items() if found.rows}


def _use(found: GateTotals) -> ExpertUse:
    choices = math.log(len(found.weight))
    return ExpertUse(
        found.rows,
        tuple((found.weight / found.rows).tolist()),
        tuple((found.top / found.rows).tolist()),
        found.entropy / found.rows / choices if choices else 1.0,
    )


def verdicts(experts: Mapping[str, ExpertUse]) -> tuple[str, ...]:
    """Return one sentence an expert that has collapsed, one for a gate that has collapsed onto one expert."""
    return tuple(sentence for task, use in experts.items() for sentence in _sentences(task, use))


def _sentences(task: str, use: ExpertUse) -> Iterator[str]:
    count, collapsed = len(use.weight), use.collapsed
    if count > 1 and len(collapsed) == count - 1:
        (left,) = set(range(count)) - set(collapsed)
        yield f"the gate of task {task} has collapsed onto expert {left}: it gets {use.weight[left]:.1%} of the weight"
    for index in collapsed:
        yield (
            f"expert {index} of task {task} gets {use.weight[index]:.1%} of the weight, "
            f"where an even gate gives {use.even:.1%}: collapsed"
        )


def experts_form(experts: Mapping[str, ExpertUse]) -> dict[str, Any]:
    """Return the plain form, the key ``experts`` of ``evaluate --json``."""
    tasks = {
        task: {
            "rows": use.rows,
            "weight": list(use.weight),
            "top": list(use.top),
            "entropy": use.entropy,
            "collapsed": list(use.collapsed),
        }
        for task, use in experts.items()
    }
    return {"collapsed_below": COLLAPSED_BELOW, "tasks": tasks, "verdict": list(verdicts(experts))}


def experts_from(form: Mapping[str, Any]) -> dict[str, ExpertUse]:
    """Read the plain form."""
    return {
        task: ExpertUse(entry["rows"], tuple(entry["weight"]), tuple(entry["top"]), entry["entropy"])
        for task, entry in form.get("tasks", {}).items()
    }
