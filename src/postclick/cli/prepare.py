"""``postclick prepare``: raw rows to an encoded LOG."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from postclick.cli.options import FieldChoice, FieldSet, Force, Json, Quiet, SchemaFile, SourceKey, Threshold
from postclick.cli.output import Output

__all__ = ["prepare"]


class Rule(StrEnum):
    """How rows are split."""

    PROVIDER = "provider"
    TIME = "time"
    USER = "user"
    RANDOM = "random"


class Propensities(StrEnum):
    """How P(rated) of rating data is estimated."""

    POPULARITY = "popularity"
    LOGISTIC = "logistic"
    NAIVE_BAYES = "naive-bayes"


class Orphans(StrEnum):
    """What a conversion without click becomes."""

    REJECT = "reject"
    SET_CLICK = "set_click"
    VIEW_THROUGH = "view_through"


Role = Annotated[list[str] | None, typer.Option(metavar="SRC", help="Rows of this split; repeat for several files.")]


def prepare(
    *,
    out: Annotated[Path, typer.Option(metavar="LOG", help="The LOG folder to make.")],
    src: Annotated[
        list[str] | None, typer.Argument(metavar="[SRC]...", help="A WORLD, files or globs: one body of rows to split.")
    ] = None,
    train: Role = None,
    valid: Role = None,
    test: Role = None,
    source: SourceKey = None,
    fields: FieldChoice = FieldSet.AITM,
    threshold: Threshold = None,
    propensity: Annotated[
        Propensities | None,
        typer.Option(help="Rating data: log this estimate of P(rated); 5 % of the test users leave the test."),
    ] = None,
    schema: SchemaFile = None,
    split: Annotated[
        Rule | None, typer.Option(help="Else the provider's files, else time 80/10/10, else it asks.")
    ] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(metavar="LOG|BUNDLE", help="Take the vocabulary and transforms from here.")
    ] = None,
    min_count: Annotated[int, typer.Option(help="Rarer training values go to the unknown row.")] = 10,
    orphan_conversions: Annotated[
        Orphans, typer.Option(help="What a conversion without click is; rows are counted in any case.")
    ] = Orphans.REJECT,
    max_reject_ratio: Annotated[float, typer.Option(help="Stop when a larger share of rows is rejected.")] = 0.001,
    allow_overlap: Annotated[bool, typer.Option("--allow-overlap", help="Let splits share keys; recorded.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what an interrupted run left; what changed is done again.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Encode raw rows into a LOG: vocabulary, splits, labels, and a ledger in which no row goes missing.

    Rows in = kept + rejected + filtered; rejected rows are written to LOG.rejects with their reason.

    Example: postclick prepare clicks/*.parquet --schema schema.toml --split time --out log

    Next: postclick train log --system esmm --out run
    """
    from postclick import files
    from postclick.cli.tables import ledger_parts
    from postclick.data.audit import audit_lines
    from postclick.data.partial import partial_folder
    from postclick.data.prepare import PrepareOptions
    from postclick.data.prepare import prepare as encode
    from postclick.data.sources.opening import open_source
    from postclick.data.truth import world_truth
    from postclick.schema import Schema

    output = Output(as_json, quiet)
    options = PrepareOptions(
        split=split.value if split else None,
        vocabulary=vocabulary,
        min_count=min_count,
        orphan_conversions=orphan_conversions.value,
        max_reject_ratio=max_reject_ratio,
        allow_overlap=allow_overlap,
    )
    roles: dict[str, Any] = {"train": train or [], "valid": valid or [], "test": test or []}
    given = Schema.from_toml(schema) if schema else None
    reading: dict[str, Any] = {"threshold": threshold, "propensity": propensity.value if propensity else None}
    opened = open_source(src or [], key=source, schema=given, fields=fields.value, **reading, **roles)
    truth = world_truth(src or [])
    if opened.protocol.source == "tabular" and given is None and truth is None:
        output.note(
            f"no --schema: this one was inferred; keep it in a file if it is right\n\n{opened.schema.to_toml()}"
        )
    left = partial_folder(out)
    if left.is_dir():
        output.note(f"going on with {left}" if resume else f"{left} of an interrupted run is done anew; see --resume")
    try:
        log = encode(opened, out, options, truth=truth, force=force, resume=resume)
    except KeyboardInterrupt:
        output.note(f"what is done is kept in {left}: run again with --resume")
        raise
    audit = files.read_json(log.path / "audit.json")
    value = {"log": str(out), "hash": log.hash, "ledger": log.ledger, "audit": audit}
    output.result(value, *ledger_parts(log.ledger), *audit_lines(audit))
    output.note(f"wrote {out}; next: postclick train {out} --system esmm --out RUN")
