"""The contract of a system: features in, three named probabilities out, a loss as named terms.

A published system is one file beside this one, read top to bottom, its loss inside. It is built from a `LogSpec` and
its own arguments; whatever it needs beyond one step a batch (phases, stages, epoch hooks, buffers) is a method here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor, nn

from postclick.losses.probability import LogProbability
from postclick.nn.features import Features

if TYPE_CHECKING:
    from postclick.data.log import LogSpec

__all__ = ["Batch", "Citation", "ConversionModel", "HeadKind", "Losses", "Outputs", "Phase"]

HeadKind = Literal["head", "derived"]


@dataclass(frozen=True)
class Batch:
    """B exposures as tensors.

    Parameters
    ----------
    features
        Encoded features.
    click, conversion, action
        float32 [B], 0 or 1; `conversion` is 1 only where `click` is 1; None where unknown (scoring) or absent.
    weight
        float32 [B] sample weights; None is 1 for every row.
    propensity
        float32 [B] logged propensities, or None.
    """

    features: Features
    click: Tensor | None = None
    conversion: Tensor | None = None
    action: Tensor | None = None
    weight: Tensor | None = None
    propensity: Tensor | None = None

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class Outputs:
    """Named probabilities of B exposures; never a list read by position.

    Parameters
    ----------
    ctr, cvr, ctcvr
        P(click | x), P(conversion | click, x), P(click and conversion | x).
    action, ctar
        P(action | click, x) and P(click and action | x), where the system has them.
    extras
        What a system's own loss needs besides, by name.
    """

    ctr: LogProbability
    cvr: LogProbability
    ctcvr: LogProbability
    action: LogProbability | None = None
    ctar: LogProbability | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def heads(self) -> dict[str, LogProbability]:
        """Return the heads present, by name."""
        pairs = (
            ("ctr", self.ctr),
            ("cvr", self.cvr),
            ("ctcvr", self.ctcvr),
            ("action", self.action),
            ("ctar", self.ctar),
        )
        return {name: head for name, head in pairs if head is not None}


@dataclass(frozen=True)
class Losses:
    """Named terms, summed and logged, and diagnostics, only logged; scalars each."""

    terms: Mapping[str, Tensor]
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Phase:
    """One optimiser step of a batch: which parameters move, on which terms (empty: all)."""

    name: str
    parameters: tuple[nn.Parameter, ...]
    terms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Citation:
    """Where a system comes from."""

    title: str
    authors: str
    venue: str
    year: int
    link: str


class ConversionModel(nn.Module, ABC):
    """A system: sets `citation`, is built by ``__init__(self, spec, *, ...)``, defines `forward` and `loss`."""

    citation: ClassVar[Citation]

    def __init__(self, spec: LogSpec) -> None:
        super().__init__()
        self.spec = spec

    @property
    @abstractmethod
    def heads(self) -> dict[str, HeadKind]:
        """Which of ctr, cvr, ctcvr (action, ctar) have an output of their own, and which are derived."""

    @property
    @abstractmethod
    def observed(self) -> tuple[tuple[str, str], ...]:
        """(head, population) pairs whose log-loss early stopping sums, for instance ``("cvr", "click")``."""

    @property
    def negatives_everywhere(self) -> bool:
        """Whether unclicked rows are negatives of the CVR, so that it is learned even where every click converts."""
        return False

    @abstractmethod
    def forward(self, batch: Batch) -> Outputs:
        """Return the probabilities of a batch."""

    @abstractmethod
    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the terms whose sum is minimised; gradient stops are `detach()` in sight here."""

    def phases(self) -> tuple[Phase, ...]:
        """Return the optimiser steps of one batch; one over everything by default."""
        return (Phase("all", tuple(self.parameters())),)

    def on_epoch_start(self, epoch: int) -> None:
        """Run before the first batch of `epoch` (counted from 0); state lives in registered buffers."""

    def tables(self) -> Iterator[nn.Parameter]:
        """Yield the embedding tables: parameters whose gradient is sparse by rows."""
        for module in self.modules():
            if getattr(module, "is_table", False):
                yield from module.parameters(recurse=False)

    def regularised_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the dense parameters that L2 falls on together with the table rows of a batch; those of mf's heads."""
        found = (module for module in self.modules() if getattr(module, "is_regularised", False))
        return tuple(parameter for module in found for parameter in module.parameters(recurse=False))

    def shared_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the dense parameters that several heads share, for gradient balancing; none by default."""
        return ()
