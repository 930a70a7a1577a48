"""``model.json``: which system, built how, for which log; numbers and names, nothing that is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from math import log
from typing import Any, TypeAlias

from postclick.data.log import LogSpec
from postclick.errors import BundleError, ExitCode, Finding, TrustError
from postclick.schema import Schema

__all__ = ["BUNDLE_FORMAT", "Constant", "Header", "installed_versions"]

BUNDLE_FORMAT = 1
SpecNumber: TypeAlias = float | int | list[int] | None


def installed_versions() -> dict[str, str]:
    """Return the versions that decide what a bundle's numbers are."""
    found = {}
    for name in ("postclick", "torch", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


@dataclass(frozen=True)
class Constant:
    """A head whose training labels were of one class: the prior (positives + 1/2) / (rows + 1) for everybody."""

    positives: int
    rows: int

    @property
    def odds(self) -> float:
        """Log-odds of the prior; finite always."""
        return log(self.positives + 0.5) - log(self.rows - self.positives + 0.5)


@dataclass(frozen=True)
class Header:
    """What `model.json` holds.

    Parameters
    ----------
    system
        Key in the table of systems.
    arguments
        All arguments of the system, plain (None is ``"off"``).
    heads
        Head -> ``head`` or ``derived``.
    spec
        Numbers of the training log that the model was built from, without the schema (it has its own file).
    log
        Hash of the training log.
    constants
        Heads that are a constant prior.
    versions
        Of postclick, torch and numpy.
    """

    system: str
    arguments: Mapping[str, Any]
    heads: Mapping[str, str]
    spec: Mapping[str, SpecNumber]
    log: str
    constants: Mapping[str, Constant] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=installed_versions)

    @staticmethod
    def numbers(spec: LogSpec) -> dict[str, SpecNumber]:
        """Return the numbers of `spec`."""
        names = ("table_rows", "rows", "clicks", "conversions", "actions")
        found = {name: getattr(spec, name) for name in names}
        return found | {"field_rows": None if spec.field_rows is None else list(spec.field_rows)}

    def log_spec(self, schema: Schema) -> LogSpec:
        """Return the spec that the model is built from.

        Raises
        ------
        TrustError
            ``bundle.malformed``: its fields are not those of the schema.
        """
        numbers = dict(self.spec)
        sizes = numbers.pop("field_rows", None)
        if isinstance(sizes, list) and len(sizes) != len(schema.fields):
            what = f"field_rows has {len(sizes)} numbers, the schema {len(schema.fields)} fields"
            raise TrustError(Finding("bundle.malformed", what, "model.json"))
        field_rows = tuple(sizes) if isinstance(sizes, list) else None
        # whatever propensities it needed it had when it was trained
        return LogSpec(schema, **numbers, field_rows=field_rows, given_propensity=True)  # type: ignore[arg-type]  # checked by from_dict

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        return {
            "format": BUNDLE_FORMAT,
            "system": self.system,
            "arguments": dict(self.arguments),
            "heads": dict(self.heads),
            "spec": dict(self.spec),
            "log": self.log,
            "constants": {
                head: {"positives": constant.positives, "rows": constant.rows}
                for head, constant in self.constants.items()
            },
            "versions": dict(self.versions),
        }

    @classmethod
    def from_dict(cls, form: Any) -> Header:
        """Read the plain form.

        Raises
        ------
        BundleError
            ``bundle.version`` (exit 78) for a newer format.
        TrustError
            ``bundle.malformed`` for anything that is not a header.
        """
        try:
            if form["format"] != BUNDLE_FORMAT:
                raise _newer(form)
            return cls(
                _text(form["system"]),
                dict(form["arguments"]),
                {_text(head): _text(kind) for head, kind in form["heads"].items()},
                _spec(form["spec"]),
                _text(form["log"]),
                {_text(head): Constant(**_counts(value)) for head, value in form["constants"].items()},
                {_text(name): _text(text) for name, text in form["versions"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TrustError(Finding("bundle.malformed", f"not a header ({error!r})", "model.json")) from error


def _newer(form: Mapping[str, Any]) -> BundleError:
    what = f"this bundle has format {form['format']!r}, this postclick reads format {BUNDLE_FORMAT}"
    written = form.get("versions")
    by = written.get("postclick", "?") if isinstance(written, Mapping) else "?"
    fix = f"upgrade postclick (the bundle was written by {by})"
    return BundleError(Finding("bundle.version", what, "model.json:format", fix=fix), exit_code=ExitCode.CONFIG)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value


def _counts(value: Mapping[str, Any]) -> dict[str, int]:
    counts = {name: value[name] for name in ("positives", "rows")}
    if not all(type(count) is int for count in counts.values()) or not 0 <= counts["positives"] <= counts["rows"]:
        raise ValueError(f"expected 0 <= positives <= rows, got {counts}")
    return counts


def _spec(value: Mapping[str, Any]) -> dict[str, SpecNumber]:
    spec: dict[str, Any] = {name: value[name] for name in ("table_rows", "rows", "clicks", "conversions", "actions")}
    if type(spec["table_rows"]) is not int or not 0 <= spec["table_rows"] < 2**31:
        raise ValueError(f"table_rows {spec['table_rows']!r}")
    for name in ("rows", "clicks", "conversions"):
        spec[name] = float(spec[name])
    spec["actions"] = None if spec["actions"] is None else float(spec["actions"])
    sizes = value.get("field_rows")  # bundles of before have none
    if sizes is not None and not (isinstance(sizes, list) and all(type(size) is int and size >= 0 for size in sizes)):
        raise ValueError(f"field_rows {sizes!r}")
    if sizes is not None and sum(sizes) > spec["table_rows"]:
        raise ValueError(f"field_rows sum to {sum(sizes)}, the table has {spec['table_rows']} rows")
    return {**spec, "field_rows": sizes}
