"""What a report is made of: plain frozen facts, read from folders and never from live objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from postclick.binding import dotted
from postclick.evaluation.tables import SliceRatio
from postclick.report.log_facts import DataTable, Funnel, LogFacts

__all__ = [
    "Cell",
    "Contestant",
    "Curve",
    "Figures",
    "Pair",
    "RunFacts",
    "Slices",
    "Study",
    "Trial",
]


@dataclass(frozen=True)
class Curve:
    """Predicted against observed by bins of equal mass, K bins.

    Parameters
    ----------
    place
        ``HEAD@POPULATION``, with ``|slice`` where it is one.
    predicted, observed
        [K] mean prediction and observed rate (on ``world``: mean true probability).
    rows
        [K] rows.
    low, high
        [K] ends of the observed rate's interval; empty where the rate has no noise.
    """

    place: str
    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    rows: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Slices:
    """Predicted over observed of every slice, tested all together: key ``slices`` of an evaluation.

    Parameters
    ----------
    ratios
        ``HEAD@POPULATION|column`` -> its slices, the least likely to be calibrated first.
    spread
        ``HEAD@POPULATION|column`` -> standard deviation over slices of observed / predicted, noise taken out.
    tested
        ``HEAD@POPULATION`` -> how many slices of all columns were tested together.
    level
        Nominal coverage.
    verdict
        Sentences on the worst slices.
    """

    ratios: Mapping[str, tuple[SliceRatio, ...]] = field(default_factory=dict)
    spread: Mapping[str, float] = field(default_factory=dict)
    tested: Mapping[str, int] = field(default_factory=dict)
    level: float = 0.95
    verdict: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunFacts:
    """One RUN.

    Parameters
    ----------
    name
        Its path, as it was given, without the folders above those that tell runs apart.
    system, seed
        Which.
    settings
        Its configuration, nested as in ``config.toml``.
    log
        Hash of its log.
    bundle
        Hash of its bundle.
    heads
        Head -> ``head`` or ``derived``.
    checks
        The lines of ``metrics.jsonl``.
    metrics
        Name -> plain form of a metric; empty where the run was not evaluated.
    ledger
        Of the evaluation.
    overlap, experts
        Their plain forms in the evaluation, or None.
    calibration
        Head -> how it was calibrated.
    curves
        Reliability.
    record
        Of the training: versions, device, seconds; no part of what is hashed.
    trained
        Rows, clicks and conversions it was trained on.
    slices
        Its level slice by slice, tested.
    """

    name: str
    system: str
    seed: int
    settings: Mapping[str, Any]
    log: str
    bundle: str
    heads: Mapping[str, str]
    checks: tuple[Mapping[str, Any], ...]
    metrics: Mapping[str, Mapping[str, Any]]
    ledger: Mapping[str, Any]
    overlap: Mapping[str, Any] | None
    experts: Mapping[str, Any] | None
    calibration: Mapping[str, Mapping[str, Any]]
    curves: tuple[Curve, ...]
    record: Mapping[str, Any]
    trained: Funnel
    slices: Slices = field(default_factory=Slices)

    @property
    def config(self) -> dict[str, Any]:
        """Every setting by its dotted name."""
        return dotted(self.settings)


@dataclass(frozen=True)
class Cell:
    """One metric of one contestant.

    Parameters
    ----------
    value
        Of its one run, or mean over seeds.
    low, high
        Its own interval; None where only the seeds' spread is known.
    seeds
        Value of each seed, as far as known.
    seed_sd
        Standard deviation over seeds.
    derived
        The head is a quotient of others; never called best.
    undefined
        Why there is no value.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    seeds: tuple[float, ...] = ()
    seed_sd: float | None = None
    derived: bool = False
    undefined: str | None = None


@dataclass(frozen=True)
class Pair:
    """A paired comparison of two contestants by one metric.

    Parameters
    ----------
    metric, system, against
        What was compared.
    value, low, high
        Difference of `system` less `against`, with its interval.
    verdict
        ``better``, ``worse`` or ``cannot tell``, of `system`.
    needed
        What would tell, in words; "" where nothing is missing or known.
    seeds
        Of `system`.
    gain
        The difference over the metric of `against`; None where neither is known, and for PCOC.
    p
        Two-sided, adjusted by Holm over the systems of the metric: it decides the verdict.
    method
        How it was tested.
    """

    metric: str
    system: str
    against: str
    value: float
    low: float
    high: float
    verdict: str
    needed: str = ""
    seeds: int = 1
    gain: float | None = None
    p: float | None = None
    method: str = ""


@dataclass(frozen=True)
class Contestant:
    """One row of a leaderboard.

    Parameters
    ----------
    label
        Its name there.
    system
        Key of the system.
    run
        The run whose curves are shown: its first seed.
    seeds
        How many were trained.
    cells
        Metric -> `Cell`.
    chosen
        What a grid chose for it.
    """

    label: str
    system: str
    run: RunFacts | None
    seeds: int
    cells: Mapping[str, Cell]
    chosen: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """One setting that a grid tried: what the validation rows said of it.

    Parameters
    ----------
    label
        Contestant.
    setting
        Dotted name -> value.
    value
        What the choice looked at, mean over its seeds; None where undefined.
    """

    label: str
    setting: Mapping[str, Any]
    value: float | None


@dataclass(frozen=True)
class Study:
    """Systems on the rows of one log: a data set of a BENCHMARK, or RUNs of one LOG.

    Parameters
    ----------
    name
        Of the data.
    origin
        What was given on the command line.
    log
        The data.
    contestants
        In order.
    metrics
        The leaderboard's, in order; the first is the headline.
    pairs
        Paired comparisons.
    baseline
        Label compared against, or None.
    oracle
        Metric -> value of the true probabilities; empty where not known.
    trials
        Of a grid.
    grid_metric
        What the grid chose by, in words.
    notes
        What a reader must know.
    groups
        Metric -> ``head`` or ``derived`` -> label -> letters; those that share a letter cannot be told apart.
    table
        Table 1 of the data, of a benchmark.
    split
        Whose rows were judged.
    """

    name: str
    origin: str
    log: LogFacts
    contestants: tuple[Contestant, ...]
    metrics: tuple[str, ...]
    pairs: tuple[Pair, ...] = ()
    baseline: str | None = None
    oracle: Mapping[str, float] = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()
    grid_metric: str = ""
    notes: tuple[str, ...] = ()
    groups: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)
    table: DataTable | None = None
    split: str = "test"

    def pair(self, metric: str, label: str) -> Pair | None:
        """Return the comparison of `label` with the baseline, or None."""
        return next((found for found in self.pairs if (found.metric, found.system) == (metric, label)), None)


@dataclass(frozen=True)
class Figures:
    """Everything a report shows.

    Parameters
    ----------
    studies
        One a data set.
    missing
        What is not shown because nobody said where it is.
    version
        Of postclick.
    """

    studies: tuple[Study, ...]
    missing: tuple[str, ...] = ()
    version: str = ""
