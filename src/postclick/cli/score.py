"""``postclick score``: probabilities for raw rows, or for a split of a log, as Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postclick.cli.options import Force, Json, Quiet, SplitName, Trained
from postclick.cli.output import Output, number, table
from postclick.errors import Finding, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from postclick.bundle import Bundle

__all__ = ["score"]


def score(
    trained: Trained,
    src: Annotated[str, typer.Argument(metavar="SRC|LOG", help="Raw rows (a WORLD, a file, a glob), or a LOG.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The Parquet file to make.")],
    split: Annotated[SplitName | None, typer.Option(help="Which split of a LOG; all rows otherwise.")] = None,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Carry this column over; repeat for several.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score rows into a Parquet file: exposure_id, ctr, cvr, ctcvr, row for row in the order of the input.

    Values that training did not see go to their field's unknown row and are counted.

    Example: postclick score run new.parquet --out scores.parquet --keep campaign

    Next: use the column cvr for P(conversion | click), ctcvr for P(click and conversion).
    """
    from postclick.batch_scoring import score_log, score_source
    from postclick.bundle import Bundle

    output = Output(as_json, quiet)
    bundle = Bundle.load(trained)
    if _is_log(src):
        summary = score_log(bundle, src, split.value if split else None, out, keep=keep or [], force=force)
    else:
        if split:
            fix = "leave --split out, or pass the LOG that prepare made of these rows"
            raise UsageError(Finding("usage", "--split is for a LOG; raw rows have no splits", src, fix=fix))
        summary = score_source(bundle, _opened(bundle, src, keep or []), out, keep=keep or [], force=force)
    for warning in summary.warnings:
        output.note(str(warning))
    form = {"out": str(out), **summary.to_dict()}
    output.result(form, f"{summary.rows:,} rows scored into {out}", *_parts(form))
    output.note("next: the column cvr is P(conversion | click), ctcvr is P(click and conversion)")


def _is_log(src: str) -> bool:
    from postclick import files

    return (Path(src) / files.MANIFEST).is_file() and files.read_manifest(Path(src)).kind == "log"


def _opened(bundle: Bundle, src: str, keep: list[str]) -> Any:
    """Open raw rows in the columns of the bundle; a format of its own (raw Ali-CCP) is known by its files' names."""
    from postclick.batch_scoring import open_for_scoring
    from postclick.data.sources.inputs import Inputs
    from postclick.data.sources.opening import detect, open_source

    key = detect(Inputs(src=(src,)))
    if key == "tabular":
        return open_for_scoring(bundle.schema, src, keep)
    return open_source(src, key=key, fields="full" if bundle.schema.sequences else "aitm", labels=False)


def _parts(form: dict[str, Any]) -> list[RenderableType]:
    rows = [
        (name, number(found["values"]), number(found["unseen"]), number(found["missing"]), f"{found['rate']:.2%}")
        for name, found in form["features"].items()
    ]
    parts = [table("Values", ("feature", "values", "unseen in training", "missing", "unseen rate"), rows)]
    if form["derived"]:
        derived = ", ".join(form["derived"])
        return [f"derived, not a head: {derived}; {number(form['clipped'])} values were clipped", *parts]
    return parts
