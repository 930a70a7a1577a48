"""What an evaluation found: metrics by name, frozen, and their JSON form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from postclick.errors import DataError, Finding, nearest
from postclick.evaluation.experts import ExpertUse, experts_form, experts_from
from postclick.evaluation.tables import CalibrationTables
from postclick.metrics import Estimate, Overlap

__all__ = ["FORMAT", "EvaluationResult", "Metric"]

FORMAT = 1


@dataclass(frozen=True)
class Metric:
    """One number of an evaluation.

    Parameters
    ----------
    value
        The number; None where it is undefined.
    low, high
        Ends of the interval (for ``ece`` and ``field_rce``: of the null band); None where there is none.
    level
        Nominal coverage.
    method
        How the interval was made.
    n
        Rows it was computed on.
    positives
        Positives among them: a count, or the sum of soft labels.
    undefined
        Why there is no value, else None.
    derived
        The system has no output of its own for this head.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    level: float | None = None
    method: str = ""
    n: int = 0
    positives: float = 0
    undefined: str | None = None
    derived: bool = False

    @classmethod
    def of(cls, estimate: Estimate, n: int, positives: float, *, derived: bool = False) -> Metric:
        """Return an estimate with the rows it was made on."""
        ends = (estimate.low, estimate.high, estimate.level, estimate.method)
        return cls(estimate.value, *ends, n, positives, estimate.undefined, derived)


@dataclass(frozen=True)
class EvaluationResult(Mapping[str, Metric]):
    """Metrics by name (``result["cvr/auc@click"]``), with where they come from.

    Parameters
    ----------
    metrics
        ``HEAD/METRIC@POPULATION`` -> `Metric`.
    split
        Which split of the log was evaluated.
    bundle, log
        Hashes of the bundle and of the log, where known.
    ledger
        What was counted: rows, clicks, conversions, left-out censored labels, skipped users, notes, and what the log's
        own ledger said.
    experts
        Task -> use of the experts by its gate on these rows; empty for a system without gates.
    overlap
        What the debiased estimates rest on; None where there are none.
    calibration
        Reliability by bins and by slices; None where metrics were chosen by name.
    """

    metrics: Mapping[str, Metric]
    split: str = ""
    bundle: str | None = None
    log: str | None = None
    ledger: Mapping[str, Any] = field(default_factory=dict)
    experts: Mapping[str, ExpertUse] = field(default_factory=dict)
    overlap: Overlap | None = None
    calibration: CalibrationTables | None = None

    def __getitem__(self, name: str) -> Metric:
        try:
            return self.metrics[name]
        except KeyError:
            near = nearest(name, self.metrics)
            hint = f"; did you mean {near!r}?" if near else ""
            raise KeyError(f"no metric {name!r} in this evaluation{hint}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def __contains__(self, name: object) -> bool:
        return name in self.metrics

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know beside the numbers, in words."""
        return tuple(self.ledger.get("notes", ()))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form of ``evaluate --json``; what is not known is left out (``experts``, ``overlap``)."""
        form = {
            "format": FORMAT,
            "bundle": self.bundle,
            "log": self.log,
            "split": self.split,
            "metrics": {name: asdict(metric) for name, metric in self.metrics.items()},
            "ledger": dict(self.ledger),
        }
        form |= {"experts": experts_form(self.experts)} if self.experts else {}
        form |= {"overlap": self.overlap.to_dict()} if self.overlap is not None else {}
        return form | (self.calibration.to_dict() if self.calibration is not None else {})

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> EvaluationResult:
        """Read the JSON form.

        Raises
        ------
        DataError
            When the format is another one.
        """
        if content.get("format") != FORMAT:
            what = f"expected an evaluation of format {FORMAT}, got {content.get('format')!r}"
            raise DataError(Finding("data.format", what, fix="evaluate again with this version"))
        known = {entry.name for entry in fields(Metric)}
        metrics = {
            name: Metric(**{key: value for key, value in entry.items() if key in known})
            for name, entry in content["metrics"].items()
        }
        experts = experts_from(content.get("experts", {}))
        overlap = Overlap.from_dict(content["overlap"]) if "overlap" in content else None
        tables = CalibrationTables.from_dict(content) if "reliability" in content else None
        known_of = (content["split"], content["bundle"], content["log"], content["ledger"])
        return cls(metrics, *known_of, experts, overlap, tables)

    def table(self) -> list[dict[str, str]]:
        """Return the metrics as printable rows: metric, value, low, high, n, positives, note."""
        return [_row(name, metric) for name, metric in self.metrics.items()]


def _row(name: str, metric: Metric) -> dict[str, str]:
    notes = ["derived"] if metric.derived else []
    if metric.undefined:
        notes.append(f"undefined: {metric.undefined}")
    elif metric.method.startswith("null band"):
        notes.append("low and high: null band")
    positives = f"{metric.positives:g}" if metric.positives != int(metric.positives) else str(int(metric.positives))
    return {
        "metric": name,
        "value": _number(metric.value),
        "low": _number(metric.low),
        "high": _number(metric.high),
        "n": str(metric.n),
        "positives": positives,
        "note": "; ".join(notes),
    }


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"
