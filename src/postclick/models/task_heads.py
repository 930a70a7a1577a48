"""From the logits of a network to the outputs of a system: the two ways in which click and conversion come together.

A *product* system has a CTR and a CVR, and ctcvr = ctr cvr. A *pair* has a CTR and one second task, CTCVR on all
exposures or CVR on clicks; where it is CTCVR, the cvr is derived. No system lives here, and no loss but the pair's,
which OMoE, MMoE and PLE state in their own words and share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from postclick.data.log import LogSpec
from postclick.losses.entire_space import click_loss, clicked_conversion_loss, joint_loss
from postclick.losses.probability import LogProbability
from postclick.losses.reduce import mean_over_clicks, mean_over_exposures
from postclick.models.base import Batch, HeadKind, Losses, Outputs
from postclick.models.batching import batch_labels
from postclick.nn.experts import gate_use, gates_of
from postclick.nn.trunk import TaskLogits

__all__ = [
    "SecondTask",
    "pair_heads",
    "pair_losses",
    "pair_observed",
    "pair_outputs",
    "pair_rates",
    "product_outputs",
]

SecondTask = Literal["ctcvr", "cvr"]


def product_outputs(found: TaskLogits, extras: Mapping[str, Tensor] | None = None) -> Outputs:
    """Return ctr, cvr and their product, [B] each.

    Parameters
    ----------
    found
        Logits with the tasks ``ctr`` and ``cvr``.
    extras
        What the system's own loss needs besides; gates come along where the trunk has them.
    """
    ctr, cvr = (LogProbability.from_logit(found.logits[task]) for task in ("ctr", "cvr"))
    return Outputs(ctr, cvr, ctcvr=ctr * cvr, extras={**(extras or {}), **found.gate_extras()})


def pair_rates(spec: LogSpec, second: SecondTask) -> dict[str, float]:
    """Return the tasks of a pair and their base rates in the training log."""
    return {"ctr": spec.ctr, second: spec.ctcvr if second == "ctcvr" else spec.cvr}


def pair_heads(second: SecondTask) -> dict[str, HeadKind]:
    """Return what the heads of a pair are: cvr is derived where the second task is CTCVR."""
    return {"ctr": "head", "cvr": "derived" if second == "ctcvr" else "head", "ctcvr": "head"}


def pair_observed(second: SecondTask) -> tuple[tuple[str, str], ...]:
    """Return what the two terms of a pair's loss observe."""
    return (("ctr", "exposure"), ("ctcvr", "exposure") if second == "ctcvr" else ("cvr", "click"))


def pair_outputs(found: TaskLogits, second: SecondTask) -> Outputs:
    """Return ctr, cvr, ctcvr, [B] each: cvr = ctcvr / ctr, or ctcvr = ctr cvr."""
    if second == "cvr":
        return product_outputs(found)
    ctr, ctcvr = (LogProbability.from_logit(found.logits[task]) for task in ("ctr", "ctcvr"))
    return Outputs(ctr, cvr=ctcvr.quotient(ctr), ctcvr=ctcvr, extras=found.gate_extras())


def pair_losses(outputs: Outputs, batch: Batch, second: SecondTask) -> Losses:
    """Return ``ctr``, 1/|D| sum_D l(o, p), and ``ctcvr``, 1/|D| sum_D l(o r, s), or ``cvr``, 1/|O| sum_O l(r, q).

    Nothing is detached; diagnostics are the use of the gates.
    """
    click, conversion = batch_labels(batch)
    terms = {"ctr": mean_over_exposures(click_loss(outputs.ctr, click), batch.click_weight)}
    if second == "ctcvr":
        terms["ctcvr"] = mean_over_exposures(joint_loss(outputs.ctcvr, click, conversion), batch.weight)
    else:
        clicked = clicked_conversion_loss(outputs.cvr, click, conversion)
        terms["cvr"] = mean_over_clicks(clicked, click, batch.weight)
    return Losses(terms, gate_use(gates_of(outputs.extras), batch.weight))
