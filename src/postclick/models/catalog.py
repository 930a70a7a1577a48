"""The systems by name: what they are, what their arguments are, and how to build one from plain values."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, cast, get_args

import torch

from postclick.binding import Parameter, bind, parameters, plain
from postclick.data.log import LogSpec
from postclick.errors import ConfigError, Finding, nearest
from postclick.models.base import ConversionModel
from postclick.models.systems import MODELS
from postclick.schema import Schema, SparseFeature

__all__ = ["build", "describe", "resolve_arguments"]

_WHERE = "arguments"


def describe() -> list[dict[str, Any]]:
    """Return one entry a system, as ``systems --json`` prints it.

    Each has ``key, title, paper, year, heads`` (head -> ``head`` or ``derived``, with default arguments) and
    ``arguments``: ``name, type, default, paper_value`` (None where the paper does not differ or does not say), ``doc``.
    A component's fields follow it under dotted names, the names that ``--set`` takes.
    """
    return [_describe(key, system) for key, system in MODELS.items()]


def _describe(key: str, system: type[ConversionModel]) -> dict[str, Any]:
    citation = system.citation
    schema = Schema((SparseFeature("feature"),))
    with torch.device("meta"):  # no memory, and no draw from the generators
        heads = system(LogSpec(schema, table_rows=2, rows=2.0, clicks=1.0, conversions=1.0, actions=1.0)).heads
    return {
        "key": key,
        "title": (inspect.getdoc(system) or key).splitlines()[0].rstrip("."),
        "paper": f"{citation.authors}: {citation.title}. {citation.venue} {citation.year}. {citation.link}",
        "year": citation.year,
        "heads": dict(heads),
        "arguments": list(_arguments(parameters(system))),
    }


def _arguments(found: Mapping[str, Parameter], prefix: str = "", paper: Any = None) -> Iterator[dict[str, Any]]:
    for name, parameter in found.items():
        value = parameter.argument.paper
        if value is None and isinstance(paper, Mapping):
            value = paper.get(name)
        yield {
            "name": prefix + name,
            "type": parameter.type_name,
            "default": plain(parameter.default),
            "paper_value": None if value is None else plain(value),
            "doc": parameter.argument.doc,
        }
        if dataclasses.is_dataclass(parameter.default):
            component = parameters(type(parameter.default))
            held = {key: getattr(parameter.default, key) for key in component}
            own = {key: dataclasses.replace(entry, default=held[key]) for key, entry in component.items()}
            yield from _arguments(own, f"{prefix}{name}.", value)
        elif (absent := _component(parameter.type)) is not None:
            yield from _arguments(parameters(absent), f"{prefix}{name}.", value)


def _component(kind: Any) -> type | None:
    """Return the component that an argument whose default is None would be, or None."""
    found = next((option for option in get_args(kind) if dataclasses.is_dataclass(option)), None)
    return cast("type | None", found)


def build(key: str, spec: LogSpec, arguments: Mapping[str, Any]) -> ConversionModel:
    """Return a new system with weights drawn from PyTorch's generator.

    Parameters
    ----------
    key
        A key of `MODELS`.
    spec
        What is known of the log.
    arguments
        Plain values, as TOML and ``--set`` give them.

    Raises
    ------
    ConfigError
        On an unknown system or argument (with the nearest spelling), a value of the wrong type, or one that the system
        cannot be built with.
    """
    system = _system(key)
    bound = bind(system, arguments, where=_WHERE)
    try:
        return system(spec, **bound)
    except ValueError as error:
        raise ConfigError(Finding("config.value", str(error), _WHERE)) from error


def resolve_arguments(key: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return every argument of a system as a plain value, defaults filled in: what ``config.toml`` records.

    Raises
    ------
    ConfigError
        As `build`.
    """
    system = _system(key)
    bound = bind(system, arguments, where=_WHERE)
    return {name: plain(bound.get(name, entry.default)) for name, entry in parameters(system).items()}


def _system(key: str) -> type[ConversionModel]:
    if key in MODELS:
        return MODELS[key]
    near = nearest(key, MODELS)
    fix = f"did you mean {near!r}?" if near else f"systems: {', '.join(MODELS)}"
    raise ConfigError(Finding("config.unknown_system", f"there is no system {key!r}", "system", fix=fix))
