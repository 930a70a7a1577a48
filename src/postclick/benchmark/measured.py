"""What a finished run is kept as: its row and the readings that comparisons need, so no run is scored twice."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick import files
from postclick.benchmark.rows import RunRow
from postclick.evaluation.names import MetricName
from postclick.evaluation.readings import Reading, readings, samples_of
from postclick.evaluation.rows import EvaluationRows
from postclick.metrics.influence import COMPARED, Influence

__all__ = ["Measured", "comparable", "read_rows"]

_SCALARS = ("derived", "undefined", "n", "positives", "clustered")


def comparable(names: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics that have a paired comparison."""
    parsed = {name: MetricName.parse(name) for name in names}
    return tuple(name for name, found in parsed.items() if found.metric in COMPARED and not found.slice)


def read_rows(rows: EvaluationRows, metrics: Sequence[str], population: str) -> dict[str, Reading]:
    """Return the readings of scored rows for those of `metrics` that can be compared."""
    names = [MetricName.parse(name) for name in comparable(metrics)]
    samples = samples_of([rows.scores], rows.labels, rows.truth, population) if names else {}
    return readings(rows.scores, samples, names)


@dataclass(frozen=True)
class Measured:
    """A run's row, and its readings by metric (none for a run of a grid)."""

    row: RunRow
    readings: Mapping[str, Reading] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write one file: some hundred kB a metric."""
        arrays: dict[str, NDArray[Any]] = {}
        for place, reading in enumerate(self.readings.values()):
            arrays |= {f"parts{place}": reading.influence.parts, f"factors{place}": reading.influence.factors}
            arrays[f"value{place}"] = np.array(reading.influence.value)
        scalars = {name: {key: getattr(one, key) for key in _SCALARS} for name, one in self.readings.items()}
        arrays["text"] = np.array(json.dumps({"row": asdict(self.row), "readings": scalars}))  # arrays go by this order
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.create(path) as handle:
            np.savez(handle, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for options

    @classmethod
    def load(cls, path: Path, only: str | None = None) -> Measured | None:
        """Read one file, or of its readings just that of a metric; None where there is none or it is damaged."""
        try:
            with path.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
                body = json.loads(str(arrays["text"]))
                found = {}
                for place, (name, scalars) in enumerate(body["readings"].items()):
                    if only in (None, name):
                        value, undefined = float(arrays[f"value{place}"]), scalars["undefined"]
                        parts, factors = arrays[f"parts{place}"], arrays[f"factors{place}"]
                        found[name] = Reading(Influence(value, parts, factors, undefined), **scalars)
                return cls(RunRow(**body["row"]), found)
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            return None  # measured anew
