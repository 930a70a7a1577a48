"""The contract of a system: features in, three named probabilities out, a loss as named terms.

A published system is one file beside this one, read top to bottom, its loss inside. It is built from a `LogSpec` and
its own arguments; whatever it needs beyond one step a batch (phases, stages, epoch hooks, buffers) is a method here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from numpy.typing import NDArray
from torch import Tensor, nn

from postclick.errors import Finding
from postclick.losses.probability import LogProbability
from postclick.nn.features import Features

if TYPE_CHECKING:
    from postclick.data.log import LogSpec

__all__ = [
    "Batch",
    "Citation",
    "ConversionModel",
    "Delays",
    "HeadKind",
    "Losses",
    "NeighbourGraph",
    "Outputs",
    "Phase",
    "Pretraining",
    "Requirement",
]

HeadKind = Literal["head", "derived"]


@dataclass(frozen=True)
class Delays:
    """What is known of the times of B exposures whose conversions were still coming in, float32 [B] each.

    Parameters
    ----------
    elapsed
        Days from the click to the end of the observation; 0 where there is no click or a time is missing.
    delay
        Days from the click to the conversion; 0 where none has been seen.
    immature
        1 where the attribution window was still open, clicked or not: the conversion is not final.
    weight
        Sample weights of all rows, whatever their conversion; None is 1 for every row.
    """

    elapsed: Tensor
    delay: Tensor
    immature: Tensor
    weight: Tensor | None = None


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
        float32 [B] sample weights, 0 where the conversion is not final; None is 1 for every row.
    propensity
        float32 [B] logged propensities, or None.
    delays
        Times, of a log that says which conversions were still coming in; else None.
    """

    features: Features
    click: Tensor | None = None
    conversion: Tensor | None = None
    action: Tensor | None = None
    weight: Tensor | None = None
    propensity: Tensor | None = None
    delays: Delays | None = None

    def __len__(self) -> int:
        return len(self.features)

    @property
    def click_weight(self) -> Tensor | None:
        """Weights of terms that need no final conversion: of the click, and of a loss that models the delay."""
        return self.weight if self.delays is None else self.delays.weight

    def weight_of(self, term: str) -> Tensor | None:
        """Return the weights of a loss term: `click_weight` for ``ctr``, `weight` for any other."""
        return self.click_weight if term == "ctr" else self.weight


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
    raw
        Heads as the network gave them, before weights that depend on the label were undone; empty where none were.
    """

    ctr: LogProbability
    cvr: LogProbability
    ctcvr: LogProbability
    action: LogProbability | None = None
    ctar: LogProbability | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    raw: Mapping[str, LogProbability] = field(default_factory=dict)

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
class Pretraining:
    """A network trained before the system, on the same log: its artefact is that network's embedding table.

    Provided as ``{"table": float32 [R, E]}``: the fused table at its best validation loss, rows as in the log.

    Parameters
    ----------
    system
        Name in the catalogue, for instance ``"mlp"``.
    arguments
        Its arguments, ``{}`` for its defaults.
    training
        Training settings that differ from the run's own.
    """

    system: str
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    training: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        """``"pretraining"``."""
        return "pretraining"


@dataclass(frozen=True)
class NeighbourGraph:
    """A graph over the N users or items that the training rows hold, mined from pre-trained embeddings.

    Provided as ``entity`` int32 [N], the global row of each entity's id, ascending; ``features`` int32 [N, m], the
    global rows of its side's single-valued sparse features, the id first; and the normalised graph G (SYSTEMS eq. 5)
    in compressed rows: ``indptr`` int64 [N+1], ``indices`` int32, ``values`` float32. Indices count entities.

    Parameters
    ----------
    side
        Whose graph.
    pretraining
        The network whose table the entities' vectors are read from (eq. 2).
    neighbours
        K, the neighbours an entity keeps (eq. 4).
    include_self
        Whether an entity may be its own neighbour.
    symmetrise
        Whether a link counts in both directions before it is normalised.
    search
        How neighbours are found; ``"auto"`` goes by size.
    """

    side: Literal["user", "item"]
    pretraining: Pretraining
    neighbours: int = 8
    include_self: bool = False
    symmetrise: bool = False
    search: Literal["auto", "exact", "approximate"] = "auto"

    @property
    def name(self) -> str:
        """``"user-graph"`` or ``"item-graph"``."""
        return f"{self.side}-graph"


Requirement = Pretraining | NeighbourGraph


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

    @property
    def reads_propensity(self) -> bool:
        """Whether the loss reads the rows' logged propensities: systems keep the argument that says so by its name."""
        return getattr(self, "propensity", None) == "logged"

    @abstractmethod
    def forward(self, batch: Batch) -> Outputs:
        """Return the probabilities of a batch."""

    @abstractmethod
    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the terms whose sum is minimised; gradient stops are `detach()` in sight here."""

    def phases(self) -> tuple[Phase, ...]:
        """Return the optimiser steps of one batch; one over everything by default."""
        return (Phase("all", tuple(self.parameters())),)

    def requires(self) -> tuple[Requirement, ...]:
        """Return what must be prepared from the log before training; nothing by default.

        Asked of the built system, for its arguments decide; a trained one is loaded and scores without any of it.
        """
        return ()

    def provide(self, requirement: Requirement, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take in what `requirement` led to; called once for each, before training and again on resume.

        Runs before the system moves to its device and before a checkpoint is loaded over it, so buffers keep their
        shapes here: what depends on the artefact's size is held outside the state.

        Parameters
        ----------
        requirement
            One of `requires`.
        arrays
            Its arrays by name, read-only; copy what is to be changed.
        """

    def notes(self) -> tuple[Finding, ...]:
        """Return what the user should know of how the system was built; training passes it on."""
        return ()

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
