"""Bind plain values (TOML, ``--set``) to a signature: the signature is the only source of truth for a parameter.

A parameter is annotated ``Annotated[type, Argument("what it is", paper=...)]``. A component of a paper is a frozen
dataclass argument, possibly ``| None``; its own fields are bound the same way, so ``migrator.gamma = 0.5`` reaches
into it. All mistakes are reported together, each with the likely spelling. No import paths, no eval.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from postclick.errors import ConfigError, Finding, nearest

__all__ = ["Argument", "Parameter", "bind", "dotted", "parameters", "parse_assignments", "plain"]

_MISSING = inspect.Parameter.empty


@dataclass(frozen=True)
class Argument:
    """What a parameter is: its meaning, the value the paper used where it differs, and a range for tuning."""

    doc: str
    paper: Any = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Parameter:
    """One parameter of a signature, resolved."""

    name: str
    type: Any
    default: Any
    argument: Argument

    @property
    def type_name(self) -> str:
        """The type in words, as `systems --json` prints it."""
        return _type_name(self.type)


def _type_name(kind: Any) -> str:
    if kind is type(None):
        return "None"
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return " | ".join(_type_name(part) for part in get_args(kind))
    if origin is Literal:
        return " | ".join(repr(value) for value in get_args(kind))
    if origin is tuple:
        return f"list of {_type_name(get_args(kind)[0])}"
    return getattr(kind, "__name__", str(kind))


def parameters(target: Callable[..., Any], skip: tuple[str, ...] = ("self", "spec")) -> dict[str, Parameter]:
    """Return the parameters of a class or function by name, with type, default and documentation."""
    function = target.__init__ if inspect.isclass(target) else target
    # a dataclass's own hints: its __init__ would look names of a base from another module up in its own
    hints = typing.get_type_hints(target if dataclasses.is_dataclass(target) else function, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in skip:
            continue
        kind, argument = hints.get(name, Any), Argument("")
        if get_origin(kind) is Annotated:
            kind, *extras = get_args(kind)
            argument = next((extra for extra in extras if isinstance(extra, Argument)), argument)
        default = parameter.default
        if default is _MISSING or type(default).__name__ == "_HAS_DEFAULT_FACTORY_CLASS":
            default = _factory_default(target, name)
        found[name] = Parameter(name, kind, default, argument)
    return found


def _factory_default(target: Any, name: str) -> Any:
    if dataclasses.is_dataclass(target):
        for entry in dataclasses.fields(target):
            if entry.name == name and entry.default_factory is not dataclasses.MISSING:
                return entry.default_factory()
    return _MISSING


def bind(target: Callable[..., Any], values: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Check and convert `values` against the signature of `target`; returns keyword arguments.

    Raises
    ------
    ConfigError
        Naming every unknown key (with the nearest spelling) and every value of the wrong type at once.
    """
    problems: list[Finding] = []
    bound = _bind(target, values, where, problems)
    if problems:
        raise ConfigError(*problems)
    return bound


def _bind(target: Callable[..., Any], values: Mapping[str, Any], where: str, problems: list[Finding]) -> dict[str, Any]:
    known = parameters(target)
    bound = {}
    for key, value in values.items():
        place = f"{where}.{key}" if where else key
        if key not in known:
            problems.append(unknown_key(place, key, known))
            continue
        bound[key] = _convert(value, known[key].type, known[key].default, place, problems)
    return bound


def unknown_key(place: str, key: str, known: Mapping[str, Any]) -> Finding:
    """Return the finding for an unknown key, with the likely spelling."""
    near = nearest(key, known)
    fix = f"did you mean {near!r}?" if near else f"known names: {', '.join(sorted(known))}"
    return Finding("config.unknown_key", f"there is no {key!r}", place, fix=fix)


def _convert(value: Any, kind: Any, default: Any, place: str, problems: list[Finding]) -> Any:
    origin, options = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, options, default, place, problems)
    if origin is Literal:
        return value if value in options else _wrong(value, kind, place, problems)
    if dataclasses.is_dataclass(kind):
        return _convert_component(value, kind, default, place, problems)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(
            _convert(item, options[0], _MISSING, f"{place}[{index}]", problems) for index, item in enumerate(value)
        )
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    return _wrong(value, kind, place, problems)


def _convert_union(value: Any, options: tuple[Any, ...], default: Any, place: str, problems: list[Finding]) -> Any:
    if value is None or (value == "off" and type(None) in options):
        return None if type(None) in options else _wrong(value, _union(options), place, problems)
    first: list[Finding] = []
    for option in options:
        attempt: list[Finding] = []
        if option is type(None):
            continue
        result = _convert(value, option, default, place, attempt)
        if not attempt:
            return result
        first = first or attempt
    problems.extend(first if isinstance(value, Mapping) else [])
    fix = next((fix for option in options if (fix := _part_of(option, value, place))), "")
    return value if isinstance(value, Mapping) and first else _wrong(value, _union(options), place, problems, fix)


def _part_of(kind: Any, value: Any, place: str) -> str:
    """Return the way out where the value of one part was given for a whole component: ``--set interaction=fm``."""
    if not (isinstance(value, str) and dataclasses.is_dataclass(kind) and isinstance(kind, type)):
        return ""
    for name, entry in parameters(kind).items():
        if get_origin(entry.type) is Literal and value in get_args(entry.type):
            return f"did you mean {place.rpartition('.')[2]}.{name} = {value!r}?"
    return ""


def _union(options: tuple[Any, ...]) -> Any:
    return functools.reduce(operator.or_, options)


def _convert_component(value: Any, kind: Any, default: Any, place: str, problems: list[Finding]) -> Any:
    if isinstance(value, kind):
        return value
    if value == "on":
        value = {}
    if not isinstance(value, Mapping):
        return _wrong(value, kind, place, problems)
    before = len(problems)
    bound = _bind(kind, value, place, problems)
    if len(problems) > before:
        return value
    try:
        return dataclasses.replace(default, **bound) if isinstance(default, kind) else kind(**bound)
    except (TypeError, ValueError) as error:
        problems.append(Finding("config.value", str(error), place))
        return value


def _wrong(value: Any, kind: Any, place: str, problems: list[Finding], fix: str = "") -> Any:
    what = f"expected {_type_name(kind)}, got {type(value).__name__} {value!r}"
    problems.append(Finding("config.value", what, place, fix=fix))
    return value


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """Turn ``name=value`` texts into a nested dict: values are TOML, bare words are strings, ``off`` is None.

    Raises
    ------
    ConfigError
        Where a text has no ``=`` or a name is set twice.
    """
    import tomllib

    nested: dict[str, Any] = {}
    for text in assignments:
        name, equals, raw = text.partition("=")
        if not equals or not name.strip():
            raise ConfigError(Finding("config.value", f"expected name=value, got {text!r}", "--set"))
        try:
            value = tomllib.loads(f"value = {raw}")["value"]
        except tomllib.TOMLDecodeError:
            value = raw.strip()
        node = nested
        *parents, leaf = name.strip().split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(Finding("config.value", f"{parent!r} is set both whole and in part", "--set"))
        if leaf in node:
            raise ConfigError(Finding("config.value", f"{name!r} is set twice", "--set"))
        node[leaf] = None if value == "off" else value
    return nested


def plain(value: Any) -> Any:
    """Return a value as TOML and JSON can hold it: dataclasses as dicts, tuples as lists, None as ``"off"``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return "off" if value is None else value


def dotted(form: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested tables by dotted name, in their order: what `parse_assignments` undoes."""
    found: dict[str, Any] = {}
    for name, value in form.items():
        found |= dotted(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found
