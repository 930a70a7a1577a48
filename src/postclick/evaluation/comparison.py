"""What a paired comparison of systems found: differences, verdicts in words, letters; frozen, and their JSON form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import combinations
from typing import Any, Literal

import numpy as np

from postclick.errors import ConfigError, DataError, Finding, nearest
from postclick.evaluation.names import MetricName
from postclick.metrics.influence import HIGHER_IS_BETTER
from postclick.metrics.significance import letters

__all__ = ["EQUAL", "FORMAT", "Comparison", "Difference", "Margin", "Standing", "Verdict"]

FORMAT = 1
Verdict = Literal["better", "worse", "cannot tell"]
_SEEDS_FOR_EQUAL = 5


@dataclass(frozen=True)
class Margin:
    """How far apart two systems may be and still count as equal.

    Parameters
    ----------
    size
        Half width.
    relative
        As a share of the value of the system compared against.
    """

    size: float
    relative: bool = False


EQUAL: Mapping[str, Margin] = {"auc": Margin(0.002), "gauc": Margin(0.002), "logloss": Margin(0.005, relative=True)}
"""What "equal" means unless a margin is stated: 0.002 of AUC, half a percent of log-loss."""


@dataclass(frozen=True)
class Standing:
    """One system's metric, averaged over seeds.

    Parameters
    ----------
    value
        Mean over seeds (of ``pcoc``: geometric mean); None where it is undefined.
    seed_sd
        Standard deviation over seeds on these rows (of log PCOC for ``pcoc``); None with one seed.
    seeds
        How many scorings.
    undefined
        Why there is no value, else None.
    derived
        The system has no output of its own for this head; it is never called best.
    """

    value: float | None
    seed_sd: float | None = None
    seeds: int = 1
    undefined: str | None = None
    derived: bool = False


@dataclass(frozen=True)
class Difference:
    """One metric of `system` less that of `against`, on the same rows.

    Parameters
    ----------
    metric
        ``HEAD/METRIC@POPULATION``.
    system, against
        Names of the two.
    verdict
        Whether `system` is better, by the p-value adjusted over the metric's table.
    value
        Difference of the seed means; for ``pcoc`` of the distances of log PCOC from 0. None: undefined.
    low, high, level
        Its own interval, not adjusted for the other pairs of the table.
    p, p_holm
        Two-sided, alone and adjusted by Holm over the table.
    reference
        The metric of `against`, which relative margins refer to.
    seed_variance, test_variance, df
        What the interval is made of; df None is the normal distribution.
    needed
        What would tell, in words ("about 1200 more conversions"); "" where nothing is missing or known.
    n, positives
        Rows, and positives among them (or their soft sum).
    seeds
        Scorings of the two.
    method
        How it was made, and what it leaves out.
    undefined
        Why there is no difference, else None.
    """

    metric: str
    system: str
    against: str
    verdict: Verdict = "cannot tell"
    value: float | None = None
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    p: float | None = None
    p_holm: float | None = None
    reference: float | None = None
    seed_variance: float | None = None
    test_variance: float | None = None
    df: float | None = None
    needed: str = ""
    n: int = 0
    positives: float = 0
    seeds: tuple[int, int] = (1, 1)
    method: str = ""
    undefined: str | None = None

    @property
    def words(self) -> str:
        """The verdict, with what is missing: "cannot tell (needs about 1200 more conversions)"."""
        if self.undefined:
            return f"{self.verdict} (undefined: {self.undefined})"
        return f"{self.verdict} (needs {self.needed})" if self.needed else self.verdict

    def equivalent(self, margin: Margin | None = None) -> bool:
        """Return whether the two are equal within a margin, which is more than "cannot tell".

        True when both have at least 5 seeds, the interval's level is at least 95 % and the interval lies inside the
        margin.

        Parameters
        ----------
        margin
            None: the metric's own in `EQUAL`.

        Raises
        ------
        ConfigError
            When the metric has no margin of its own and none is given.
        """
        stated = margin or EQUAL.get(MetricName.parse(self.metric).metric)
        if stated is None:
            what = f"no margin is laid down for {self.metric}"
            raise ConfigError(Finding("config.margin", what, fix="state one: equivalent(Margin(0.01))"))
        if self.low is None or self.high is None or min(self.seeds) < _SEEDS_FOR_EQUAL or self.level < 0.95:
            return False
        half = stated.size * (abs(self.reference or 0.0) if stated.relative else 1.0)
        return -half < self.low and self.high < half


@dataclass(frozen=True)
class Comparison:
    """Systems on the same rows: where each stands and which differ.

    Parameters
    ----------
    systems
        Their names, in the order given.
    baseline
        The system all others are compared with; None: all pairs.
    level
        Nominal coverage; 1 - level is the error rate of each metric's table.
    standings
        Metric -> system -> `Standing`.
    differences
        Metric -> the differences of its table.
    """

    systems: tuple[str, ...]
    baseline: str | None
    level: float
    standings: Mapping[str, Mapping[str, Standing]]
    differences: Mapping[str, tuple[Difference, ...]]

    def difference(self, metric: str, system: str, against: str) -> Difference:
        """Return a difference of the table; it exists in the direction it was made, better read off `systems`.

        Raises
        ------
        ConfigError
            When the table has none, with the nearest spelling.
        """
        for found in self._table(metric):
            if (found.system, found.against) == (system, against):
                return found
        what = f"{metric} has no difference of {system!r} against {against!r}"
        known = ", ".join(f"{found.system} against {found.against}" for found in self._table(metric))
        raise ConfigError(Finding("config.comparison", what, fix=f"there is {known}"))

    def ranking(self, metric: str) -> list[str]:
        """Return the systems whose value is defined, best first."""
        self._table(metric)
        values = {name: entry.value for name, entry in self.standings[metric].items() if entry.value is not None}
        base = MetricName.parse(metric).metric
        if base in HIGHER_IS_BETTER:
            return sorted(values, key=lambda name: -values[name])
        if base == "pcoc":
            return sorted(values, key=lambda name: abs(float(np.log(values[name]))))
        return sorted(values, key=lambda name: values[name])

    def groups(self, metric: str) -> dict[str, str]:
        """Return letters by system, best first: systems that share one cannot be told apart.

        Raises
        ------
        ConfigError
            When only a baseline was compared with.
        """
        if self.baseline is not None:
            what = f"letters need all pairs, and only {self.baseline!r} was compared with"
            raise ConfigError(Finding("config.comparison", what, fix="compare without a baseline"))
        order = self.ranking(metric)
        told = {
            frozenset((found.system, found.against)) for found in self._table(metric) if found.verdict != "cannot tell"
        }
        apart = np.zeros((len(order), len(order)), np.bool_)
        for one, other in combinations(range(len(order)), 2):
            apart[one, other] = apart[other, one] = frozenset((order[one], order[other])) in told
        return dict(zip(order, letters(apart), strict=True))

    def _table(self, metric: str) -> Sequence[Difference]:
        if metric not in self.differences:
            near = nearest(metric, self.differences)
            fix = f"did you mean {near!r}?" if near else f"compared: {', '.join(self.differences)}"
            raise ConfigError(Finding("config.metric_name", f"{metric!r} was not compared", fix=fix))
        return self.differences[metric]

    def table(self) -> list[dict[str, str]]:
        """Return printable rows: metric, system, against, difference, low, high, p (Holm), verdict."""
        return [
            {
                "metric": found.metric,
                "system": found.system,
                "against": found.against,
                "difference": _number(found.value),
                "low": _number(found.low),
                "high": _number(found.high),
                "p (Holm)": "-" if found.p_holm is None else f"{found.p_holm:.2g}",
                "verdict": found.words + self._note(found),
            }
            for rows in self.differences.values()
            for found in rows
        ]

    def _note(self, found: Difference) -> str:
        standings = self.standings[found.metric]
        names = [name for name in (found.system, found.against) if standings[name].derived]
        return f"; derived: {', '.join(names)}" if names else ""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; the same comparison gives the same bytes."""
        return {
            "format": FORMAT,
            "systems": list(self.systems),
            "baseline": self.baseline,
            "level": self.level,
            "standings": {
                metric: {name: asdict(entry) for name, entry in rows.items()} for metric, rows in self.standings.items()
            },
            "differences": {
                metric: [{**asdict(entry), "seeds": list(entry.seeds)} for entry in rows]
                for metric, rows in self.differences.items()
            },
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Comparison:
        """Read the JSON form; keys this version does not know are passed over.

        Raises
        ------
        DataError
            When the format is another one.
        """
        if content.get("format") != FORMAT:
            what = f"expected a comparison of format {FORMAT}, got {content.get('format')!r}"
            raise DataError(Finding("data.format", what, fix="compare again with this version"))
        known = {kind: {entry.name for entry in fields(kind)} for kind in (Standing, Difference)}

        def kept(kind: type[Standing] | type[Difference], entry: Mapping[str, Any]) -> dict[str, Any]:
            return {key: value for key, value in entry.items() if key in known[kind]}

        standings = {
            metric: {name: Standing(**kept(Standing, entry)) for name, entry in rows.items()}
            for metric, rows in content["standings"].items()
        }
        differences = {
            metric: tuple(Difference(**{**kept(Difference, entry), "seeds": tuple(entry["seeds"])}) for entry in rows)
            for metric, rows in content["differences"].items()
        }
        return cls(tuple(content["systems"]), content["baseline"], content["level"], standings, differences)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
