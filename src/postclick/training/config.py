"""What may be set about training; bound from TOML and ``--set training.NAME=value``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from postclick.binding import Argument
from postclick.errors import ConfigError, Finding
from postclick.training.tracking import TrackingName

__all__ = ["SAFE_TO_CHANGE", "BalanceName", "L2Mode", "SamplingName", "TableOptimiserName", "TrainingConfig"]

SamplingName = Literal["weights", "correct"]
TableOptimiserName = Literal["lazy_rmsprop", "lazy_adam", "rowwise_adagrad", "exact_adam"]
L2Mode = Literal["none", "batch_rows", "coupled_dense"]
BalanceName = Literal["fixed", "uncertainty", "gradnorm", "pcgrad"]

SAFE_TO_CHANGE = frozenset({"max_epochs", "patience", "min_delta", "checkpoint_steps", "threads", "tracking"})
"""Settings that may differ when a run is resumed, where the user names them: they do not alter a step already taken."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one training; all mistakes are reported together.

    Raises
    ------
    ConfigError
        ``config.value`` a setting out of range, ``config.combination`` settings that exclude each other.
    """

    batch_size: Annotated[int, Argument("rows a step", low=256, high=16384)] = 2000
    max_epochs: Annotated[int, Argument("passes over the training rows at most", low=1, high=20)] = 10
    learning_rate: Annotated[float, Argument("step size of Adam, and of the tables", low=1e-4, high=1e-2)] = 1e-3
    table_learning_rate: Annotated[
        float | None, Argument("step size of the tables alone; off: `learning_rate`", low=1e-4, high=1e-1)
    ] = None
    optimizer: Annotated[
        TableOptimiserName, Argument("what moves the embedding tables; dense parameters always move by Adam")
    ] = "lazy_rmsprop"
    l2: Annotated[
        float, Argument("strength of L2: this times the parameter joins its gradient", low=0.0, high=1e-4)
    ] = 1e-6
    l2_mode: Annotated[
        L2Mode,
        Argument("none; batch_rows: table rows of the batch; coupled_dense: everything, as Adam's weight_decay"),
    ] = "batch_rows"
    sampling: Annotated[
        SamplingName,
        Argument("of a down-sampled log: weights: rows count 1 / keep rate; correct: alike, and scores are corrected"),
    ] = "weights"
    id_dropout: Annotated[
        float, Argument("share of ids replaced by their field's unknown row, which so is trained", low=0.0, high=0.1)
    ] = 0.01
    balance: Annotated[
        BalanceName,
        Argument(
            "how the terms of the loss are joined: fixed is their sum; gradnorm and pcgrad need shared dense layers"
        ),
    ] = "fixed"
    gradnorm_alpha: Annotated[
        float, Argument("gradnorm: how hard a term that lags behind is pulled; 0: equal norms", low=0.0, high=3.0)
    ] = 1.5
    gradnorm_learning_rate: Annotated[float, Argument("gradnorm: step size of the weights", low=1e-3, high=1e-1)] = (
        0.025
    )
    patience: Annotated[int | None, Argument("checks without improvement before training stops; off: never")] = 6
    checks_per_epoch: Annotated[int, Argument("validation checks an epoch; the last one is at its end")] = 4
    stop_on: Annotated[
        str, Argument("what early stopping watches: logloss, the sum over observed heads, or one of them by its name")
    ] = "logloss"
    min_delta: Annotated[float, Argument("what counts as improvement must be larger than this")] = 0.0
    checkpoint_steps: Annotated[int, Argument("also write a checkpoint every so many steps; 0: at checks only")] = 0
    memory_bytes: Annotated[int, Argument("training rows are held and shuffled in memory up to this size")] = 1 << 32
    threads: Annotated[int | None, Argument("threads of PyTorch; off: as many as it takes by itself")] = None
    tracking: Annotated[
        TrackingName | None, Argument("tool that follows the checks, from the extra `tracking`; off: none")
    ] = None
    propensity_bundle: Annotated[
        str | None,
        Argument("RUN or BUNDLE whose CTR is what propensity = logged reads; off: the log's own column"),
    ] = None

    def __post_init__(self) -> None:
        problems = [*self._ranges(), *self._combinations()]
        if problems:
            raise ConfigError(*problems)

    def _ranges(self) -> list[Finding]:
        rules = (
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("max_epochs", self.max_epochs >= 1, "at least 1"),
            ("learning_rate", 0.0 < self.learning_rate < float("inf"), "above 0"),
            (
                "table_learning_rate",
                self.table_learning_rate is None or 0.0 < self.table_learning_rate < float("inf"),
                "above 0, or off",
            ),
            ("l2", 0.0 <= self.l2 < float("inf"), "at least 0"),
            ("gradnorm_alpha", 0.0 <= self.gradnorm_alpha < float("inf"), "at least 0"),
            ("gradnorm_learning_rate", 0.0 < self.gradnorm_learning_rate < float("inf"), "above 0"),
            ("id_dropout", 0.0 <= self.id_dropout < 1.0, "at least 0 and below 1"),
            ("patience", self.patience is None or self.patience >= 1, "at least 1, or off"),
            ("checks_per_epoch", self.checks_per_epoch >= 1, "at least 1"),
            ("min_delta", 0.0 <= self.min_delta < float("inf"), "at least 0"),
            ("checkpoint_steps", self.checkpoint_steps >= 0, "at least 0"),
            ("memory_bytes", self.memory_bytes >= 1, "at least 1"),
            ("threads", self.threads is None or self.threads >= 1, "at least 1, or off"),
        )
        return [
            Finding("config.value", f"must be {wanted}, got {getattr(self, name)!r}", f"training.{name}")
            for name, good, wanted in rules
            if not good
        ]

    def _combinations(self) -> list[Finding]:
        if self.l2_mode == "coupled_dense" and self.optimizer != "exact_adam":
            what = f"coupled_dense moves every row at every step, {self.optimizer} only the rows of the batch"
            fix = "set training.optimizer=exact_adam, or training.l2_mode=batch_rows"
            return [Finding("config.combination", what, "training.l2_mode", fix=fix)]
        return []

    @property
    def batch_l2(self) -> float:
        """L2 on the table rows of the batch."""
        return self.l2 if self.l2_mode == "batch_rows" else 0.0

    @property
    def weight_decay(self) -> float:
        """L2 on everything, Adam's own."""
        return self.l2 if self.l2_mode == "coupled_dense" else 0.0

    @property
    def table_rate(self) -> float:
        """Step size of the tables."""
        return self.learning_rate if self.table_learning_rate is None else self.table_learning_rate
