"""What the columns of an exposure log mean: the vocabulary that all floors share."""

from __future__ import annotations

import dataclasses
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from postclick.binding import bind, unknown_key
from postclick.errors import ConfigError, ExitCode, Finding, InputMissingError, SchemaError, nearest
from postclick.schema.features import (
    KINDS,
    DenseFeature,
    EmbeddingFeature,
    Feature,
    SequenceFeature,
    SparseFeature,
)
from postclick.schema.keep_rates import KeepRates

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Columns", "Schema"]

SCHEMA_FORMAT = 1
_SETTINGS = ("time_unit", "clock_tolerance", "attribution_window", "immature")


@dataclass(frozen=True)
class Columns:
    """The columns of the funnel and what comes with it; only `click` and `conversion` are required.

    Parameters
    ----------
    click, conversion
        Labels 0/1 on every exposure.
    action
        In-shop action after the click, 0/1.
    exposure_id, user_id, item_id
        Identities; without an exposure id, file and row number serve. `user_id` clusters the intervals.
    time
        Time of the exposure; number (see `time_unit`) or timestamp.
    click_time, conversion_time, observed_until
        For delayed conversions.
    time_unit
        Unit of numeric times.
    clock_tolerance
        Seconds by which a click may lie before its exposure, or a conversion before its click, by clocks that differ.
    attribution_window
        Seconds after the click (where there is no click time: after the exposure) in which a conversion counts;
        with `observed_until` it says which clicks without conversion are final.
    immature
        Clicks whose window was still open at `observed_until`: ``refuse`` the data, ``censor`` the label, so that it is
        neither 0 nor 1, or count it as ``negative``, which it may not stay: rates come out too low.
    sample_weight
        Weight of the row in losses and metrics.
    propensity
        Logged propensity in (0, 1].
    randomised
        0/1: the exposure was chosen at random; the population ``@random``.
    value, bid, campaign
        For values of conversions and slices by campaign.
    """

    click: str = "click"
    conversion: str = "conversion"
    action: str | None = None
    exposure_id: str | None = None
    user_id: str | None = None
    item_id: str | None = None
    time: str | None = None
    click_time: str | None = None
    conversion_time: str | None = None
    observed_until: str | None = None
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    clock_tolerance: float = 0.0
    attribution_window: float | None = None
    immature: Literal["refuse", "censor", "negative"] = "refuse"
    sample_weight: str | None = None
    propensity: str | None = None
    randomised: str | None = None
    value: str | None = None
    bid: str | None = None
    campaign: str | None = None

    def named(self) -> dict[str, str]:
        """Return role -> column name of the roles that are set, in declaration order."""
        pairs = (
            (entry.name, getattr(self, entry.name)) for entry in dataclasses.fields(self) if entry.name not in _SETTINGS
        )
        return {role: name for role, name in pairs if name is not None}


@dataclass(frozen=True)
class Schema:
    """Features and funnel columns of a log.

    Parameters
    ----------
    features
        In the order of the model's input.
    columns
        The funnel and its company.
    population
        ``exposure``: rows are exposures. ``click``: rows are all clicks (CTR is 1 by definition, metrics over exposures
        are undefined).
    keep_rates
        Of a log that was down-sampled before it came here.

    Raises
    ------
    SchemaError
        Duplicate features, a label used as feature, no feature at all, a target that is none: all reported together.
    """

    features: tuple[Feature, ...]
    columns: Columns = field(default_factory=Columns)
    population: Literal["exposure", "click"] = "exposure"
    keep_rates: KeepRates = field(default_factory=KeepRates)

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        problems = _problems(self)
        if problems:
            # a label among the features is a fault of the data in TRUST's catalogue (D15), whoever wrote the schema
            leak = ExitCode.DATA if problems[0].code == "data.leakage" else None
            raise SchemaError(*problems, exit_code=leak)

    @property
    def sparse(self) -> tuple[SparseFeature, ...]:
        """The sparse features in order."""
        return tuple(feature for feature in self.features if isinstance(feature, SparseFeature))

    @property
    def dense(self) -> tuple[DenseFeature, ...]:
        """The dense features in order."""
        return tuple(feature for feature in self.features if isinstance(feature, DenseFeature))

    @property
    def sequences(self) -> tuple[SequenceFeature, ...]:
        """The sequence features in order."""
        return tuple(feature for feature in self.features if isinstance(feature, SequenceFeature))

    @property
    def embeddings(self) -> tuple[EmbeddingFeature, ...]:
        """The embedding features in order."""
        return tuple(feature for feature in self.features if isinstance(feature, EmbeddingFeature))

    @property
    def fields(self) -> tuple[SparseFeature | SequenceFeature, ...]:
        """The features that own rows of the fused table, sparse ones first; field f's unknown row is f."""
        return (*self.sparse, *self.sequences)

    @property
    def targets(self) -> tuple[int | None, ...]:
        """One a sequence feature: the place in `sparse` of what its values are held against; None without attention."""
        places = {feature.name: place for place, feature in enumerate(self.sparse)}
        return tuple(
            places[_target(self, feature) or ""] if feature.pooling == "target-attention" else None
            for feature in self.sequences
        )

    def raw_columns(self) -> tuple[str, ...]:
        """Return every column name that a source must deliver, once each."""
        names = list(self.columns.named().values())
        for feature in self.features:
            names.append(feature.name)
            if isinstance(feature, SequenceFeature) and feature.weights:
                names.append(feature.weights)
        return tuple(dict.fromkeys(names))

    @classmethod
    def infer(cls, source: str | Path | pa.Table | Any, *, rows: int = 20_000) -> Schema:
        """Propose a schema from the first `rows` rows of a file, a folder, a glob, a frame or a table.

        The proposal is a starting point: print it (`to_toml`), read it, keep it in a file.
        """
        from postclick.schema.inference import infer

        return infer(source, rows=rows)

    @classmethod
    def from_dict(cls, value: dict[str, Any], *, where: str = "schema") -> Schema:
        """Build a schema from the plain form that TOML holds; all mistakes in one message, with the likely spelling."""
        problems: list[Finding] = []
        known = {"format", "population", "keep_rates", "columns", "feature"}
        problems += [unknown_key(f"{where}.{key}", key, dict.fromkeys(known)) for key in value if key not in known]
        if value.get("format", SCHEMA_FORMAT) != SCHEMA_FORMAT:
            what = f"format {value['format']!r} is not {SCHEMA_FORMAT}"
            problems.append(Finding("schema.version", what, f"{where}.format", fix="upgrade postclick"))
        if value.get("population", "exposure") not in ("exposure", "click"):
            what = f"expected 'exposure' or 'click', got {value['population']!r}"
            problems.append(Finding("config.value", what, f"{where}.population"))
        columns = _collect(problems, Columns, value.get("columns", {}), f"{where}.columns")
        keep_rates = _collect(problems, KeepRates, value.get("keep_rates", {}), f"{where}.keep_rates")
        features = [
            _feature(item, f"{where}.feature[{index}]", problems) for index, item in enumerate(value.get("feature", []))
        ]
        if problems:
            raise SchemaError(*problems)
        population = cast(Literal["exposure", "click"], value.get("population", "exposure"))
        return cls(tuple(item for item in features if item is not None), columns or Columns(), population, keep_rates)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form; defaults and unset roles are left out."""
        names = {kind: name for name, kind in KINDS.items()}
        columns: dict[str, Any] = dict(self.columns.named())
        for entry in dataclasses.fields(Columns):
            if entry.name in _SETTINGS and (value := getattr(self.columns, entry.name)) != entry.default:
                columns[entry.name] = value
        features = [{"name": item.name, "kind": names[type(item)], **_changed(item)} for item in self.features]
        rates = {} if self.keep_rates.whole else {"keep_rates": dataclasses.asdict(self.keep_rates)}
        return {
            "format": SCHEMA_FORMAT,
            "population": self.population,
            **rates,
            "columns": columns,
            "feature": features,
        }

    @classmethod
    def from_toml(cls, path: str | Path) -> Schema:
        """Read a schema from a TOML file."""
        try:
            text = Path(path).read_text("utf-8")
        except OSError as error:
            raise InputMissingError(Finding("input.missing", "cannot read the schema", str(path))) from error
        try:
            value = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SchemaError(Finding("schema.toml", str(error), str(path))) from error
        return cls.from_dict(value, where=Path(path).name)

    def to_toml(self) -> str:
        """Return the schema as TOML text; reading it back gives an equal schema."""
        import tomli_w

        plain = self.to_dict()
        tables = [f"[[feature]]\n{tomli_w.dumps(feature)}" for feature in plain.pop("feature")]
        return "\n".join([tomli_w.dumps(plain), *tables])


def _changed(feature: Feature) -> dict[str, Any]:
    changed = {}
    for entry in dataclasses.fields(feature):
        value = getattr(feature, entry.name)
        keep = entry.name == "side" or (entry.name != "name" and value != entry.default)
        if keep and value is not None:
            changed[entry.name] = value
    return changed


def _collect(problems: list[Finding], kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        problems.append(Finding("config.value", f"expected a table, got {value!r}", where))
        return None
    try:
        return kind(**bind(kind, value, where=where))
    except ConfigError as error:
        problems.extend(error.findings)
    except (TypeError, ValueError) as error:
        problems.append(Finding("config.value", str(error).replace("__init__()", "it is"), where))
    return None


def _feature(value: Any, where: str, problems: list[Finding]) -> Feature | None:
    if not isinstance(value, dict) or "name" not in value or "kind" not in value:
        problems.append(Finding("config.value", "a feature needs 'name' and 'kind'", where))
        return None
    kind = KINDS.get(value["kind"])
    if kind is None:
        near = nearest(str(value["kind"]), KINDS)
        fix = f"did you mean {near!r}?" if near else f"known kinds: {', '.join(KINDS)}"
        problems.append(Finding("config.value", f"there is no kind {value['kind']!r}", f"{where}.kind", fix=fix))
        return None
    rest = {key: item for key, item in value.items() if key != "kind"}
    return cast("Feature | None", _collect(problems, kind, rest, where))


def _problems(schema: Schema) -> list[Finding]:
    problems = []
    names = [feature.name for feature in schema.features]
    if not names:
        problems.append(Finding("schema.no_feature", "a schema needs at least one feature", "schema.feature"))
    for name, count in Counter(names).items():
        if count > 1:
            problems.append(
                Finding("schema.duplicate", f"feature {name!r} is declared {count} times", "schema.feature")
            )
    roles = schema.columns.named()
    for column, count in Counter(roles.values()).items():
        if count > 1:
            taken = [role for role, name in roles.items() if name == column]
            problems.append(
                Finding("schema.duplicate", f"{' and '.join(taken)} share column {column!r}", "schema.columns")
            )
    times = schema.columns
    if times.clock_tolerance < 0:
        what = f"expected 0 or more seconds, got {times.clock_tolerance}"
        problems.append(Finding("config.value", what, "schema.columns.clock_tolerance"))
    if times.attribution_window is not None and times.attribution_window <= 0:
        what = f"expected more than 0 seconds, got {times.attribution_window}"
        problems.append(Finding("config.value", what, "schema.columns.attribution_window"))
    if schema.population == "click" and schema.keep_rates.unclicked != 1.0:
        what = "a log of clicks has no rows without click, so there is no rate to keep them at"
        problems.append(Finding("config.value", what, "schema.keep_rates.unclicked"))
    outcomes = ("click", "conversion", "action", "click_time", "conversion_time", "observed_until", "value")
    for role in outcomes:
        if role in roles and roles[role] in names:
            what = f"{roles[role]!r} is the {role} and cannot be a feature"
            problems.append(Finding("data.leakage", what, "schema.feature", fix="drop the feature"))
    return problems + [problem for item in schema.sequences if (problem := _target_problem(schema, item))]


def _target(schema: Schema, feature: SequenceFeature) -> str | None:
    return feature.target or schema.columns.item_id


def _target_problem(schema: Schema, feature: SequenceFeature) -> Finding | None:
    where = f"schema.feature.{feature.name}.target"
    if feature.pooling != "target-attention":
        if feature.target is None:
            return None
        what = f"pooling {feature.pooling!r} has no target"
        return Finding("schema.target", what, where, fix="pooling = 'target-attention', or drop the target")
    known = [item.name for item in schema.sparse]
    target = _target(schema, feature)
    if target in known:
        return None
    if feature.target is None:
        held = "there is no item_id" if target is None else f"item_id {target!r} is no sparse feature"
        what = f"target attention needs a sparse feature to hold the values against: no target is named, and {held}"
        names = f" (one of {', '.join(known[:8])})" if known else ""
        return Finding("schema.target", what, where, fix=f"target = the name of the candidate's sparse feature{names}")
    near = nearest(feature.target, known)
    fix = f"did you mean {near!r}?" if near else f"sparse features: {', '.join(known[:8]) or 'none'}"
    return Finding("schema.target", f"{feature.target!r} is no sparse feature", where, fix=fix)
