"""``postclick report``: RUNs and BENCHMARKs to one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from postclick.cli.options import Force, Json, Quiet
from postclick.cli.output import Output

__all__ = ["report"]


def report(
    paths: Annotated[
        list[Path], typer.Argument(metavar="RUN_OR_BENCHMARK...", help="Folders of `train` and of `benchmark`.")
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="The page to write.")],
    log: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="LOG",
            help="A LOG the runs were trained on: adds its ledger, calibration curves, paired verdicts. Repeat.",
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="A column whose values get calibration curves; needs --log. Repeat."),
    ] = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write one HTML page that holds everything it shows: verdicts in words, charts, the numbers behind each as CSV.

    It asks nothing of any network and runs no script. RUNs of one LOG are compared with each other; a BENCHMARK brings
    its own comparisons.

    Example: postclick report run --log log --out report.html

    Next: open the page in a browser.
    """
    from postclick.report import write_report
    from postclick.report.verdicts import verdicts

    output = Output(as_json, quiet)
    figures = write_report(paths, out, logs=log or [], by=by or [], force=force)
    said = {study.name: [bullet.text for bullet in verdicts(study)] for study in figures.studies}
    lines = [f"{name}: {text}" for name, sentences in said.items() for text in sentences]
    output.result({"report": str(out), "verdicts": said, "missing": list(figures.missing)}, *lines)
    for sentence in figures.missing:
        output.note(sentence)
    output.note(f"wrote {out}")
