"""The door to raw data: which source reads what was given, and which schema counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from postclick.data.sources import SOURCES, Options, Source
from postclick.data.sources.inputs import Inputs, as_items
from postclick.data.sources.rating_files import RATING_LAYOUTS
from postclick.data.sources.rees46 import holds_events
from postclick.errors import ConfigError, DataError, Finding, nearest
from postclick.files import MANIFEST, read_manifest
from postclick.schema import Schema

__all__ = ["detect", "open_source"]


def open_source(
    src: Sequence[Any] | Any = (),
    *,
    key: str | None = None,
    train: Any = None,
    valid: Any = None,
    test: Any = None,
    schema: Schema | None = None,
    fields: str = "aitm",
    threshold: float | None = None,
    labels: bool = True,
    propensity: str | None = None,
) -> Source:
    """Open raw data.

    Parameters
    ----------
    src
        One body of rows (one input, or a list of them): paths, globs, folders, WORLD folders, Polars or pandas frames,
        Arrow tables, dicts of arrays.
    key
        Source key (`SOURCES`); None finds it out: raw Ali-CCP and the rating data sets by the names of their files,
        REES46 events by the names of their columns, everything else is tabular.
    train, valid, test
        The same, by role; the source is then split by its provider.
    schema
        Given, else the WORLD's ``schema.toml``, else the source's own, else inferred.
    fields
        ``aitm`` or ``full``, for raw Ali-CCP.
    threshold
        For ratings; None takes the literature's.
    labels
        False: funnel columns may be missing, and are delivered where they are there (scoring).
    propensity
        For ratings: ``popularity``, ``logistic`` or ``naive-bayes`` as the logged propensity; None logs none.

    Raises
    ------
    InputMissingError
        ``input.missing``, ``input.wrong_kind``, ``data.empty`` (exit 66).
    DataError
        ``data.schema_mismatch``, ``data.csv``, ``data.text``, ``data.corrupt_file`` (exit 65).
    ConfigError
        ``config.value``: an unknown key, a threshold or propensity for a source without ratings, inputs of several
        sources.
    """
    inputs = Inputs(as_items(src), as_items(train), as_items(valid), as_items(test))
    if inputs.src and inputs.has_roles:
        what = "rows are given both without a role and as train, valid or test"
        raise ConfigError(Finding("config.value", what, "SRC", fix="pass SRC alone, or every input with its role"))
    key = key or detect(inputs)
    if key not in SOURCES:
        near = nearest(key, SOURCES)
        fix = f"did you mean {near!r}?" if near else f"known sources: {', '.join(SOURCES)}"
        raise ConfigError(Finding("config.value", f"there is no source {key!r}", "source", fix=fix))
    if key not in RATING_LAYOUTS:
        fix = f"it concerns {', '.join(RATING_LAYOUTS)}"
        idle = [name for name, given in (("threshold", threshold), ("propensity", propensity)) if given is not None]
        problems = [
            Finding("config.value", f"the source {key} has no ratings, so no {name}", name, fix=fix) for name in idle
        ]
        if problems:
            raise ConfigError(*problems)
    if schema is None and key == "tabular":
        schema = _world_schema(inputs)
    return SOURCES[key](inputs, Options(schema, fields, threshold, labels, propensity))


def detect(inputs: Inputs) -> str:
    """Return the key of the source that reads all inputs.

    Raises
    ------
    ConfigError
        ``config.value``: inputs of several sources, or files that two data sets call alike.
    """
    keys = {_detect_one(Path(item)) if isinstance(item, str | Path) else "tabular" for _, item in inputs.by_role()}
    if len(keys) > 1:
        what = f"the inputs look like different sources: {', '.join(sorted(keys))}"
        raise ConfigError(Finding("config.value", what, "source", fix="pass them apart, or name --source"))
    return keys.pop() if keys else "tabular"


def _detect_one(path: Path) -> str:
    names = {item.name for item in path.iterdir()} if path.is_dir() else {path.name}
    if any(name.startswith("sample_skeleton_") for name in names):
        return "ali-ccp"
    if {"train.ascii", "test.ascii"} & names:
        return "coat"
    if {"big_matrix.csv", "small_matrix.csv"} & names:
        return "kuairec"
    if any(name.startswith("ydata-ymusic-rating-study") for name in names):
        return "yahoo-r3"
    ratings = {"random.txt", "random.txt.gz", "user.txt", "user.txt.gz"} & names
    if any(name.startswith("user.") for name in ratings):
        what = "user.txt may be KuaiRec's or Yahoo! R3's"
        raise ConfigError(Finding("config.value", what, str(path), fix="name --source kuairec or --source yahoo-r3"))
    if ratings:
        return "kuairec"
    return "rees46" if MANIFEST not in names and holds_events(path) else "tabular"


def _world_schema(inputs: Inputs) -> Schema | None:
    """Return the schema of the WORLD folders among the inputs; different ones are refused."""
    paths = [Path(item) for _, item in inputs.by_role() if isinstance(item, str | Path)]
    worlds = [path for path in paths if (path / MANIFEST).is_file() and read_manifest(path).kind == "world"]
    schemas = [Schema.from_toml(path / "schema.toml") for path in worlds if (path / "schema.toml").is_file()]
    if any(schema != schemas[0] for schema in schemas):
        where = " and ".join(path.name for path in worlds)
        raise DataError(Finding("data.schema_mismatch", "the worlds have different schemas", where))
    return schemas[0] if schemas else None
