r"""Loss weighting: how the T terms L_k of a phase are joined into what moves the parameters.

    uncertainty   sum_k exp(-s_k) L_k + s_k    s_k learned                        Kendall, Gal and Cipolla, CVPR 2018
    gradnorm      sum_k w_k L_k                w_k learned from gradients' norms  Chen et al., ICML 2018
    pcgrad        sum_k L_k                    conflicts projected away           Yu et al., NeurIPS 2020

What is measured or projected is the gradient by theta: the *dense* parameters that the tasks share
(`ConversionModel.shared_parameters`, those of them that two terms at least reach) and that move in the phase. An
embedding table is never in it: its gradient has other rows at every step, so its norms and angles say who was in the
batch. A table keeps the gradient of the weighted sum, as do towers and heads. ``fixed``, the default, has no balancer:
the step sums the terms, which carry the system's own weights.

Shapes: T terms of the phase, P numbers in theta.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from postclick.errors import ConfigError, Finding
from postclick.models.base import ConversionModel
from postclick.training.config import TrainingConfig
from postclick.training.optimisers import PhaseOptimiser
from postclick.training.seeding import generator
from postclick.training.table_optimisers import AdamState

__all__ = ["Balancer", "GradNorm", "PCGrad", "Uncertainty", "balancers", "project_conflicts", "shared_gradients"]

_LEAST_WEIGHT = 1e-3
"""Where GradNorm's weights stop on their way down: one that reached zero would have no gradient left to return by."""


class Balancer(ABC):
    """Joins the terms of one phase. `backward`, then, if everything was finite, `step`; all state is tensors."""

    @abstractmethod
    def backward(self, terms: Mapping[str, Tensor], optimiser: PhaseOptimiser, step: int) -> Tensor:
        """Leave the gradients of the joined terms for `optimiser`; returns what is not finite where one is not."""

    @abstractmethod
    def step(self) -> None:
        """Move what is learned, by what the last `backward` found."""

    @abstractmethod
    def diagnostics(self) -> dict[str, Tensor]:
        """Return scalars to log of the last step."""

    def state(self) -> dict[str, Tensor]:
        """Return the state by name, for a checkpoint."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027 (nothing is learned by default)
        """Take over a state that `state` returned."""


class _Scalars:
    """One learned number a term, by name, each moved by Adam of its own; a term new to it joins at `start`.

    By name, since a system may add a term in a later epoch.
    """

    def __init__(self, start: float, rate: float, device: torch.device) -> None:
        self.start, self.rate, self.device = start, rate, device
        self.moments: dict[str, AdamState] = {}

    def of(self, names: Iterable[str]) -> Tensor:
        """Return the numbers of `names`, [T]."""
        return torch.stack([self._moments(name).parameters[0] for name in names])

    def move(self, names: Iterable[str], gradients: Tensor) -> None:
        """Take one step of Adam against `gradients` [T]."""
        for name, gradient in zip(names, gradients.unbind(), strict=True):
            self._moments(name).move([gradient])

    def put(self, names: Iterable[str], values: Tensor) -> None:
        """Set the numbers of `names`."""
        for name, value in zip(names, values.unbind(), strict=True):
            self._moments(name).parameters[0].copy_(value)

    def _moments(self, name: str) -> AdamState:
        if name not in self.moments:
            self.moments[name] = AdamState([torch.full((), self.start, device=self.device)], self.rate)
        return self.moments[name]

    def state(self) -> dict[str, Tensor]:
        """Return the state by name."""
        named: dict[str, Tensor] = {}
        for name, moments in self.moments.items():
            named[f"value.{name}"] = moments.parameters[0]
            named |= {f"{part.removeprefix('0.')}.{name}": tensor for part, tensor in moments.state().items()}
        return named

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state that `state` returned."""
        self.moments = {}
        for key, value in state.items():
            if key.startswith("value."):
                name = key.removeprefix("value.")
                moments = self._moments(name)
                moments.parameters[0].copy_(value)
                moments.load({f"0.{part}": state[f"{part}.{name}"] for part in ("first", "second", "step")})


def _weighted(terms: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Return sum_k w_k L_k; the weights are constants of the gradient."""
    return (torch.stack([*terms]) * weights.detach()).sum()


class Uncertainty(Balancer):
    r"""Each term by a learned precision: L = sum_k exp(-s_k) L_k + s_k.

    Kendall, Gal and Cipolla (CVPR 2018) scale the logits of a classification by 1/sigma^2 and bound its likelihood by
    L_k / sigma_k^2 + log sigma_k (their eq. 10). With s_k = 2 log sigma_k that is exp(-s_k) L_k + s_k / 2, and what is
    learned here is that with a whole s_k: at the minimum, dL/ds_k = 1 - exp(-s_k) L_k = 0, so w_k = exp(-s_k) = 1/L_k
    where the half gives 1/(2 L_k), one factor for all terms, to which Adam is blind. Every s_k starts at 0, the plain
    sum, and moves by Adam at the dense step size without L2. It needs no shared parameters: a weighted loss moves every
    parameter, tables too.

    Parameters
    ----------
    rate
        Step size of s.
    device
        Where the model is.
    """

    def __init__(self, rate: float, device: torch.device) -> None:
        self.scalars = _Scalars(0.0, rate, device)
        self._names: tuple[str, ...] = ()
        self._weights = self._gradients = torch.zeros(0, device=device)

    def backward(self, terms: Mapping[str, Tensor], optimiser: PhaseOptimiser, step: int) -> Tensor:  # noqa: ARG002
        """Leave the gradients of the weighted sum."""
        values = torch.stack([*terms.values()]).detach()
        self._names = tuple(terms)
        self._weights = torch.exp(-self.scalars.of(self._names))
        self._gradients = 1.0 - self._weights * values
        return optimiser.backward(_weighted([*terms.values()], self._weights)) + self._gradients.sum()

    @torch.no_grad()
    def step(self) -> None:
        """Move s by its gradient."""
        self.scalars.move(self._names, self._gradients)

    def diagnostics(self) -> dict[str, Tensor]:
        """Return the weights exp(-s_k)."""
        return _named_weights(self._names, self._weights)

    def state(self) -> dict[str, Tensor]:
        """Return s and its moments."""
        return self.scalars.state()

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over s and its moments."""
        self.scalars.load(state)


class GradNorm(Balancer):
    r"""Weights that bring the gradients of all terms to one rate of training (Chen et al., ICML 2018).

        G_k = |grad_theta w_k L_k|    Gbar = mean_k G_k    r_k = (L_k / L_k(0)) / mean_j (L_j / L_j(0))

        L_grad = sum_k | G_k - Gbar r_k^alpha |,    Gbar r_k^alpha held constant

    The model steps along grad sum_k w_k L_k, w constant. The weights, all 1 at the start, step against
    dL_grad/dw_k = sign(G_k - Gbar r_k^alpha) |grad_theta L_k| by an Adam of their own, are kept above 0 and scaled to
    sum to T again. alpha = 0 asks for equal norms; a larger one pulls harder at a term that lags behind.

    theta is all dense parameters that the tasks share, where the paper takes the last shared layer alone. L_k(0) is the
    term's first value that is not 0 (a first batch may have no click to learn a conversion from); until there is one
    the term counts as having trained at the mean rate. A negative L_k / L_k(0) counts as 0.

    Parameters
    ----------
    shared
        What holds theta.
    alpha
        The exponent.
    rate
        Step size of the weights.
    """

    def __init__(self, shared: Sequence[nn.Parameter], alpha: float, rate: float) -> None:
        self.shared, self.alpha = shared, alpha
        self.device = shared[0].device
        self.scalars = _Scalars(1.0, rate, self.device)
        self.starts: dict[str, Tensor] = {}
        self._names: tuple[str, ...] = ()
        self._weights = self._values = self._norms = torch.zeros(0, device=self.device)

    def backward(self, terms: Mapping[str, Tensor], optimiser: PhaseOptimiser, step: int) -> Tensor:  # noqa: ARG002
        """Leave the gradients of the weighted sum, and keep the norms of each term's."""
        self._names = tuple(terms)
        self._weights = self.scalars.of(self._names)
        self._values = torch.stack([*terms.values()]).detach()
        gradients, _ = shared_gradients([*terms.values()], self.shared)
        self._norms = gradients.square().sum(dim=1).sqrt()
        return optimiser.backward(_weighted([*terms.values()], self._weights)) + self._norms.sum()

    @torch.no_grad()
    def step(self) -> None:
        """Move the weights by the norms of the last `backward`."""
        starts = self._first_values()
        ratios = torch.where(starts != 0, (self._values / starts).clamp(min=0.0), torch.nan)
        ratios = torch.where(ratios.isnan(), ratios.nanmean(), ratios).nan_to_num(1.0)
        norms = self._weights * self._norms
        rates = ratios / ratios.mean().clamp(min=torch.finfo(ratios.dtype).tiny)
        target = norms.mean() * rates**self.alpha
        self.scalars.move(self._names, torch.sign(norms - target) * self._norms)
        moved = self.scalars.of(self._names).clamp(min=_LEAST_WEIGHT)
        self.scalars.put(self._names, moved * (len(moved) / moved.sum()))

    def _first_values(self) -> Tensor:
        for name, value in zip(self._names, self._values.unbind(), strict=True):
            start = self.starts.setdefault(name, torch.zeros((), device=self.device))
            start.copy_(torch.where(start == 0, value, start))
        return torch.stack([self.starts[name] for name in self._names])

    def diagnostics(self) -> dict[str, Tensor]:
        """Return the weights, and G_k."""
        norms = dict(zip(self._names, (self._weights * self._norms).unbind(), strict=True))
        return {
            **_named_weights(self._names, self._weights),
            **{f"gradient_norm/{name}": value for name, value in norms.items()},
        }

    def state(self) -> dict[str, Tensor]:
        """Return weights, their moments, and the first losses."""
        return {**self.scalars.state(), **{f"start.{name}": start for name, start in self.starts.items()}}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over weights, their moments, and the first losses."""
        self.scalars.load(state)
        self.starts = {
            key.removeprefix("start."): value.to(self.device, copy=True)
            for key, value in state.items()
            if key.startswith("start.")
        }


class PCGrad(Balancer):
    r"""Gradients without their conflicts: Yu et al., Gradient Surgery, NeurIPS 2020, Algorithm 1.

    For each term i, start from g_i = grad_theta L_i and go through the other terms j in random order:

        where g_i^PC . g_j < 0:    g_i^PC <- g_i^PC - (g_i^PC . g_j) / |g_j|^2  g_j

    g_j is the unprojected gradient. theta moves along sum_i g_i^PC, everything else along the gradient of sum_k L_k.
    Only what the projection changes is added, sum_i (g_i^PC - g_i): without a conflict the step is that of ``fixed``,
    bit for bit. The order is drawn from (seed, step), so nothing is left to keep for a resumed training.

    Parameters
    ----------
    shared
        What holds theta.
    seed
        Of the training.
    phase
        Which phase this is, so that two phases draw different orders.
    """

    def __init__(self, shared: Sequence[nn.Parameter], seed: int, phase: int) -> None:
        self.shared, self.seed, self.phase = shared, seed, phase
        self._conflicts = torch.zeros((), device=shared[0].device)

    def backward(self, terms: Mapping[str, Tensor], optimiser: PhaseOptimiser, step: int) -> Tensor:
        """Leave the gradients of the plain sum, those by theta with the conflicts projected away."""
        gradients, theta = shared_gradients([*terms.values()], self.shared)  # [T, P]
        norm = optimiser.backward(torch.stack([*terms.values()]).sum())
        random = generator(self.seed, "pcgrad", step, self.phase)
        orders = [random.permutation(len(gradients)).tolist() for _ in range(len(gradients))]
        gram = gradients.double() @ gradients.double().t()
        factors, self._conflicts = project_conflicts(gram, orders)
        change = factors.sum(dim=0).to(gradients.dtype) @ gradients  # [P]
        pieces = torch.split(change, [parameter.numel() for parameter in theta])
        for parameter, piece in zip(theta, pieces, strict=True):
            if parameter.grad is not None:
                parameter.grad += piece.view_as(parameter)
        changed: Tensor = torch.linalg.vector_norm(change)
        return norm + changed

    def step(self) -> None:
        """Nothing is learned."""

    def diagnostics(self) -> dict[str, Tensor]:
        """Return the share of the pairs of terms that conflict."""
        return {"conflicts": self._conflicts}


@torch.no_grad()
def project_conflicts(gram: Tensor, orders: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Project T gradients as `PCGrad` says, knowing only their products: every g_i^PC is a sum of the g_j.

    Parameters
    ----------
    gram
        [T, T], g_i . g_j.
    orders
        For each i, the order in which it meets the others; i itself in it is passed over.

    Returns
    -------
    tuple
        Factors C [T, T] with g_i^PC = g_i + sum_j C_ij g_j, exactly 0 without a conflict, and the share of the pairs
        whose product is negative.
    """
    count = len(gram)
    factors = torch.zeros_like(gram)
    # a gradient that is 0 conflicts with nothing; its square must not divide 0
    squares = gram.diagonal().clamp(min=torch.finfo(gram.dtype).tiny)
    for i, order in enumerate(orders):
        for j in order:
            if j != i:
                product = gram[i, j] + factors[i] @ gram[:, j]
                factors[i, j] -= product.clamp(max=0.0) / squares[j]
    conflicts: Tensor = (gram < 0).sum() / max(count * (count - 1), 1)
    return factors, conflicts


def shared_gradients(terms: Sequence[Tensor], shared: Sequence[nn.Parameter]) -> tuple[Tensor, list[nn.Parameter]]:
    """Return grad_theta L_k of each term, [T, P], and theta: those of `shared` that two terms at least depend on.

    A trunk's parameters hold the gate or the experts of one task too; they are in nobody's way. 0 where a term does not
    depend on a parameter. The graph is kept.
    """
    none = (None,) * len(shared)
    found = [
        torch.autograd.grad(term, shared, retain_graph=True, allow_unused=True) if term.requires_grad else none
        for term in terms
    ]
    columns = list(zip(shared, zip(*found, strict=True), strict=True))
    reached = [(each, column) for each, column in columns if sum(part is not None for part in column) > 1]
    parts = [
        torch.stack([torch.zeros_like(each) if part is None else part for part in column]).flatten(1)
        for each, column in reached
    ]
    joined = torch.cat(parts, dim=1) if parts else shared[0].new_zeros(len(found), 0)
    return joined, [each for each, _ in reached]


def _named_weights(names: Iterable[str], weights: Tensor) -> dict[str, Tensor]:
    return {f"weight/{name}": weight for name, weight in zip(names, weights.unbind(), strict=True)}


def balancers(
    model: ConversionModel, optimisers: Sequence[PhaseOptimiser], config: TrainingConfig, seed: int
) -> list[Balancer | None]:
    """Return one balancer a phase; None where the terms are summed: ``fixed``, and a phase without theta.

    Raises
    ------
    ConfigError
        ``config.combination``: the system has no dense parameters that its tasks share, for what needs them.
    """
    if config.balance == "fixed":
        return [None] * len(optimisers)
    if config.balance == "uncertainty":
        device = next(model.parameters()).device
        return [Uncertainty(config.learning_rate, device) for _ in optimisers]
    wanted = {id(parameter) for parameter in model.shared_parameters()}
    # `dense` holds what moves in the phase and is no table
    shared = [[each for each in optimiser.dense if id(each) in wanted] for optimiser in optimisers]
    if not any(shared):
        what = f"{config.balance} compares gradients by dense parameters that the tasks share, and this system has none"
        fix = "give it a trunk with shared dense parameters (mmoe, ple), or set training.balance=fixed or =uncertainty"
        raise ConfigError(Finding("config.combination", what, "training.balance", fix=fix))
    return [_gradient_balancer(theta, config, seed, phase) if theta else None for phase, theta in enumerate(shared)]


def _gradient_balancer(theta: list[nn.Parameter], config: TrainingConfig, seed: int, phase: int) -> Balancer:
    if config.balance == "gradnorm":
        return GradNorm(theta, config.gradnorm_alpha, config.gradnorm_learning_rate)
    return PCGrad(theta, seed, phase)
