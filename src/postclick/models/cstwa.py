"""CSTWA: the conversion learns on a table of its own, takes over structure from clicks, and weighs contradictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from postclick.binding import Argument, plain
from postclick.data.entities import EntitySide, entity_features
from postclick.data.log import LogSpec
from postclick.errors import Finding, TrainingError
from postclick.losses.constraints import expectation_calibrator
from postclick.losses.entire_space import click_loss, joint_loss
from postclick.losses.probability import LogProbability
from postclick.losses.reduce import mean_over_exposures
from postclick.losses.reweight import (
    LabelWeights,
    WeightForm,
    contradiction_weights,
    reweighted_shares,
    undo_weights,
)
from postclick.models.base import (
    Batch,
    Citation,
    ConversionModel,
    HeadKind,
    Losses,
    NeighbourGraph,
    Outputs,
    Pretraining,
    Requirement,
)
from postclick.models.batching import batch_labels
from postclick.nn.embedding import FeatureEncoder
from postclick.nn.entities import EntityGraph, EntityIds, EntityShift, EntityTable, EntityVectors
from postclick.nn.features import Features
from postclick.nn.initialise import initialise_linear
from postclick.nn.tower import Head, Perceptron, Tower
from postclick.nn.window import QuantileWindow

__all__ = ["CSTWA", "ClickPerceptron", "Escaper", "Migrator", "Reading"]

Reading: TypeAlias = Literal["E", "B", "D"]
_SIDES: tuple[EntitySide, ...] = ("user", "item")
_GIB = 1 << 30


@dataclass(frozen=True)
class Migrator:
    """The Structure Migrator (eq. 2 to 5, 8 to 11).

    Parameters
    ----------
    gamma
        Share of the neighbours' mean in (10), in [0, 1].
    layers
        L of (9).
    neighbours, include_self, symmetrise, search
        Of the graph (eq. 4, 5): K, whether an entity may be its own neighbour, whether links count both ways, and how
        neighbours are found.
    reading
        What E_U of (10) is: see `CSTWA`.
    memory
        GiB that readings E and B may take for their vectors; beyond, reading D serves, with a note.

    Raises
    ------
    ValueError
        On a number out of range.
    """

    gamma: Annotated[float, Argument("share of the neighbours in a migration", low=0.1, high=0.9)] = 0.3
    layers: Annotated[int, Argument("steps along the graph a migration", low=1, high=3)] = 1
    neighbours: Annotated[int, Argument("neighbours an entity keeps", low=4, high=32)] = 8
    include_self: Annotated[bool, Argument("an entity may be its own neighbour")] = False
    symmetrise: Annotated[bool, Argument("a link counts in both directions")] = False
    search: Annotated[Literal["auto", "exact", "approximate"], Argument("how neighbours are found")] = "auto"
    reading: Annotated[
        Reading, Argument("E: shared vectors and a shift an entity; B: a table row an entity; D: the id alone")
    ] = "E"
    memory: Annotated[float, Argument("GiB for the vectors of readings E and B; beyond, reading D")] = 4.0

    def __post_init__(self) -> None:
        if not (0.0 <= self.gamma <= 1.0 and self.layers >= 1 and self.neighbours >= 1 and self.memory >= 0.0):
            got = f"{self.gamma}, {self.layers}, {self.neighbours} and {self.memory}"
            raise ValueError(f"gamma lies in [0, 1], layers and neighbours from 1, memory from 0; got {got}")


@dataclass(frozen=True)
class ClickPerceptron:
    """The Click Perceptron (eq. 13, 14): one layer from the click tower to a gate on each input of the other one.

    Parameters
    ----------
    detach
        Keeps the conversion loss from the click tower.
    """

    detach: Annotated[bool, Argument("the conversion loss stays out of the click tower")] = False


@dataclass(frozen=True)
class Escaper:
    """The Curse Escaper (eq. 18); forms and their equations stand in `postclick.losses.reweight`.

    Parameters
    ----------
    form, epsilon, cap
        The weight of a row whose outcome contradicts its predicted CTR.
    high, low
        Quantiles of the last `window` predictions beyond which a CTR is high or low.
    window
        Predictions; until so many have come no row is weighted.
    undo_weights
        Scores have the weights divided out of their odds.

    Raises
    ------
    ValueError
        On a number out of range.
    """

    form: Annotated[WeightForm, Argument("how a weight grows with the CTR over its threshold")] = "power"
    epsilon: Annotated[float, Argument("strength of the weights", low=0.0, high=5.0)] = 3.0
    cap: Annotated[float, Argument("largest weight", low=2.0, high=10.0)] = 4.0
    high: Annotated[float, Argument("quantile above which a CTR is high", low=0.9, high=0.999)] = 0.99
    low: Annotated[float, Argument("quantile below which a CTR is low", low=0.01, high=0.5)] = 0.10
    window: Annotated[int, Argument("predictions that the quantiles are taken over")] = 10_000
    undo_weights: Annotated[bool, Argument("divide the weights out of the odds of scores", paper=False)] = True

    def __post_init__(self) -> None:
        strong = self.epsilon > 0.0 if self.form == "jump" else self.epsilon >= 0.0  # a weight of 0 cannot be undone
        if not (strong and self.epsilon < float("inf") and 1.0 <= self.cap < float("inf")):
            raise ValueError(f"epsilon is at least 0 (jump: above), cap at least 1, got {self.epsilon} and {self.cap}")
        if not (0.0 < self.low < self.high < 1.0 and self.window >= 2):
            got = f"{self.low}, {self.high} and {self.window}"
            raise ValueError(f"low < high lie in (0, 1) and a window holds 2 or more, got {got}")


class CSTWA(ConversionModel):
    r"""Click-aware Structure Transfer with sample Weight Assignment (CSTWA).

    Two towers on two tables. The conversion tower takes over from clicks which users and items are alike, and what
    kind of exposure the click tower sees; exposures whose outcome contradicts the predicted click weigh more.

        G = D^-1/2 S D^-1/2, S the K largest cosines of a pre-trained CTR network's vectors         (2)-(5), stages
        e = vectors of the fields from the CVR table, and E_u, E_i of the row's user and item       (6), (11)
        E_u = c_u + d_u;  as an epoch but the first begins:  E_u <- (1 - gamma) E_u + gamma G^L E_u (8)-(10), migrator
        h = click tower(v_ctr)      g = 2 sigmoid(W h + b)      x = e * g                          (12)-(14), perceptron
        p = sigmoid(a . h) is P(click | x)      s = sigmoid(c . conversion tower(x)) is P(click and conversion | x)

        L = 1/|D| sum_D [ l(o, p) + w l(o r, s) ] + calibrator * 1/|D| sum_D max(s - p, 0)          (17)-(20)
        w = min(cap, (p / h1)^epsilon) where p > h1 and o r = 0, min(cap, (h2 / p)^epsilon) where p < h2 and o r = 1,
            else 1; h1, h2: 99th and 10th percentile of the last 10,000 p                           (18), escaper

    l is the cross-entropy, v_ctr the vectors of the fields from the CTR table; sample weights turn 1/\|D\| sum into
    sum w l / sum w. The p in w is detached, and joins the 10,000 after its batch; the gate is not detached by default.

    What it estimates
        The published CVR head is trained on every exposure with unclicked rows as 0: it is `ctcvr`. Weights that depend
        on the label move its optimum to odds(P) w1 / w0; scores divide that out (`undo_weights`), the score without it
        is `score=raw`. Undone, it is consistent for P(click and conversion | x) in a class that holds the true surface,
        up to thresholds that moved while training; raw, it is a score to rank by: too low where the CTR is high, too
        high where it is low. `cvr` = ctcvr / ctr is a quotient, clipped below 1, flagged ``derived``.

    Departures
        The formulas of the text are lost; docs/decisions/0027 has the readings. E_u (10): a feature such as gender is
        shared by many users, so their mixed vectors cannot all be written into one table. Reading E keeps the trained,
        shared table c and adds d_u, which no gradient moves: 0 in the first epoch, then
        d <- (1 - gamma)(c + d) + gamma G^L (c + d) - c. B gives every entity trained vectors of its own, starting from
        c. D mixes the id's row in the table and leaves the other features alone. Users and items without a neighbour,
        and ids not in the training rows, stay as they are. Sequences, numbers and vectors are no part of an entity. A
        log that names a user or an item alone migrates that side.
        Embedding size 8 for the paper's 5. Adam's moments are left as they are when B and D move rows.

    Parameters
    ----------
    spec
        What is known of the log.
    embedding_size
        E, the width of a row of either table.
    tower
        Hidden layers of each tower.
    migrator, perceptron, escaper
        The three components; None leaves one out.
    calibrator
        Weight of the last term; None or 0 leaves it out.
    pretrained
        ``pretrained``: the CTR table starts as the pre-trained network's. The text does not say.

    References
    ----------
    Ouyang et al., ECML-PKDD 2023.
    """

    citation = Citation(
        title="Click-aware Structure Transfer with Sample Weight Assignment for Post-Click Conversion Rate Estimation",
        authors="Kai Ouyang, Wenhao Zheng, Chen Tang, Xuanji Xiao, Hai-Tao Zheng",
        venue="ECML-PKDD",
        year=2023,
        link="https://arxiv.org/abs/2304.01169",
    )

    def __init__(
        self,
        spec: LogSpec,
        *,
        embedding_size: Annotated[int, Argument("width of an embedding", paper=5, low=4, high=64)] = 8,
        tower: Annotated[Tower, Argument("hidden layers of each tower")] = Tower(),  # noqa: B008 (frozen)
        migrator: Annotated[Migrator | None, Argument("takes over structure from clicks")] = Migrator(),
        perceptron: Annotated[ClickPerceptron | None, Argument("gates by the click tower")] = ClickPerceptron(),
        escaper: Annotated[Escaper | None, Argument("weighs outcomes that contradict the click")] = Escaper(),
        calibrator: Annotated[float | None, Argument("weight of max(ctcvr - ctr, 0)", low=0.0, high=1.0)] = 0.6,
        pretrained: Annotated[Literal["fresh", "pretrained"], Argument("where the CTR table starts")] = "fresh",
    ) -> None:
        super().__init__(spec)
        if calibrator is not None and not 0.0 <= calibrator < float("inf"):
            raise ValueError(f"the weight of the calibrator is at least 0, got {calibrator}")
        self.migrator, self.escaper, self.calibrator, self.pretrained = migrator, escaper, calibrator, pretrained
        self.detach = perceptron is not None and perceptron.detach
        self.ctr_encoder, self.ctcvr_encoder = (
            FeatureEncoder(spec.schema, spec.table_rows, embedding_size) for _ in range(2)
        )
        self.ctr_tower = Perceptron(self.ctr_encoder.width, tower)
        self.ctr_head = Head(self.ctr_tower.width, spec.ctr)
        self.information = None if perceptron is None else nn.Linear(self.ctr_tower.width, self.ctcvr_encoder.width)
        if self.information is not None:
            initialise_linear(self.information)
        self.ctcvr_tower = Perceptron(self.ctcvr_encoder.width, tower)
        self.ctcvr_head = Head(self.ctcvr_tower.width, spec.ctcvr)
        no_row = (float("-inf"), float("inf"))
        self.window = None if escaper is None else QuantileWindow(escaper.window, (escaper.low, escaper.high), no_row)
        self.pretraining = Pretraining(
            "mlp", {"embedding_size": embedding_size, "tower": plain(tower)}, {"stop_on": "ctr/logloss@exposure"}
        )
        self.graphs: dict[EntitySide, EntityGraph] = {}
        self.sides = nn.ModuleDict()
        self.reading: Reading | None = None
        if migrator is not None:
            self._add_sides(migrator, embedding_size)

    def _add_sides(self, migrator: Migrator, size: int) -> None:
        """Make room for the entities of the sides that the log names; reading D where that would take too much."""
        schema, rows = self.spec.schema, self.spec.table_rows
        places = {
            side: tuple(schema.sparse.index(feature) for feature in entity_features(schema, side))
            for side in _SIDES
            if getattr(schema.columns, f"{side}_id") in {feature.name for feature in schema.sparse}
        }
        entities = {side: self.spec.values_of(own[0]) for side, own in places.items()}
        self.asked_bytes = 4 * size * sum(len(own) * (entities[side] + 1) for side, own in places.items())
        self.reading = "D" if self.asked_bytes > migrator.memory * _GIB else migrator.reading
        for side, own in places.items():
            if self.reading == "D":
                self.sides[side] = EntityIds(own, size)
            else:
                kind = EntityShift if self.reading == "E" else EntityTable
                self.sides[side] = kind(own, size, entities[side], rows)

    @property
    def heads(self) -> dict[str, HeadKind]:
        """The cvr is derived: a quotient of the other two."""
        return {"ctr": "head", "cvr": "derived", "ctcvr": "head"}

    @property
    def observed(self) -> tuple[tuple[str, str], ...]:
        """What the two cross-entropies observe."""
        return (("ctr", "exposure"), ("ctcvr", "exposure"))

    def requires(self) -> tuple[Requirement, ...]:
        """Return the pre-trained table where the CTR's starts from it, and a graph a side.

        Raises
        ------
        ConfigError
            ``config.value``: a migrator, and the log names neither users nor items by a sparse feature.
        """
        wanted: list[Requirement] = [self.pretraining] if self.pretrained == "pretrained" else []
        given = self.migrator
        if given is not None:
            if not len(self.sides):
                entity_features(self.spec.schema, "user")  # says what is missing
            options = (given.neighbours, given.include_self, given.symmetrise, given.search)
            wanted += [NeighbourGraph(side, self.pretraining, *options) for side in _SIDES if side in self.sides]
        return tuple(wanted)

    @torch.no_grad()
    def provide(self, requirement: Requirement, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take in a graph, which is held outside the state, or the pre-trained table."""
        if isinstance(requirement, NeighbourGraph):
            self.graphs[requirement.side] = graph = EntityGraph.from_arrays(arrays)
            self._side(requirement.side).attach(graph)
        else:
            self.ctr_encoder.table.weight.copy_(torch.from_numpy(arrays["table"].copy()))

    def notes(self) -> tuple[Finding, ...]:
        """Say where reading D serves for another, and what that one would have taken."""
        if self.migrator is None or self.reading == self.migrator.reading:
            return ()
        asked, most = self.asked_bytes / _GIB, self.migrator.memory
        what = f"reading {self.migrator.reading} would take {asked:.1f} GiB of {most:g}: only ids migrate (reading D)"
        return (Finding("graph.memory", what, "migrator.memory", fix="raise migrator.memory where there is room"),)

    def on_epoch_start(self, epoch: int) -> None:
        """Migrate (eq. 8 to 10), in every epoch but the first.

        Raises
        ------
        TrainingError
            ``train.no_graph``: no graph was provided.
        """
        missing = [side for side in self.sides if side not in self.graphs]
        if self.migrator is None or (epoch == 0 and missing):
            return
        if missing:
            what = f"the migrator has no graph of {'s and '.join(missing)}s in epoch {epoch + 1}"
            fix = "provide what requires() names before training, as `postclick train` does, or set migrator=off"
            raise TrainingError(Finding("train.no_graph", what, "migrator", fix=fix))
        table = self.ctcvr_encoder.table.weight.detach()
        for side, graph in self.graphs.items():
            if epoch == 0:
                self._side(side).start(graph, table)
            else:
                self._side(side).mix(graph, table, self.migrator.gamma, self.migrator.layers)

    def _side(self, side: EntitySide) -> EntityVectors:
        return cast("EntityVectors", self.sides[side])

    def forward(self, batch: Batch) -> Outputs:
        """Return ctr, cvr, ctcvr; `raw` has them before weights were undone, the extra ``gate`` [B, D] is g."""
        features, extras = batch.features, {}
        clicked = self.ctr_tower(self.ctr_encoder(features))  # [B, H]
        ctr = LogProbability.from_logit(self.ctr_head(clicked))  # [B]
        x = self.ctcvr_encoder.joined(self._vectors(features), features)  # [B, D]
        if self.information is not None:
            given = clicked.detach() if self.detach else clicked
            extras["gate"] = gate = 2.0 * torch.sigmoid(self.information(given))
            x = x * gate
        ctcvr = LogProbability.from_logit(self.ctcvr_head(self.ctcvr_tower(x)))
        if self.training or self.escaper is None or not self.escaper.undo_weights:
            return Outputs(ctr, cvr=ctcvr.quotient(ctr), ctcvr=ctcvr, extras=extras)
        undone = undo_weights(ctcvr, self._weights(ctr))
        raw = {"cvr": ctcvr.quotient(ctr), "ctcvr": ctcvr}
        return Outputs(ctr, cvr=undone.quotient(ctr), ctcvr=undone, extras=extras, raw=raw)

    def _vectors(self, features: Features) -> Tensor:
        """Return e with E_u and E_i in place, [B, F, E]."""
        vectors = self.ctcvr_encoder.fields(features)
        for side in self.sides.values():
            vectors = side(vectors, features.rows)
        return vectors

    def _weights(self, ctr: LogProbability) -> LabelWeights:
        """Return w for either label, by the thresholds of the batches before."""
        assert self.escaper is not None
        assert self.window is not None
        low, high = self.window.bounds.unbind()
        form, epsilon, cap = self.escaper.form, self.escaper.epsilon, self.escaper.cap
        return contradiction_weights(ctr.log_p.exp(), high=high, low=low, form=form, epsilon=epsilon, cap=cap)

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the terms ``ctr``, ``ctcvr`` (weighted), ``calibrator``; in training the CTRs then join the window."""
        click, conversion = batch_labels(batch)
        ctcvr, given = outputs.raw.get("ctcvr", outputs.ctcvr), outputs.ctr.detach()
        rows = {"ctr": click_loss(outputs.ctr, click), "ctcvr": joint_loss(ctcvr, click, conversion)}
        diagnostics = self._diagnostics(outputs, ctcvr, batch.weight)
        if self.window is not None:
            label, weights = click * conversion, self._weights(given)
            rows["ctcvr"] = weights.of(label) * rows["ctcvr"]
            diagnostics |= reweighted_shares(weights, label, batch.weight)
        if self.calibrator:
            rows["calibrator"] = self.calibrator * expectation_calibrator(ctcvr, outputs.ctr)
        terms = {name: mean_over_exposures(per_row, batch.weight_of(name)) for name, per_row in rows.items()}
        if self.window is not None and self.training:
            self.window.update(given.log_p.exp())  # after the weights: a batch is held against those before it
        return Losses(terms, diagnostics)

    @torch.no_grad()
    def _diagnostics(self, outputs: Outputs, ctcvr: LogProbability, weight: Tensor | None) -> dict[str, Tensor]:
        above = (ctcvr.log_p > outputs.ctr.log_p).to(ctcvr.log_p.dtype)
        found = {"ctcvr_above_ctr": mean_over_exposures(above, weight)}
        if "gate" in outputs.extras:
            found["gate"] = mean_over_exposures(outputs.extras["gate"].mean(dim=1), weight)
        if self.window is not None:  # thresholds are no numbers until it is full
            low, high = self.window.bounds.clone().unbind()
            found |= {"threshold/low": low, "threshold/high": high}
        return found

    def shared_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the click tower and its encoder's, where the conversion loss reaches them through the gate."""
        if self.information is None or self.detach:
            return ()
        return (*self.ctr_encoder.dense_parameters(), *self.ctr_tower.parameters())
