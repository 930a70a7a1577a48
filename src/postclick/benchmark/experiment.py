"""What an experiment file says: data, runs, seeds, grid, table; read whole, all mistakes together.

The sections of the file, with an example, are in `docs/experiments.md`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np

from postclick.binding import Argument, bind, dotted, unknown_key
from postclick.data.options import PrepareOptions
from postclick.errors import ConfigError, Finding, nearest
from postclick.evaluation.names import MetricName
from postclick.run import RunConfig
from postclick.run.config import read_toml

__all__ = ["ORACLE", "DataSpec", "Experiment", "Grid", "RunSpec", "Seeds", "TableSpec"]

_SHARED = ("arguments", "training", "calibration")
_SECTIONS = ("data", "split", *_SHARED, "run", "seeds", "grid", "table")
DEFAULT_METRICS = ("ctr/auc@exposure", "cvr/auc@click", "ctcvr/auc@exposure", "ctcvr/logloss@exposure")
ORACLE = "oracle"
"""The row of the true probabilities of a world: the ceiling of its table."""
Section = TypeVar("Section")


@dataclass(frozen=True)
class DataSpec:
    """Where rows come from: a world with its knobs, or a source with its path.

    Parameters
    ----------
    world, set, exposures, seed
        As `postclick simulate` takes them.
    source, path, fields, threshold, propensity
        As `postclick prepare` takes them; without `path` the entry is skipped unless ``--data NAME=PATH`` gives it.
    split
        Split rule of these rows where it differs from the table ``[split]``.
    """

    world: Annotated[str | None, Argument("preset of the world")] = None
    set: Annotated[Any, Argument("knobs of the world")] = None
    exposures: Annotated[int, Argument("rows of the world")] = 200_000
    seed: Annotated[int, Argument("seed of the world")] = 0
    source: Annotated[str | None, Argument("format of the raw data")] = None
    path: Annotated[str | None, Argument("where the raw data is, or a LOG")] = None
    fields: Annotated[str, Argument("columns of Ali-CCP: aitm or full")] = "aitm"
    threshold: Annotated[float | None, Argument("smallest rating that is a conversion")] = None
    propensity: Annotated[str | None, Argument("estimate of P(rated) that is logged, of ratings")] = None
    split: Annotated[str | None, Argument("split rule of these rows")] = None

    def __post_init__(self) -> None:
        if (self.world is None) == (self.source is None and self.path is None):
            raise ValueError("give a world, or a source or path: one of the two")


@dataclass(frozen=True)
class RunSpec:
    """One row of the table: a system and its settings (plain names: arguments; ``training.X``, ``calibration.X``)."""

    system: Annotated[str, Argument("key of the system")]
    label: Annotated[str, Argument("name in the table")] = ""
    set: Annotated[Any, Argument("settings")] = None
    grid: Annotated[Any, Argument("grid of this run over that of [grid]: name -> values")] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.label or self.system)


@dataclass(frozen=True)
class Seeds:
    """Seeds of the training: `values`, or 0 to `count` - 1."""

    count: Annotated[int, Argument("how many, from 0")] = 5
    values: Annotated[tuple[int, ...], Argument("the seeds themselves")] = ()

    def __post_init__(self) -> None:
        if not self.values:
            object.__setattr__(self, "values", tuple(range(self.count)))
        if not self.values or min(self.values) < 0 or len(set(self.values)) != len(self.values):
            raise ValueError("seeds are different integers of at least 0, one at least")


@dataclass(frozen=True)
class Grid:
    """What every run is tuned over, and by what.

    Parameters
    ----------
    over
        Setting -> values.
    select_on
        ``valid``, the only split that may choose; the test split never does.
    metric
        A metric of that split to choose by; None chooses by the validation loss of the run's own early stopping.
    trials
        Settings tried a run at most, spread evenly over all combinations; 0 tries all.
    seeds
        How many of the seeds each setting is tried with.
    """

    over: Annotated[Any, Argument("setting -> values")] = None
    select_on: Annotated[Literal["valid"], Argument("what chooses")] = "valid"
    metric: Annotated[str | None, Argument("metric of the split to choose by; none: the validation loss")] = None
    trials: Annotated[int, Argument("settings a run at most; 0: all")] = 0
    seeds: Annotated[int, Argument("seeds a setting")] = 1

    def __post_init__(self) -> None:
        over = dict(self.over or {})
        if any(not isinstance(values, list) or not values for values in over.values()):
            raise ValueError("grid.over gives each setting a list of values")
        if self.trials < 0 or self.seeds < 1:
            raise ValueError("trials is at least 0, seeds at least 1")
        if self.metric is not None:
            MetricName.parse(self.metric)
        object.__setattr__(self, "over", over)

    def settings(self, own: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        """Return the settings to try for a run whose own grid is `own`; one empty setting where there is no grid."""
        over = {**self.over, **(own or {})}
        combined = [dict(zip(over, values, strict=True)) for values in itertools.product(*over.values())]
        if self.trials and len(combined) > self.trials:
            # evenly over a fixed shuffle: a plain stride would always pair the same values
            order = np.random.default_rng(0).permutation(len(combined))[: self.trials]
            combined = [combined[index] for index in sorted(order)]
        return combined


@dataclass(frozen=True)
class TableSpec:
    """What is shown: metrics as columns, runs as rows, one table a data set.

    Parameters
    ----------
    rows, columns
        ``run`` and ``metric``, or the other way round.
    metrics
        Full names.
    baseline
        Label that the others are compared with; None: no comparison.
    split
        Split that is judged.
    """

    rows: Annotated[Literal["run", "metric"], Argument("what a row is")] = "run"
    columns: Annotated[Literal["run", "metric"], Argument("what a column is")] = "metric"
    metrics: Annotated[tuple[str, ...], Argument("full names of metrics")] = DEFAULT_METRICS
    baseline: Annotated[str | None, Argument("label compared against")] = None
    split: Annotated[str, Argument("split that is judged")] = "test"

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", tuple(self.metrics))
        for name in self.metrics:
            MetricName.parse(name)
        if self.rows == self.columns:
            raise ValueError("rows and columns are run and metric, one each")


@dataclass(frozen=True)
class Experiment:
    """An experiment file, checked.

    Parameters
    ----------
    data
        Name -> where its rows come from.
    runs
        Rows of the table.
    split
        Settings of `prepare` for all data.
    shared
        ``arguments``, ``training`` and ``calibration`` that all runs share; a run's own win.
    seeds, grid, table
        As their classes say.

    Raises
    ------
    ConfigError
        Everything that is wrong with the file, together.
    """

    data: Mapping[str, DataSpec]
    runs: tuple[RunSpec, ...]
    split: Mapping[str, Any] = field(default_factory=dict)
    shared: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seeds: Seeds = Seeds()
    grid: Grid = Grid()
    table: TableSpec = TableSpec()

    @classmethod
    def from_toml(cls, path: str | Path) -> Experiment:
        """Read an experiment file."""
        return cls.from_dict(read_toml(Path(path)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Experiment:
        """Build from the plain form."""
        problems = [unknown_key(key, key, dict.fromkeys(_SECTIONS)) for key in values if key not in _SECTIONS]

        def part(kind: Callable[..., Section], table: Any, where: str) -> Section | None:
            return _collect(problems, lambda: _built(kind, table, where))

        data = {name: part(DataSpec, entry, f"data.{name}") for name, entry in values.get("data", {}).items()}
        runs = [part(RunSpec, entry, f"run[{index}]") for index, entry in enumerate(values.get("run", []))]
        seeds = part(Seeds, values.get("seeds", {}), "seeds")
        grid = part(Grid, values.get("grid", {}), "grid")
        table = part(TableSpec, values.get("table", {}), "table")
        split = values.get("split", {})
        part(PrepareOptions, split, "split")
        shared = {name: values.get(name, {}) for name in _SHARED}
        for name, table_of_all in shared.items():
            if not isinstance(table_of_all, Mapping):
                problems.append(Finding("config.value", f"expected a table, got {table_of_all!r}", name))
        if not data:
            problems.append(Finding("config.value", "no data", "data", fix="add a table [data.NAME]"))
        if not runs:
            problems.append(Finding("config.value", "no runs", "run", fix="add a table [[run]]"))
        if problems or seeds is None or grid is None or table is None:
            raise ConfigError(*problems)
        sound_data = {name: entry for name, entry in data.items() if entry is not None}
        sound_runs = tuple(entry for entry in runs if entry is not None)
        made = cls(sound_data, sound_runs, split, shared, seeds, grid, table)
        problems += made._problems()
        if problems:
            raise ConfigError(*problems)
        return made

    def _problems(self) -> Iterator[Finding]:
        labels = [run.label for run in self.runs]
        for label in {label for label in labels if labels.count(label) > 1}:
            yield Finding("config.value", f"two runs are called {label!r}", "run", fix="give each its own label")
        if ORACLE in labels:
            what = f"{ORACLE!r} is the row of a world's true probabilities"
            yield Finding("config.value", what, "run", fix="give the run another label")
        baseline = self.table.baseline
        if baseline is not None and baseline not in labels:
            near = nearest(baseline, labels)
            fix = f"did you mean {near!r}?" if near else f"labels: {', '.join(labels)}"
            yield Finding("config.value", f"no run is called {baseline!r}", "table.baseline", fix=fix)
        for run in self.runs:
            for setting in self.grid.settings(run.grid):
                try:
                    self.config(run, setting, seed=0)
                except ConfigError as error:
                    for found in error.findings:
                        yield Finding(found.code, found.what, f"run {run.label}: {found.where}", fix=found.fix)
                    break

    def config(self, run: RunSpec, setting: Mapping[str, Any], *, seed: int) -> RunConfig:
        """Return the configuration of one run with one setting of the grid.

        Runs train on one thread unless the file says otherwise: many are made at once, and bits follow the threads.
        """
        values: dict[str, Any] = {"training": {"threads": 1}}
        for section in _SHARED:
            values.setdefault(section, {})
            for name, value in dotted(self.shared.get(section, {})).items():
                _put(values, [section, *name.split(".")], None if value == "off" else value)
        for name, value in [*dotted(run.set or {}).items(), *setting.items()]:
            head, _, rest = name.partition(".")
            place = [head, *rest.split(".")] if head in ("training", "calibration") else ["arguments", *name.split(".")]
            _put(values, place, None if value == "off" else value)
        return RunConfig.from_dict({"system": run.system, "seed": seed, **values})


def _put(values: dict[str, Any], place: list[str], value: Any) -> None:
    for name in place[:-1]:
        inner = values.setdefault(name, {})
        if not isinstance(inner, dict):
            inner = values[name] = {}
        values = inner
    values[place[-1]] = value


def _built(kind: Callable[..., Section], table: Any, where: str) -> Section:
    if not isinstance(table, Mapping):
        raise ConfigError(Finding("config.value", f"expected a table, got {table!r}", where))
    try:
        return kind(**bind(kind, table, where=where))
    except (TypeError, ValueError) as error:
        raise ConfigError(Finding("config.value", str(error), where)) from error


def _collect(problems: list[Finding], make: Callable[[], Section]) -> Section | None:
    try:
        return make()
    except ConfigError as error:
        problems += error.findings
        return None
