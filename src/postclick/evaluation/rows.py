"""Which rows each metric uses: the heads' labels, scores and weights on each population."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick.data.arrays import CENSORED, Labels
from postclick.data.log import Truth
from postclick.data.scores import Scores
from postclick.errors import DataError, Finding

__all__ = ["EvaluationRows", "Sample", "group_codes"]

Floats = NDArray[np.float64]
_ASKED = "every row was clicked on demand"


def group_codes(values: NDArray[Any]) -> NDArray[np.int32]:
    """Return an integer code a value, 0 to U - 1 in the order of the values; hashed, then only the U values sorted.

    Missing values (None) share one code, the last.
    """
    import pyarrow as pa

    is_text = values.dtype.kind in "OUT"
    encoded = pa.array(values.tolist() if is_text else values).dictionary_encode()
    distinct = encoded.dictionary.to_numpy(zero_copy_only=False)
    rank = np.arange(len(distinct) + 1, dtype=np.int32)
    rank[np.argsort(distinct, kind="stable")] = np.arange(len(distinct), dtype=np.int32)
    return np.asarray(rank[encoded.indices.fill_null(len(distinct)).to_numpy()], np.int32)


@dataclass(frozen=True)
class Sample:
    """The rows of one head on one population, n of them.

    Parameters
    ----------
    head, population
        What they are.
    odds
        [n] log-odds as served.
    label
        [n] 0/1 (int8), or true probabilities (float64) on ``world``.
    places
        [n] row numbers in the evaluated split; None where all rows are used.
    weight
        [n] sample weights, or None.
    user
        [n] integer user codes, or None.
    raw
        [n] log-odds as the network gave them, where they differ.
    derived
        The system has no output of its own for this head.
    censored
        Rows of the population left out because their label's window has not closed.
    undefined
        Why nothing can be said of this head here ("log of clicks"), else None.
    """

    head: str
    population: str
    odds: Floats
    label: NDArray[Any]
    places: NDArray[np.int64] | None = None
    weight: Floats | None = None
    user: NDArray[np.int32] | None = None
    raw: Floats | None = None
    derived: bool = False
    censored: int = 0
    undefined: str | None = None

    def __len__(self) -> int:
        return len(self.odds)

    @property
    def positives(self) -> float:
        """Positives: a count, or the sum of soft labels."""
        total = self.label.sum(dtype=np.float64)
        return float(total) if self.label.dtype.kind == "f" else int(total)

    def select(self, mask: NDArray[np.bool_]) -> Sample:
        """Return the rows where `mask`, over all rows of the split, is true."""
        keep = np.flatnonzero(mask if self.places is None else mask[self.places])
        columns = ("odds", "label", "weight", "user", "raw")
        found = {name: getattr(self, name) for name in columns}
        places = keep if self.places is None else self.places[keep]
        return replace(
            self, places=places, **{name: column[keep] for name, column in found.items() if column is not None}
        )


@dataclass(frozen=True)
class EvaluationRows:
    """A split's labels and scores, row by row, N of them.

    Parameters
    ----------
    labels
        What was observed.
    scores
        Log-odds by head.
    truth
        True probabilities of a simulated log, or None.
    slices
        Column -> [N] values: metrics are also given for each value.
    cold_user, cold_item
        [N] masks of exposures whose user (item) was not in training, or None.
    new_pair
        [N] mask of exposures whose user did not click their item in training, or None.
    propensity_floor
        Smallest propensity that debiased estimates divide by; None is a tenth of these rows' click rate.

    Raises
    ------
    DataError
        When lengths differ or a sample weight is negative or not finite; all at once.
    """

    labels: Labels
    scores: Scores
    truth: Truth | None = None
    slices: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    cold_user: NDArray[np.bool_] | None = None
    cold_item: NDArray[np.bool_] | None = None
    new_pair: NDArray[np.bool_] | None = None
    propensity_floor: float | None = None

    def __post_init__(self) -> None:
        rows = len(self.labels)
        lengths = {f"scores.{head}": len(odds) for head, odds in self.scores.odds.items()}
        lengths |= {f"slices.{column}": len(values) for column, values in self.slices.items()}
        if self.truth is not None:
            lengths["truth"] = len(self.truth.ctr)
        for name in ("cold_user", "cold_item", "new_pair"):
            mask = getattr(self, name)
            if mask is not None:
                lengths[name] = len(mask)
        problems = [
            Finding("eval.length", f"{length} rows where the labels have {rows}", name)
            for name, length in lengths.items()
            if length != rows
        ]
        weight = self.labels.sample_weight
        if weight is not None and not bool(np.all(np.isfinite(weight) & (weight >= 0))):
            bad = int(np.count_nonzero(~(np.isfinite(weight) & (weight >= 0))))
            what = "sample weights must be finite and not negative"
            problems.append(Finding("data.weights", what, "sample_weight", bad))
        if problems:
            raise DataError(*problems)

    @cached_property
    def user(self) -> NDArray[np.int32] | None:
        """Integer user codes, or None where the log has no user."""
        return None if self.labels.user_id is None else group_codes(self.labels.user_id)

    @cached_property
    def codes(self) -> Mapping[str, NDArray[np.int32]]:
        """Column of `slices` -> [N] integer codes of its values, in their order."""
        return {column: group_codes(values) for column, values in self.slices.items()}

    @property
    def asked(self) -> bool:
        """Whether every row is a randomised exposure with a click: users were made to rate, so clicks say nothing."""
        randomised = self.labels.randomised
        if randomised is None or not len(randomised):
            return False
        return bool(np.all((randomised == 1) & (self.labels.click == 1)))

    def samples(self, population: str = "exposure") -> list[Sample]:
        """Return every head on every population of these rows.

        Parameters
        ----------
        population
            The schema's population; ``click`` declares a log of clicks, where nothing can be said of exposures.
        """
        clicks_only = population == "click"
        reason = "log of clicks" if clicks_only else _ASKED if self.asked else None
        every = [self._observed(head) for head in self.scores.heads]
        found = [
            replace(sample, undefined=reason) if reason and sample.population == "exposure" else sample
            for sample in every
            if sample is not None
        ]
        randomised = self.labels.randomised
        if randomised is not None and bool(np.any(randomised == 1)):
            found += [replace(sample.select(randomised == 1), population="random", censored=0) for sample in found]
        if self.truth is not None and not clicks_only:
            found += [self._world(head, share) for head, share in self._true().items() if head in self.scores.odds]
        return found

    def _observed(self, head: str) -> Sample | None:
        """Return a head on the population where its label is observed, or None where the log has no such label."""
        click, action = self.labels.click, self.labels.action
        if head in ("action", "ctar") and action is None:
            return None
        on_clicks = head in ("cvr", "action")
        if head == "ctr":
            label = click
        elif head in ("cvr", "ctcvr"):
            label = self.labels.conversion
        else:
            assert action is not None
            label = action if on_clicks else np.where((click == 0) & (action == 1), np.int8(0), action)
        inside = click == 1 if on_clicks else np.ones(len(click), np.bool_)
        unknown = ~self.labels.conversion_known if head in ("cvr", "ctcvr") else label == CENSORED
        open_window = inside & (unknown | (not on_clicks and click == CENSORED))
        censored = int(np.count_nonzero(open_window))
        whole = self._sample(head, "click" if on_clicks else "exposure", label)
        return replace(
            whole if not on_clicks and not censored else whole.select(inside & ~open_window), censored=censored
        )

    def _true(self) -> dict[str, Floats]:
        """Return the true probability of each head that has one: of cvr and action given do(click)."""
        truth = self.truth
        assert truth is not None
        known = {
            "ctr": truth.ctr,
            "cvr": truth.cvr_do,
            "ctcvr": truth.ctcvr,
            "action": truth.action,
            "ctar": truth.ctar,
        }
        return {head: share for head, share in known.items() if share is not None}

    def _world(self, head: str, share: Floats) -> Sample:
        """Return a head on all exposures with its true probability as soft label."""
        return self._sample(head, "world", share)

    def _sample(self, head: str, population: str, label: NDArray[Any]) -> Sample:
        raw = self.scores.raw.get(head)
        return Sample(
            head,
            population,
            np.ascontiguousarray(self.scores.odds[head], np.float64),
            label,
            weight=self.labels.sample_weight,
            user=self.user,
            raw=None if raw is None else np.ascontiguousarray(raw, np.float64),
            derived=head in self.scores.derived,
        )
