"""The demo, step by step, through the library's own doors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postclick import files
from postclick.cli.demo_words import AUC, CLICKS, LOGLOSS, PCOC, RAW_PCOC, Results, sentences
from postclick.cli.output import table
from postclick.cli.tables import Metrics, interval
from postclick.errors import ExitCode, Finding, InputMissingError, StorageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from postclick.data.log import ExposureLog

__all__ = ["CAPTION", "COLUMNS", "EXPOSURES", "NAMES", "SYSTEMS", "WORLDS", "build", "cell", "demo_table", "draw"]

WORLDS = ("selection", "no-bias")
SYSTEMS = ("mlp", "esmm")
EXPOSURES = 200_000
REPORT = "report.html"
_KIND = "demo"
NAMES = {"oracle": "oracle", "mlp": "mlp (clicks)", "esmm": "ESMM"}
COLUMNS = (AUC, PCOC, RAW_PCOC, LOGLOSS, CLICKS)
CAPTION = f"""\
Test split, intervals of 95 %; the oracle scores with the true CVR. {PCOC} is of the scores as served,
calibrated on the clicks of a part of valid; {RAW_PCOC} is of the network's own. These are demo-size
worlds, with fewer conversions than the 10,000 that a comparison of systems asks for: read the direction, not the third
digit."""


def build(
    out: Path, say: Callable[[str], None], *, exposures: int = EXPOSURES, max_epochs: int = 4
) -> tuple[Results, list[str]]:
    """Run the demo into `out`; returns the metrics by world and score, and the sentences they give.

    Raises
    ------
    StorageError
        ``io.exists`` where `out` is a folder that the demo did not make.
    """
    _check_own(out)
    results = {}
    with files.new_folder(out, _KIND, force=True) as folder:
        for world in WORLDS:
            (folder / world).mkdir()
            results[world] = _world(folder / world, world, say, exposures, max_epochs)
        words = sentences(results)
        files.write_json(folder / "demo.json", {"worlds": results, "sentences": words})
    return results, words


def _check_own(out: Path) -> None:
    """Refuse a folder that is not a demo's: a demo replaces what is there without asking."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        files.read_manifest(out, _KIND)
    except InputMissingError as error:
        what = "the folder exists and is not one that the demo made"
        finding = Finding("io.exists", what, str(out), fix="choose another --out")
        raise StorageError(finding, exit_code=ExitCode.CANNOT_CREATE) from error


def _world(folder: Path, world: str, say: Callable[[str], None], exposures: int, max_epochs: int) -> dict[str, Any]:
    """Simulate, prepare, train and judge one world."""
    from postclick.data.prepare import prepare
    from postclick.data.sources.opening import open_source
    from postclick.run import RunConfig, run
    from postclick.simulation import simulate

    say(f"{world}: simulating {exposures:,} exposures")
    simulate(folder / "world", world=world, exposures=exposures, seed=0)
    say(f"{world}: preparing")
    log = prepare(open_source(folder / "world"), folder / "log", truth=folder / "world" / "truth.parquet")
    metrics = {"oracle": _oracle(log)}
    for system in SYSTEMS:
        say(f"{world}: training {system}")
        config = RunConfig.from_dict({"system": system, "training": {"max_epochs": max_epochs}})
        evaluation = run(log, config, folder / system).evaluation
        assert evaluation is not None, "a world is split by time, so it has a test split"
        metrics[system] = evaluation.to_dict()["metrics"]
    return metrics


def draw(out: Path, say: Callable[[str], None]) -> Path | None:
    """Write the report of the demo's runs into its folder; None where the extra ``report`` is not installed.

    It holds seconds and versions, so the demo's manifest does not vouch for it.
    """
    from postclick.report import installed, write_report

    if not installed():
        say("no report: pip install 'postclick[report]' for a page with charts")
        return None
    say("drawing the report")
    page = out / REPORT
    runs = [out / world / system for world in WORLDS for system in SYSTEMS]
    write_report(runs, page, logs=[out / world / "log" for world in WORLDS])
    return page


def _oracle(log: ExposureLog) -> dict[str, Any]:
    """The metrics of the true probabilities themselves on the test split: the ceiling."""
    from postclick.evaluation import oracle

    truth = log.truth("test")
    assert truth is not None, "a world has a truth"
    return dict(oracle(log.split("test").labels(), truth, split="test").to_dict()["metrics"])


def demo_table(results: Results) -> RenderableType:
    """Build the one table of the demo."""
    from rich.text import Text

    rows = [
        (f"{world}: {NAMES[who]}", *(Text(cell(metrics, name).replace(" [", "\n[")) for name in COLUMNS))
        for world, scores in results.items()
        for who, metrics in scores.items()
    ]
    return table("What the CVR is worth over all exposures of two worlds", ("CVR of", *COLUMNS), rows)


def cell(metrics: Metrics, name: str) -> str:
    """Return a metric of the demo's table; a dash where it does not exist (the oracle has no raw scores)."""
    return interval(metrics[name], 3) if name in metrics else "-"
