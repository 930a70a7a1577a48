"""What systems that weigh clicks have in common: propensities, weights within bounds, doubly robust rows, phases.

A propensity is P(click | x), the inverse of which weighs a clicked row. Where it comes from is named:

    ctr        the system's own CTR head
    logged     the log's propensity column
    constant   the training log's CTR on every row: the weighted mean is then the mean over clicks
    one        1 on every row: no weight at all; with a constant imputation of 0 unclicked rows are negatives
    heuristic  sqrt(CTR head * training log's CTR), half way between `ctr` and `constant` in the logarithm: the square
               root by which propensities made of popularity are damped (Saito et al., WSDM 2020)

A pre-trained system serves by its CTR: `logged` reads it where ``training.propensity_bundle`` names its RUN or BUNDLE.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from postclick.binding import Argument
from postclick.data.log import LogSpec
from postclick.errors import DataError, Finding
from postclick.losses.doubly_robust import (
    doubly_robust_risk,
    effective_target,
    imputation_loss,
    imputed_error,
    label_error,
    share_outside,
    targeted_label,
)
from postclick.losses.probability import LogProbability, log1mexp
from postclick.losses.propensity import (
    RELATIVE_FLOOR,
    absolute_floor,
    inverse_propensity_weights,
    self_normalised,
    weight_diagnostics,
)
from postclick.models.base import Batch, Outputs, Phase
from postclick.nn.trunk import TaskNetwork

__all__ = [
    "IMPUTATION",
    "ClickWeights",
    "ImputationName",
    "ImputedRisk",
    "PropensityName",
    "RobustRisk",
    "RobustRows",
    "UpdateName",
    "WeightedRisk",
    "alternating_phases",
    "check_propensity",
    "imputation_rate",
    "propensities",
    "robust_rows",
]

PropensityName = Literal["ctr", "logged", "constant", "one", "heuristic"]
ImputationName = Literal["label", "error", "constant"]
UpdateName = Literal["joint", "alternating"]

IMPUTATION = "imputation"
"""Name of the task, of its term, and of its logit among the extras."""


@dataclass(frozen=True)
class WeightedRisk:
    """How clicked rows are weighted: w = o min(1 / max(p, floor), cap), divided by its mean where self-normalised.

    Parameters
    ----------
    propensity_floor
        Times the training log's CTR (SYSTEMS, Decision 4); 0 turns it off.
    cap
        Largest weight; None is 1 over the floor.
    self_normalise
        Weights of a batch sum to its rows (SNIPS).
    detach_propensity
        False lets the weighted loss move the CTR head, which lowers it by raising p on clicks: there to be seen.

    Raises
    ------
    ValueError
        On a negative floor or a cap under 1.
    """

    propensity_floor: Annotated[float, Argument("least propensity, times the log's CTR; 0: off", low=0.0, high=1.0)] = (
        RELATIVE_FLOOR
    )
    cap: Annotated[float | None, Argument("largest weight; off: 1 over the floor")] = None
    self_normalise: Annotated[bool, Argument("weights of a batch sum to its rows (SNIPS)")] = False
    detach_propensity: Annotated[bool, Argument("the weighted loss leaves the CTR head alone")] = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.propensity_floor < math.inf or (self.cap is not None and not self.cap >= 1.0):
            got = f"got {self.propensity_floor} and {self.cap}"
            raise ValueError(f"expected a propensity_floor of at least 0 and a cap of at least 1, {got}")

    def weights(
        self, click: Tensor, propensity: LogProbability | Tensor, base_ctr: float, batch: Batch
    ) -> ClickWeights:
        """Return the weights of a batch; nothing is detached here.

        Parameters
        ----------
        click
            o, [B].
        propensity
            p, [B], from `propensities`.
        base_ctr
            ``spec.ctr``.
        batch
            Its sample weights count in the mean that self-normalisation divides by.
        """
        floor = absolute_floor(base_ctr, self.propensity_floor)
        clipped = inverse_propensity_weights(click, propensity, floor=floor, cap=self.cap)
        rows = self_normalised(clipped, batch.weight) if self.self_normalise else clipped
        watched = weight_diagnostics(click, propensity, floor=floor, cap=self.cap, sample_weight=batch.weight)
        return ClickWeights(rows, clipped, watched)


@dataclass(frozen=True)
class RobustRisk(WeightedRisk):
    """As `WeightedRisk`, with the guard of label imputation.

    Parameters
    ----------
    reach
        How far the CVR's logit may go from the imputed label's before the residual of a clicked row stops pulling it
        further; None is without end. Within reach the risk has the doubly robust gradient; beyond it only the imputed
        label pulls, back. Without it a clicked row of w > 1 pulls for ever, as no q fits a target outside [0, 1], and a
        table that can memorise rows follows.
    targeted
        In place of each row's residual, one shift a batch of all imputed labels until the weighted residuals on its
        clicks sum to 0: bounded, but clicks then speak through the imputation alone.

    Raises
    ------
    ValueError
        On a reach that is not positive.
    """

    reach: Annotated[float | None, Argument("log-odds from the imputed label at which residuals stop; off: none")] = 3.0
    targeted: Annotated[bool, Argument("one shift of all imputed labels a batch in place of residuals")] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reach is not None and not self.reach > 0.0:
            raise ValueError(f"reach is above 0, or off, got {self.reach}")


@dataclass(frozen=True)
class ImputedRisk(RobustRisk):
    """As `RobustRisk`, for systems whose imputation is one task of a network, or a constant.

    Parameters
    ----------
    imputation_weight
        Weight of the imputation's loss. It moves a tower of its own, so it matters to what is shared.
    constant_label
        The label of ``imputation="constant"``; None is the training log's CVR.
    updates
        ``alternating`` moves the imputation's own parameters first, then all others: two steps a batch.

    Raises
    ------
    ValueError
        On a constant label outside [0, 1].
    """

    imputation_weight: Annotated[float, Argument("weight of the imputation's loss", low=0.0)] = 1.0
    constant_label: Annotated[float | None, Argument("label of the constant imputation; off: the log's CVR")] = None
    updates: Annotated[UpdateName, Argument("one step a batch, or the imputation's own step before the others")] = (
        "joint"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.constant_label is not None and not 0.0 <= self.constant_label <= 1.0:
            raise ValueError(f"constant_label lies in [0, 1], got {self.constant_label}")

    def check(self, imputation: ImputationName) -> None:
        """Refuse updates that have nothing to alternate with.

        Raises
        ------
        ValueError
            On alternating updates of a constant.
        """
        if imputation == "constant" and self.updates == "alternating":
            raise ValueError("a constant imputation has no tower: risk.updates = 'alternating' needs label or error")

    def constant_rate(self, propensity: PropensityName, spec: LogSpec) -> float:
        """Return the mean that a CVR fits under a constant imputed label c: its head starts there.

        c + s (CVR - c), with s = 1 where clicks are weighted to stand for all exposures and s = CTR where they are not.
        Where every click converts, and nothing is known of how rare clicks are, the rate over exposures.
        """
        label = spec.cvr if self.constant_label is None else self.constant_label
        rate = label + (spec.ctr if propensity == "one" else 1.0) * (spec.cvr - label)
        return rate if rate < 1.0 else spec.ctcvr

    def imputed(self, name: ImputationName, outputs: Outputs, base_cvr: float) -> tuple[ImputationName, Tensor]:
        """Return what `robust_rows` takes: the imputation's logits, or the constant label, [B]."""
        if name != "constant":
            return name, outputs.extras[IMPUTATION]
        label = base_cvr if self.constant_label is None else self.constant_label
        return name, torch.full_like(outputs.cvr.log_p, label)


@dataclass(frozen=True)
class ClickWeights:
    """Weights of a batch, [B] each, 0 on unclicked rows: as the risk takes them, and before self-normalisation."""

    rows: Tensor
    clipped: Tensor
    diagnostics: dict[str, Tensor]


@dataclass(frozen=True)
class RobustRows:
    """What a doubly robust loss is made of, before the mean: the risk [B], the imputation's loss [B] or None."""

    risk: Tensor
    imputation: Tensor | None
    diagnostics: dict[str, Tensor] = field(default_factory=dict)


def check_propensity(name: PropensityName, spec: LogSpec) -> None:
    """Refuse a propensity that the log does not have.

    Raises
    ------
    ValueError
        Where ``logged`` meets a schema without the column.
    """
    if name == "logged" and spec.schema.columns.propensity is None and not spec.given_propensity:
        how = "name its column in the schema (propensity = ...) and prepare the log again, give a trained bundle"
        how += " (training.propensity_bundle = PATH), or take propensity = 'ctr'"
        raise ValueError(f"propensity = 'logged' needs the log's propensities, which it does not have: {how}")


def propensities(name: PropensityName, ctr: LogProbability, batch: Batch, base_ctr: float) -> LogProbability | Tensor:
    """Return p, [B], by the name of its source; see the module's docstring.

    Parameters
    ----------
    name
        Source.
    ctr
        The CTR head, detached by the caller unless the weighted loss is to move it.
    batch
        Holds the logged propensities.
    base_ctr
        ``spec.ctr``.

    Raises
    ------
    DataError
        ``data.label_missing``: ``logged``, and the batch has none.
    """
    if name == "ctr":
        return ctr
    if name == "heuristic":
        # below log(1 - 1e-6): the logarithm of the complement stays finite
        log_p = torch.clamp(0.5 * (ctr.log_p + math.log(max(base_ctr, 1e-30))), max=-1e-6)
        return LogProbability(log_p, log1mexp(log_p))
    if name == "logged":
        if batch.propensity is None:
            fix = "name the column in the schema (propensity = ...) and prepare the log again"
            raise DataError(Finding("data.label_missing", "a loss needs logged propensities", fix=fix))
        return batch.propensity.to(ctr.log_p.dtype)
    return torch.full_like(ctr.log_p, 1.0 if name == "one" else base_ctr)


def imputation_rate(name: ImputationName, cvr: float) -> float:
    """Return the rate at whose log-odds the imputation's head starts.

    A label starts at the base CVR. An error e^ = softplus(b) starts at the entropy H of the base CVR, the error of a
    CVR head that has learned nothing else: b = log(exp(H) - 1), the log-odds of 1 - exp(-H).
    """
    if name != "error" or not 0.0 < cvr < 1.0:
        return cvr
    entropy = -(cvr * math.log(cvr) + (1.0 - cvr) * math.log1p(-cvr))
    return -math.expm1(-entropy)


def robust_rows(
    imputed: tuple[ImputationName, Tensor],
    cvr: LogProbability,
    click: Tensor,
    conversion: Tensor,
    weights: Tensor,
    *,
    guard: RobustRisk,
    sample_weight: Tensor | None,
    fitted_by: Tensor | None = None,
) -> RobustRows:
    r"""Return the doubly robust risk of the CVR and the loss of its imputation, a row at a time.

    Two sides, each learning with the other held still:

        risk        e^ + w (e - e^)     e = l(r, q)    e^ = sg[softplus(z)] or l(sg[r~], q)       moves q alone
        imputation  f (sg[e] - e^)^2    e^ = softplus(z) or l(r~, sg[q]), r~ = sigmoid(z)         moves z alone

    With an imputed *error* the risk has the gradient of the IPS risk on q; with an imputed *label* unclicked rows reach
    q, and e - e^ = -(r - r~) logit(q), where the guard holds the logit within reach of z. Targeted, the risk is
    l(r*, q) with r* the shifted label (`losses.doubly_robust.targeted_label`).

    Parameters
    ----------
    imputed
        ``label`` or ``error`` with the imputation's logits z, [B]; ``constant`` with its labels, [B].
    cvr
        q.
    click, conversion
        o and r, [B]; r does not count where o = 0.
    weights
        w, [B].
    guard
        Of label imputation.
    sample_weight
        [B] or None.
    fitted_by
        f, [B]; w where None.
    """
    kind, given = imputed
    error = cvr.cross_entropy(conversion)
    fit = weights if fitted_by is None else fitted_by
    if kind == "error":
        learned = imputation_loss(error.detach(), imputed_error(given), fit.detach())
        return RobustRows(doubly_robust_risk(error, imputed_error(given).detach(), weights), learned)
    label = given if kind == "constant" else torch.sigmoid(given)
    fixed = label.detach()
    outside = share_outside(effective_target(conversion, fixed, weights.detach()), click)
    if kind == "constant":
        risk = doubly_robust_risk(error, label_error(cvr, fixed), weights)
    elif guard.targeted:
        odds = LogProbability.from_logit(given.detach())
        risk = label_error(cvr, targeted_label(odds, conversion, weights, sample_weight=sample_weight))
    else:
        # l(r, q) - l(r~, q) = -(r - r~) logit(q): linear in the logit, which is what the guard holds
        pulled = cvr.log_p - cvr.log_not_p
        if guard.reach is not None:
            pulled = torch.clamp(pulled, given.detach() - guard.reach, given.detach() + guard.reach)
        risk = label_error(cvr, fixed) - weights * (conversion - fixed) * pulled
    learned = imputation_loss(error.detach(), label_error(cvr.detach(), label), fit.detach())
    return RobustRows(risk, None if kind == "constant" else learned, {"share_outside": outside})


def alternating_phases(
    network: TaskNetwork, parameters: Iterable[nn.Parameter], prediction: tuple[str, ...]
) -> tuple[Phase, ...]:
    """Return two steps a batch: the imputation's own parameters on its loss, then all others on the other terms.

    No parameter is in both, so none has two optimisers. What the tasks share moves with the prediction.

    Parameters
    ----------
    network
        Has the task ``imputation``.
    parameters
        Of the system.
    prediction
        Names of the other terms.
    """
    own = network.own_parameters(IMPUTATION)
    held = {id(parameter) for parameter in own}
    others = tuple(parameter for parameter in parameters if id(parameter) not in held)
    return Phase(IMPUTATION, own, (IMPUTATION,)), Phase("prediction", others, prediction)
