"""``postclick tune``: search the settings of a system on a LOG and train the best."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from postclick.cli.options import Config, Force, Json, LogFolder, Quiet, Set
from postclick.cli.output import Output, number, table
from postclick.cli.train import Device, by_signal, configuration, stop_signals
from postclick.errors import TrainingError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from postclick.evaluation.comparison import Comparison

__all__ = ["tune"]


def tune(
    log: LogFolder,
    *,
    out: Annotated[Path, typer.Option(metavar="RUN", help="The RUN folder to make, of the best setting.")],
    system: Annotated[str | None, typer.Option(metavar="KEY", help="Which system: see `postclick systems`.")] = None,
    trials: Annotated[int, typer.Option(metavar="N", min=1, help="Settings tried; the first is the default.")] = 20,
    metric: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Metric of valid that chooses.", show_default="ctcvr/logloss@exposure"),
    ] = None,
    config: Config = None,
    assignments: Set = None,
    seed: Annotated[int | None, typer.Option(help="Of the search and of every training.", show_default="0")] = None,
    max_epochs: Annotated[int | None, typer.Option(help="Short for --set training.max_epochs=N.")] = None,
    device: Annotated[
        Device | None, typer.Option(help="`auto` takes a GPU where there is one.", show_default="auto")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search, or add trials to it.")] = False,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search the settings of a system on the validation rows, train the best, compare it with the default on test.

    What is searched is read off the signatures: numbers with a range, literals and flags of the system, and the
    learning rate, l2 and batch size of the training. What --set names stays as it is set. Settings that are behind at a
    check are stopped. The test rows are read when the choice is made, not before.

    Example: postclick tune log --system escm2-dr --trials 20 --out tuned

    Next: postclick evaluate tuned log, or the trials in tuned/tuning.json
    """
    from postclick.binding import dotted, parse_assignments
    from postclick.tuning import tune as search

    output = Output(as_json, quiet)
    flags = {"system": system, "seed": seed, "max_epochs": max_epochs, "device": device.value if device else None}
    settings = configuration(config, assignments or [], flags)
    fixed = list(dotted(parse_assignments(assignments or [])))
    with stop_signals() as stop:
        try:
            result = search(
                log,
                settings,
                out,
                trials=trials,
                metric=metric,
                fixed=fixed,
                resume=resume,
                force=force,
                should_stop=lambda: bool(stop),
            )
        except TrainingError as error:
            raise by_signal(error, stop) from None
    form = result.to_dict()
    best, first = result.trials[result.best], result.trials[0]
    chosen = ", ".join(f"{name}={value}" for name, value in best.settings.items()) or "the default setting"
    words = f"{result.metric} on valid: {number(best.value)} with {chosen}; the default: {number(first.value)}"
    parts = [words] if result.comparison is None else [words, _tests(result.comparison)]
    output.result({"run": str(out), **form, "metrics": result.run.to_dict()["metrics"]}, *parts)
    output.note(f"wrote {out}; next: postclick evaluate {out} {log}")


def _tests(compared: Comparison) -> RenderableType:
    """Return the paired differences on test, as the comparison words them."""
    rows = compared.table()
    return table("Tuned against default on test, paired", list(rows[0]), [list(row.values()) for row in rows], texts=3)
