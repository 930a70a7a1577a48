"""What may be searched for a system, read off the signatures."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import torch

from postclick.binding import Parameter, parameters
from postclick.data.log import LogSpec
from postclick.errors import ConfigError
from postclick.models.catalog import build
from postclick.models.systems import MODELS
from postclick.run import RunConfig
from postclick.training.config import TrainingConfig

if TYPE_CHECKING:
    import optuna

__all__ = ["Choice", "Range", "Space", "buildable", "space", "with_settings"]

TRAINING = ("learning_rate", "l2", "batch_size")
"""Settings of the training that are searched; the others cost time (epochs) or change what is asked (stop_on)."""
_LOG_FROM = 8.0
"""From this ratio of its ends on, a range is searched by its logarithm."""
_DECADES = 1e-2
"""A range from 0 is searched from this share of its default on, by its logarithm."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both ends in it; `log`: evenly by their logarithm."""

    low: float
    high: float
    whole: bool = False
    log: bool = False

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """Ask for a value."""
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def distribution(self) -> optuna.distributions.BaseDistribution:
        """Return Optuna's own form."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def holds(self, value: Any) -> bool:
        """Return whether a value lies in it."""
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """Ask for a value."""
        return trial.suggest_categorical(name, self.values)

    def distribution(self) -> optuna.distributions.BaseDistribution:
        """Return Optuna's own form."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def holds(self, value: Any) -> bool:
        """Return whether a value is among them."""
        return value in self.values


Space = Mapping[str, Range | Choice]


def space(system: str, fixed: Sequence[str] = ()) -> dict[str, Range | Choice]:
    """Return what may be searched for a system, by the names that ``--set`` takes.

    Parameters
    ----------
    system
        Key of the table of systems.
    fixed
        Names that the user set: they, and what lies in them, are not searched.
    """
    found = dict(_searchable(parameters(MODELS[system])))
    found |= {f"training.{name}": value for name, value in _searchable(parameters(TrainingConfig)) if name in TRAINING}
    return {name: value for name, value in found.items() if not any(f"{name}.".startswith(f"{own}.") for own in fixed)}


def _searchable(found: Mapping[str, Parameter], prefix: str = "") -> Iterator[tuple[str, Range | Choice]]:
    for name, parameter in found.items():
        if dataclasses.is_dataclass(parameter.default):
            held = parameters(type(parameter.default))
            own = {key: dataclasses.replace(one, default=getattr(parameter.default, key)) for key, one in held.items()}
            yield from _searchable(own, f"{prefix}{name}.")
            continue
        options = _options(parameter)
        if options is not None:
            yield prefix + name, options


def _options(parameter: Parameter) -> Range | Choice | None:
    """Return what a parameter's type and declared range allow; None where they say nothing."""
    kind, argument, default = parameter.type, parameter.argument, parameter.default
    if kind is bool:
        return Choice((False, True))
    if get_origin(kind) is Literal and len(get_args(kind)) > 1:
        return Choice(get_args(kind))
    bare = kind in (int, float) or (get_origin(kind) in (Union, types.UnionType) and default is not None)
    if argument.low is None or argument.high is None or not bare or not isinstance(default, int | float):
        return None
    low, high, whole = argument.low, argument.high, isinstance(default, int)
    if not whole and low == 0.0 and 0.0 < default < high / 10.0:
        low = default * _DECADES
    return Range(low, high, whole, log=low > 0.0 and high / low >= _LOG_FROM)


def buildable(found: Space, config: RunConfig, spec: LogSpec) -> dict[str, Range | Choice]:
    """Return the part of a space that a system can be built with on a log, one setting at a time over `config`.

    A choice that the log has no column for, for instance, is refused by every system, so it is no part of a search.
    """
    kept: dict[str, Range | Choice] = {}
    for name, one in found.items():
        tried = one.values if isinstance(one, Choice) else (one.low, one.high)
        cast = int if isinstance(one, Range) and one.whole else None
        good = tuple(value for value in tried if _builds(config, {name: cast(value) if cast else value}, spec))
        if isinstance(one, Choice) and len(good) > 1:
            kept[name] = Choice(good)
        elif isinstance(one, Range) and len(good) == len(tried):
            kept[name] = one
    return kept


def _builds(config: RunConfig, settings: Mapping[str, Any], spec: LogSpec) -> bool:
    try:
        made = with_settings(config, settings)
        with torch.device("meta"):  # no memory, no draw
            build(made.system, spec, made.arguments)
    except ConfigError:
        return False
    return True


def with_settings(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """Return the configuration with `settings` over it."""
    form = config.to_dict()
    for name, value in settings.items():
        *parents, leaf = name.split(".")
        table = form if parents[:1] == ["training"] else form["arguments"]
        for parent in parents:
            table = table[parent]
        table[leaf] = value
    return RunConfig.from_dict(form)
