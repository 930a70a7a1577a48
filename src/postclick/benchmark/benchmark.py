"""Run an experiment: every data set, every row of the table, every seed, one after the other."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from postclick import files
from postclick.benchmark.experiment import Experiment, RunSpec
from postclick.benchmark.leaderboard import Leaderboard, RunRow
from postclick.benchmark.preparation import open_logs, short_hash
from postclick.data.log import ExposureLog
from postclick.errors import ExitCode, Finding, StorageError
from postclick.evaluation import EvaluationResult
from postclick.evaluation.names import MetricName
from postclick.metrics.influence import HIGHER_IS_BETTER
from postclick.run import evaluate_bundle, run

__all__ = ["run_benchmark"]

EXPERIMENT, RUNS, LEADERBOARD = "experiment.toml", "runs.jsonl", "leaderboard.json"
_RANKED_UP = (*HIGHER_IS_BETTER, "pr_auc", "ks", "recall", "f1", "lift", "ndcg", "value")


def run_benchmark(
    path: str | Path,
    out: str | Path,
    *,
    data: Mapping[str, str] | None = None,
    resume: bool = False,
    force: bool = False,
) -> Leaderboard:
    """Run the experiment file at `path` into the folder `out`.

    Each run is a RUN folder under ``runs/``; logs and worlds are kept under ``shared/``. Where there is a grid, every
    setting of a run is tried with the first seeds and the best on the validation rows is then trained with all
    seeds; the test split never chooses. ``runs.jsonl`` holds what is equal for equal inputs, sorted by run.

    Parameters
    ----------
    path
        The experiment file.
    out
        The BENCHMARK folder.
    data
        Name of a data set -> path of its raw rows or LOG, over what the file says.
    resume
        Keep the runs that are whole, go on with the one that is not.
    force
        Replace an existing BENCHMARK.

    Raises
    ------
    ConfigError
        What is wrong with the file, all together.
    StorageError
        `out` exists and neither `resume` nor `force` is on.
    """
    experiment = Experiment.from_toml(path)
    text = Path(path).read_text("utf-8")
    out = Path(out)
    _claim(out, resume=resume, force=force)
    with files.lock(out):
        files.write_text(out / EXPERIMENT, text)
        logs, notes = open_logs(experiment, data or {}, out / "shared")
        job = _Job(experiment, out)
        rows = [row for name, log in logs.items() for row in job.rows(name, log)]
        rows.sort(key=lambda row: (row.key, row.stage))
        lines = [row.line() for row in rows]
        files.write_text(out / RUNS, "".join(line + "\n" for line in lines))
        board = Leaderboard.of(experiment, logs, rows, out, notes)
        files.write_json(out / LEADERBOARD, board.to_dict())
        files.write_manifest(out, "benchmark", exclude=lambda name: name.startswith(("runs/", "shared/")))
    return board


def _claim(out: Path, *, resume: bool, force: bool) -> None:
    """Make the folder, go on with ours, or refuse."""
    content = {entry.name for entry in out.iterdir()} - {".lock"} if out.is_dir() else set()
    if out.exists() and (not out.is_dir() or (content and EXPERIMENT not in content)):
        finding = Finding("io.exists", "not a BENCHMARK folder, so it is not touched", str(out), fix="choose another")
        raise StorageError(finding, exit_code=ExitCode.CANNOT_CREATE)
    if content and not resume:
        if not force:
            fix = "go on with --resume, choose another --out, or replace it with --force"
            finding = Finding("io.exists", "the output exists already", str(out), fix=fix)
            raise StorageError(finding, exit_code=ExitCode.CANNOT_CREATE)
        for name in (*sorted(content - {EXPERIMENT}), EXPERIMENT):
            files.discard(out / name)
    out.mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True)
class _Trial:
    """One run to make."""

    key: str
    stage: str
    spec: RunSpec
    setting: Mapping[str, Any]
    seed: int


class _Job:
    """An experiment under way."""

    def __init__(self, experiment: Experiment, out: Path) -> None:
        self.experiment, self.out = experiment, out

    def rows(self, data: str, log: ExposureLog) -> Iterator[RunRow]:
        """Yield every run on one data set, tuning first."""
        seeds, grid = self.experiment.seeds.values, self.experiment.grid
        for spec in self.experiment.runs:
            settings = grid.settings(spec.grid)
            chosen = settings[0]
            if len(settings) > 1:
                tried = [
                    (setting, self._runs(data, log, "grid", spec, setting, seeds[: grid.seeds])) for setting in settings
                ]
                for _, attempts in tried:
                    yield from attempts
                chosen = min(tried, key=lambda pair: self._merit(pair[1]))[0]
            # the chosen setting was trained with the first seeds already: these runs are found complete
            yield from self._runs(data, log, "final", spec, chosen, seeds)

    def _runs(
        self, data: str, log: ExposureLog, stage: str, spec: RunSpec, setting: Mapping[str, Any], seeds: Sequence[int]
    ) -> list[RunRow]:
        """Return the runs of one setting, a seed each."""
        place = f"{data}/{_slug(spec.label)}" + (f"/{short_hash(dict(setting))}" if setting else "")
        return [self._run(data, log, _Trial(f"{place}/seed-{seed:03d}", stage, spec, setting, seed)) for seed in seeds]

    def _merit(self, attempts: list[RunRow]) -> float:
        """Return what the choice minimises; a setting without a value comes last."""
        metric = self.experiment.grid.metric
        values = [row.valid for row in attempts]
        if any(value is None for value in values):
            return math.inf
        mean = sum(value for value in values if value is not None) / len(values)
        if metric is None:
            return mean
        kind = MetricName.parse(metric).metric
        if kind == "pcoc":
            return abs(math.log(mean)) if mean > 0 else math.inf
        return -mean if kind in _RANKED_UP else mean

    def _run(self, data: str, log: ExposureLog, trial: _Trial) -> RunRow:
        config = self.experiment.config(trial.spec, trial.setting, seed=trial.seed)
        folder = self.out / "runs" / trial.key
        folder.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        result = run(log, config, folder, resume=True)
        row = RunRow(trial.key, data, trial.spec.label, trial.spec.system, trial.stage, trial.seed, result.bundle)
        row = replace(row, settings=config.to_dict(), chosen=dict(trial.setting))
        if trial.stage == "grid":
            row = replace(row, valid=self._validation(folder, log))
        else:
            row = replace(row, metrics=self._measured(folder, log, result.evaluation))
        record = {"stage": "benchmark", "run": trial.key, "seconds": round(time.monotonic() - began, 3)}
        files.append_json_line(self.out / files.RECORD, record)
        return row

    def _measured(self, folder: Path, log: ExposureLog, known: EvaluationResult | None) -> dict[str, Any]:
        """Return the metrics of the judged split: the default ones, and those of the table that are not among them."""
        table = self.experiment.table
        judged = known if known is not None and known.split == table.split else None
        found = (judged or evaluate_bundle(folder, log, split=table.split)).to_dict()["metrics"]
        truth = log.truth(table.split) is not None
        more = [name for name in table.metrics if name not in found and (truth or "@world" not in name)]
        if more:
            found |= evaluate_bundle(folder, log, split=table.split, metrics=more).to_dict()["metrics"]
        return dict(found)

    def _validation(self, folder: Path, log: ExposureLog) -> float | None:
        """Return the value that chooses: the best validation loss, or the metric asked for."""
        metric = self.experiment.grid.metric
        if metric is not None:
            found = evaluate_bundle(folder, log, split="valid", metrics=[metric]).to_dict()["metrics"]
            value = found.get(metric, {}).get("value")
            return None if value is None else float(value)
        checks = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
        losses = [check["valid"].get("logloss") for check in checks if check.get("valid")]
        return min((float(loss) for loss in losses if loss is not None), default=None)


def _slug(label: str) -> str:
    """Return a label as the name of a folder; labels that would meet get a hash."""
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-.").lower()
    return plain if plain == label else f"{plain}-{short_hash(label)[:6]}"
