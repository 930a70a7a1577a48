"""``postclick demo``: a world with selection and its control, two systems, the truth, one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from postclick.cli.options import Json, Quiet
from postclick.cli.output import Output

__all__ = ["demo"]


def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to make; the demo's own is replaced.")] = Path(
        "postclick-demo"
    ),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show in two minutes what goes wrong with a CVR trained on clicks, and where nothing does.

    Simulates the world `selection` and its control `no-bias`, prepares both, trains `mlp` (on clicks) and `esmm`, and
    judges them against the true probabilities of every exposure.

    Example: postclick demo

    Next: the same commands on a log of your own; the demo ends by naming them.
    """
    from postclick.cli.demo_steps import CAPTION, build, demo_table, draw

    output = Output(as_json, quiet)
    output.note("a demo-size world and its control; under two minutes on two cores")
    results, words = build(out, output.note)
    page = draw(out, output.note)
    shown = None if page is None else str(page)
    output.result(
        {"folder": str(out), "worlds": results, "sentences": words, "report": shown},
        demo_table(results),
        f"{CAPTION}\n",
        *words,
    )
    output.note(_next(out))
    if page is not None:
        output.note(f"\nthe report, to open in a browser: {page.resolve()}")


def _next(out: Path) -> str:
    return f"""
next, the demo's own steps:
  postclick inspect {out}/selection/world
  postclick evaluate {out}/selection/esmm {out}/selection/log --by device
  postclick score {out}/selection/esmm {out}/selection/world --out scores.parquet
and on your log:
  postclick inspect rows.parquet > schema.toml
  postclick prepare rows.parquet --schema schema.toml --out log
  postclick train log --system esmm --out run"""
