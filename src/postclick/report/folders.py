"""Read a RUN and a LOG into facts: small text files alone, no arrays, no network."""

from __future__ import annotations

import contextlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from postclick import files
from postclick.data.log import SPLITS
from postclick.errors import DataError, Finding, InputMissingError
from postclick.report.curves import curves_of, slices_of
from postclick.report.facts import RunFacts
from postclick.report.log_facts import Funnel, LogFacts

__all__ = ["corrupt", "json_lines", "read_log", "read_run", "read_toml", "remembered_log", "short_names"]


@contextlib.contextmanager
def corrupt(path: Path) -> Iterator[None]:
    """Turn what a file of the wrong form does to its reader into an error that names the file."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        what = f"not what postclick writes there ({type(error).__name__}: {error})"
        raise DataError(Finding("data.corrupt_file", what, str(path), fix="make the folder anew")) from error


def json_lines(path: Path) -> list[Any]:
    """Return the values of a file of JSON lines; none where there is no such file."""
    if not path.is_file():
        return []
    with corrupt(path):
        return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]


def read_toml(path: Path) -> dict[str, Any]:
    """Return the values of a TOML file; a missing or malformed one is a typed error that names it."""
    if not path.is_file():
        raise InputMissingError(Finding("input.missing", "no such file", str(path), fix="make the folder anew"))
    with corrupt(path):
        return tomllib.loads(path.read_text("utf-8"))


def _json(path: Path) -> Any:
    return files.read_json(path) if path.is_file() else {}


def read_run(folder: Path, name: str) -> RunFacts:
    """Return the facts of a RUN; one that was not evaluated has no metrics.

    Raises
    ------
    InputMissingError
        Not a RUN.
    DataError
        A file in it is not what postclick writes.
    """
    files.read_manifest(folder, "run")
    config, header = read_toml(folder / "config.toml"), _json(folder / "bundle" / "model.json")
    bundle = files.read_manifest(folder / "bundle", "bundle").hash
    evaluation, calibration = _json(folder / "evaluation.json"), _json(folder / "bundle" / "calibration.json")
    trainings = [line for line in json_lines(folder / files.RECORD) if line.get("event") == "train"]
    record: dict[str, Any] = trainings[-1] if trainings else {}
    with corrupt(folder):
        spec = header["spec"]
        actions = None if spec.get("actions") is None else int(spec["actions"])
        trained = Funnel("train", int(spec["rows"]), int(spec["clicks"]), int(spec["conversions"]), actions)
        return RunFacts(
            name=name,
            system=str(config["system"]),
            seed=int(config["seed"]),
            settings={part: dict(config.get(part, {})) for part in ("arguments", "training", "calibration")},
            log=str(header["log"]),
            bundle=bundle,
            heads=dict(header["heads"]),
            checks=tuple(json_lines(folder / "metrics.jsonl")),
            metrics=dict(evaluation.get("metrics", {})),
            ledger=dict(evaluation.get("ledger", {})),
            overlap=evaluation.get("overlap"),
            experts=evaluation.get("experts"),
            calibration=dict(calibration.get("heads", {})),
            curves=curves_of(evaluation),
            record=record,
            trained=trained,
            slices=slices_of(evaluation),
        )


def remembered_log(runs: Sequence[RunFacts], name: str = "") -> LogFacts:
    """Return what RUNs of one log still know of it: the rows they were trained and judged on."""
    first = runs[0]
    found = [first.trained]
    judged = next((run for run in runs if run.ledger), None)
    if judged is not None:
        with corrupt(Path(judged.name)):
            counts = (int(judged.ledger[word]) for word in ("rows", "clicks", "conversions"))
            found.append(Funnel("test", *counts))
    unseen = {} if judged is None else dict(judged.ledger.get("unknown_row_share", {}))
    world = any("@world" in metric for run in runs for metric in run.metrics)
    return LogFacts(name or f"log {first.log[:8]}", first.log, False, tuple(found), unseen=unseen, simulated=world)


def read_log(folder: Path, name: str) -> LogFacts:
    """Return the facts of a LOG.

    Raises
    ------
    InputMissingError
        Not a LOG.
    DataError
        A file in it is not what postclick writes.
    """
    manifest = files.read_manifest(folder, "log")
    ledger, audit = files.read_json(folder / "ledger.json"), files.read_json(folder / "audit.json")
    schema = read_toml(folder / "schema.toml")
    with corrupt(folder):
        rows, acts = ledger["rows"], "action" in schema.get("columns", {})
        splits = {split: ledger["splits"][split] for split in SPLITS if split in ledger["splits"]}
        features = audit.get("features", {}).get("test", {})
        return LogFacts(
            name=name,
            hash=manifest.hash,
            known=True,
            funnels=tuple(_funnel(split, entry, acts) for split, entry in splits.items()),
            read=int(rows["read"]),
            kept=int(rows["kept"]),
            rejected={str(why): int(count) for why, count in rows["rejected"].items() if count},
            filtered={str(why): int(count) for why, count in rows["filtered"].items() if count},
            view_through=sum(int(entry["view_through"]) for entry in splits.values()),
            set_click=sum(int(entry["set_click"]) for entry in splits.values()),
            split=str(audit.get("split", {}).get("kind", "")),
            fields={str(entry["name"]): (entry["kind"], entry["side"]) for entry in schema.get("feature", [])},
            distinct={str(field): int(count) for field, count in audit.get("distinct", {}).items()},
            unseen={field: float(entry["unseen_rate"]) for field, entry in features.items()},
            verdicts=tuple((entry["level"], str(entry["text"])) for entry in audit.get("verdicts", [])),
            simulated=(folder / "truth.arrow").is_file(),
        )


def _funnel(split: str, entry: Mapping[str, Any], acts: bool) -> Funnel:
    rows, clicks, conversions = (int(entry[word]) for word in ("rows", "clicks", "conversions"))
    actions = int(entry["actions"]) if acts else None
    return Funnel(split, rows, clicks, conversions, actions, int(entry.get("censored", 0)))


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return each path's last part, with as many of those before it as tell them all apart."""
    full = [path.resolve().parts for path in paths]
    deepest = max((len(parts) for parts in full), default=1)
    for depth in range(1, deepest + 1):
        names = ["/".join(parts[-depth:]) for parts in full]
        if len(set(names)) == len(set(full)):
            return names
    return ["/".join(parts) for parts in full]
