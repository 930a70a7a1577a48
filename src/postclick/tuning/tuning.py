"""Tune a system on a log with Optuna: values by the validation rows, the test rows at the end alone.

TPE proposes (Bergstra et al. 2011), the median pruner stops what is behind at a check (Golovin et al. 2017). The first
trial is the default setting, so that the choice is never worse than it on the validation rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from postclick import files
from postclick.binding import plain
from postclick.bundle import Bundle, Scorer
from postclick.data.log import ExposureLog
from postclick.errors import Finding, UsageError
from postclick.evaluation.compare import compare
from postclick.evaluation.comparison import Comparison
from postclick.evaluation.names import MetricName
from postclick.metrics.influence import COMPARED
from postclick.run import RunConfig, RunResult, run
from postclick.run.assessment import judged_rows
from postclick.run.folder import claim, make_room
from postclick.tuning.search import FOLDER, Search, Trial
from postclick.tuning.space import Space, space, with_settings

__all__ = ["TuningResult", "tune"]

FORMAT, RECORD = 1, "tuning.json"
_COMPARED = ("ctr/auc@exposure", "cvr/auc@click", "ctcvr/auc@exposure", "ctcvr/logloss@exposure")


@dataclass(frozen=True)
class TuningResult:
    """What tuning found.

    Parameters
    ----------
    run
        The RUN of the best setting.
    system, metric, seed
        What was tuned, by what.
    trials
        All of them, in order.
    best
        Number of the best.
    comparison
        Tuned against default on the test rows, paired; None where the default is the best, or there is no test.
    """

    run: RunResult
    system: str
    metric: str
    seed: int
    trials: tuple[Trial, ...]
    best: int
    comparison: Comparison | None = None
    searched: Space = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form, ``tuning.json``."""
        form: dict[str, Any] = {name: getattr(self, name) for name in ("system", "metric", "seed", "best")}
        form |= {"format": FORMAT, "trials": [dataclasses.asdict(trial) for trial in self.trials]}
        form["space"] = {name: plain(dataclasses.asdict(value)) for name, value in self.searched.items()}
        return form | {"comparison": None if self.comparison is None else self.comparison.to_dict()}


def tune(
    log: ExposureLog | str | Path,
    config: RunConfig,
    out: str | Path,
    *,
    trials: int = 20,
    metric: str | None = None,
    fixed: Sequence[str] = (),
    resume: bool = False,
    force: bool = False,
    should_stop: Callable[[], bool] | None = None,
) -> TuningResult:
    """Search the settings of a system, then train the best into `out` and compare it with the default on test.

    Equal log, configuration and number of trials give the same trials, however often the search was cut off and
    resumed: each proposal depends on the seed, its number and the trials before it alone. Until the choice is made the
    test rows are out of reach of everything that runs.

    Parameters
    ----------
    log
        A LOG with validation rows.
    config
        The system and the default setting, which is the first trial.
    out
        The RUN folder; ``tuning/`` in it keeps the trials and the default's RUN, ``tuning.json`` the record.
    trials
        How many settings, the default among them.
    metric
        A metric of the validation rows; None: ``ctcvr/logloss@exposure``, which all systems have (``cvr/logloss@click``
        in a log of clicks).
    fixed
        Names of settings that are not searched.
    resume
        Go on where the search was cut off.
    force
        Replace an existing RUN.
    should_stop
        As `run` asks it.

    Raises
    ------
    UsageError
        Optuna is not installed.
    ConfigError, StorageError
        As `run` does; a metric that is unknown.
    TrainingError
        ``train.interrupted``; ``tune.no_value`` where no setting has a value.
    """
    _require_optuna()
    log = log if isinstance(log, ExposureLog) else ExposureLog(log)
    out = Path(out)
    clicks_only = log.schema.population == "click"
    name = metric or ("cvr/logloss@click" if clicks_only else "ctcvr/logloss@exposure")
    MetricName.parse(name)
    folder = out / FOLDER
    claim(out, FOLDER, "a folder of `postclick tune`", vacant=not (resume or force))
    folder.mkdir(exist_ok=True)
    with files.lock(folder):
        if not resume:
            make_room(out, force=force, apart=(FOLDER,))
            make_room(folder, force=force)
        search = Search(log, config, folder, name, space(config.system, fixed), should_stop)
        found = search.trials(trials)
        best = search.best(found)
        final = with_settings(config, found[best].settings)
        kept = out / "config.toml"
        same = kept.is_file() and kept.read_text("utf-8") == final.to_toml(log.hash)
        made = run(log, final, out, resume=same, force=True, should_stop=should_stop, stages=search.stages)
        compared = None
        if best != 0 and "test" in log.splits:
            run(log, config, folder / "default", resume=True, should_stop=should_stop, stages=search.stages)
            compared = _compared(log, {"tuned": out, "default": folder / "default"}, name)
        result = TuningResult(made, config.system, name, config.seed, found, best, compared, search.space)
        files.write_json(out / RECORD, result.to_dict())
    return result


def _require_optuna() -> None:
    try:
        import optuna
    except ImportError as error:
        fix = "pip install 'postclick[tune]'"
        raise UsageError(Finding("usage", "tuning needs Optuna, which is not installed", "tune", fix=fix)) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _compared(log: ExposureLog, runs: Mapping[str, Path], metric: str) -> Comparison:
    """Compare RUNs on the test rows, pair by pair."""
    scores, rows = {}, None
    for name, path in runs.items():
        rows, _, _ = judged_rows(Scorer(Bundle.load(path), "cpu"), log, "test")
        scores[name] = [rows.scores]
    assert rows is not None
    parsed = MetricName.parse(metric)
    own = [metric] if parsed.metric in COMPARED and not parsed.slice else []
    world = ["cvr/auc@world"] if rows.truth is not None else []
    names = list(dict.fromkeys([*own, *_COMPARED, *world]))
    population = log.schema.population
    return compare(scores, rows.labels, truth=rows.truth, metrics=names, baseline="default", population=population)
