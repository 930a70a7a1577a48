"""``postclick train``: a LOG and a configuration to a RUN."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postclick.cli.options import Config, Force, Json, LogFolder, Quiet, Set
from postclick.cli.output import Output
from postclick.errors import ExitCode, Finding, TrainingError, UsageError

if TYPE_CHECKING:
    from postclick.run import RunConfig

__all__ = ["Device", "by_signal", "configuration", "stop_signals", "train"]


class Device(StrEnum):
    """Where training runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def train(
    log: LogFolder,
    *,
    out: Annotated[Path, typer.Option(metavar="RUN", help="The RUN folder to make.")],
    system: Annotated[str | None, typer.Option(metavar="KEY", help="Which system: see `postclick systems`.")] = None,
    config: Config = None,
    assignments: Set = None,
    seed: Annotated[int | None, typer.Option(help="Equal seeds give equal bytes on CPU.", show_default="0")] = None,
    max_epochs: Annotated[int | None, typer.Option(help="Short for --set training.max_epochs=N.")] = None,
    device: Annotated[
        Device | None, typer.Option(help="`auto` takes a GPU where there is one.", show_default="auto")
    ] = None,
    allow_degenerate: Annotated[
        bool, typer.Option("--allow-degenerate", help="Train although a head has one class; it then gives the prior.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in RUN.")] = False,
    allow_config_change: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Resume although this setting changed; repeat.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train one system on a LOG: early stopping and calibration on disjoint halves of valid, then the test metrics.

    Plain names of --set are arguments of the system (postclick systems --json); training.NAME and calibration.HEAD set
    the rest. Misspelt names stop with the likely spelling before anything is read.

    --set propensity=logged --set training.propensity_bundle=RUN weighs by the CTR of a trained RUN or BUNDLE.

    Example: postclick train log --system esmm --out run --set embedding_size=16 --set training.batch_size=4096

    Next: postclick evaluate run log
    """
    from postclick.cli.tables import headline, metrics_table
    from postclick.run import run

    output = Output(as_json, quiet)
    flags = {"system": system, "seed": seed, "max_epochs": max_epochs, "device": device.value if device else None}
    settings = configuration(config, assignments or [], flags)
    with stop_signals() as stop:
        try:
            result = run(
                log,
                settings,
                out,
                resume=resume,
                force=force,
                allow_degenerate=allow_degenerate,
                allow_config_change=allow_config_change or [],
                should_stop=lambda: bool(stop),
            )
        except TrainingError as error:
            raise by_signal(error, stop) from None
    form = result.to_dict()
    for note in form["notes"]:
        output.note(note)
    output.result({"run": str(out), **form}, metrics_table(f"{out} on test of {log}", headline(form["metrics"])))
    output.note(f"wrote {out}; next: postclick evaluate {out} {log}, or postclick score {out} SRC --out scores.parquet")


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM, so that training ends after its step, saved; a second one ends it at once."""
    stop: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        stop.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {each: signal.signal(each, remember) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def by_signal(error: TrainingError, stop: list[int]) -> TrainingError:
    """Give the exit code of the signal that came: 130 for Ctrl-C, 143 for SIGTERM."""
    if error.code == "train.interrupted" and signal.SIGINT in stop:
        return TrainingError(*error.findings, exit_code=ExitCode.INTERRUPTED)
    return error


def configuration(path: Path | None, assignments: list[str], flags: Mapping[str, Any]) -> RunConfig:
    """Join a TOML file, ``--set`` and the flags that were given: flags win over ``--set``, ``--set`` over the file."""
    from postclick.binding import parse_assignments
    from postclick.run import RunConfig
    from postclick.run.config import read_toml

    values = read_toml(path) if path else {}
    over = parse_assignments(assignments)
    tables = {name: over.pop(name, {}) for name in ("training", "calibration")} | {"arguments": over}
    if flags["max_epochs"] is not None and isinstance(tables["training"], dict):
        tables["training"]["max_epochs"] = flags["max_epochs"]
    values |= {name: flags[name] for name in ("system", "seed", "device") if flags[name] is not None}
    if "system" not in values:
        raise UsageError(Finding("usage", "no system named", "--system", fix="list them with: postclick systems"))
    return RunConfig.from_dict(_merged(values, tables))


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with the values of `above` over it, table by table."""
    merged = dict(below)
    for name, value in above.items():
        before = merged.get(name, {})
        both = isinstance(value, dict) and isinstance(before, dict)
        merged[name] = _merged(before, value) if both else value
    return merged
