"""``postclick inspect``: what a path is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postclick.cli.options import FieldChoice, FieldSet, Json, Quiet, SchemaFile, SourceKey, Threshold
from postclick.cli.output import Output, table
from postclick.errors import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["inspect"]


def inspect(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A WORLD, LOG, RUN or BUNDLE, a file, a folder, a glob.")],
    source: SourceKey = None,
    fields: FieldChoice = FieldSet.AITM,
    threshold: Threshold = None,
    schema: SchemaFile = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what a path is: a WORLD, LOG, RUN or BUNDLE with its numbers, or raw data with its schema and an audit.

    For raw data stdout is a schema in TOML; the reasons and the audit are comments in it, so it can be kept in a file,
    corrected, and given to prepare.

    Example: postclick inspect rows.parquet > schema.toml

    Next: postclick prepare rows.parquet --schema schema.toml --out log
    """
    from postclick import files

    output = Output(as_json, quiet)
    kind = files.read_manifest(Path(path)).kind if (Path(path) / files.MANIFEST).is_file() else "raw"
    if kind in _FOLDERS:
        value, parts = _FOLDERS[kind](Path(path))
        hashed = files.read_manifest(Path(path)).hash
        output.result(
            {"kind": kind, "path": path, "hash": hashed, **value}, f"{path} is a {kind.upper()} {hashed}", *parts
        )
        return
    value, parts = _raw(path, source, fields.value, threshold, schema)
    output.result({"kind": "raw", "path": path, **value}, *parts)
    output.note(
        f"next: postclick inspect {path} > schema.toml, correct it, then postclick prepare {path} --schema schema.toml"
    )


def _world(path: Path) -> tuple[dict[str, Any], list[RenderableType]]:
    from postclick.cli.world_report import world_form, world_parts
    from postclick.simulation import World

    form = world_form(World.open(path))
    return form, world_parts(form)


def _log(path: Path) -> tuple[dict[str, Any], list[RenderableType]]:
    from postclick import files
    from postclick.cli.tables import ledger_parts
    from postclick.data.audit import audit_lines
    from postclick.data.log import ExposureLog

    log = ExposureLog(path)
    audit = files.read_json(path / "audit.json")
    value = {"ledger": log.ledger, "schema": log.schema.to_dict(), "simulated": (path / "truth.arrow").is_file()}
    value["audit"] = audit
    kinds = ("sparse", "dense", "sequences", "embeddings")
    counts = ", ".join(f"{len(getattr(log.schema, kind))} {kind}" for kind in kinds if getattr(log.schema, kind))
    line = f"{len(log.schema.features)} features ({counts}); {log.spec.table_rows:,} rows in the embedding table"
    return {**value, "table_rows": log.spec.table_rows}, [line, *ledger_parts(log.ledger), *audit_lines(audit)]


def _run(path: Path) -> tuple[dict[str, Any], list[RenderableType]]:
    from postclick import files
    from postclick.cli.tables import headline, metrics_table

    config = (path / "config.toml").read_text("utf-8")
    if not (path / "evaluation.json").is_file():  # a log without a test split
        return {"config": config, "evaluation": None}, [config]
    evaluation = files.read_json(path / "evaluation.json")
    parts = [config, metrics_table("test", headline(evaluation["metrics"]))]
    return {"config": config, "evaluation": evaluation}, parts


def _bundle(path: Path) -> tuple[dict[str, Any], list[RenderableType]]:
    from postclick import files

    header = files.read_json(path / "model.json")
    rows = [(name, header[name]) for name in ("system", "heads", "arguments", "spec", "log", "versions")]
    return {"header": header}, [table("Bundle", ("part", "value"), rows, texts=2)]


_FOLDERS = {"world": _world, "log": _log, "run": _run, "bundle": _bundle}


def _raw(
    path: str, key: str | None, fields: str, threshold: float | None, schema: Path | None
) -> tuple[dict[str, Any], list[RenderableType]]:
    from postclick.data.audit import audit_body, audit_lines
    from postclick.data.first_look import first_look
    from postclick.data.sources.opening import open_source
    from postclick.schema import Schema
    from postclick.schema.inference import explain, sample_table

    source = open_source(
        path, key=key, schema=Schema.from_toml(schema) if schema else None, fields=fields, threshold=threshold
    )
    facts = first_look(source)
    audit = audit_body(facts)
    reasons = explain(source.schema, sample_table(path)).splitlines() if source.protocol.source == "tabular" else []
    notes = [*reasons, *([""] if reasons else []), *facts.ledger.lines(), *audit_lines(audit)]
    comments = "\n".join(f"# {printable(note, 500)}".rstrip() for note in notes)
    value = {
        "schema": source.schema.to_dict(),
        "reasons": reasons,
        "ledger": facts.ledger.to_dict(),
        "source": source.protocol.source,
        "notes": list(source.protocol.notes),
        "audit": audit,
    }
    return value, [f"{comments}\n\n{source.schema.to_toml()}"]
