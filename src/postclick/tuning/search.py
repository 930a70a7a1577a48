"""The trials of a search: each proposal is made anew from those on disk, so that a cut leaves no trace."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postclick import files, progress
from postclick.binding import plain
from postclick.data.log import ExposureLog
from postclick.errors import ConfigError, DataError, Finding, TrainingError
from postclick.evaluation.choice import higher_is_better, merit
from postclick.run import RunConfig, evaluate_bundle, run
from postclick.run.config import differences
from postclick.training.seeding import derived_seed
from postclick.training.stopping import TOTAL
from postclick.tuning.space import Choice, Range, Space, buildable, with_settings

if TYPE_CHECKING:
    import optuna

__all__ = ["FOLDER", "Search", "Trial"]

FOLDER, SEARCH, TRIALS = "tuning", "search.json", "trials.json"
_RANDOM = 8
"""Trials before TPE has something to go by."""
_UNPRUNED, _WARM = 4, 2
"""No trial is pruned before so many are whole, nor before so many checks of its own."""


@dataclass(frozen=True)
class Trial:
    """One setting that was tried.

    Parameters
    ----------
    number
        From 0, which is the default setting.
    settings
        Name -> value, as ``--set`` takes them; empty for the default.
    value
        The metric on the validation rows; None where there is none.
    state
        ``complete``, ``pruned`` at a check, or ``refused``: the setting cannot be built, or diverges.
    why
        Code of the refusal.
    checks
        What the pruner saw at each validation check, in the direction of the metric.
    """

    number: int
    settings: Mapping[str, Any]
    value: float | None
    state: str
    why: str = ""
    checks: Sequence[float] = ()


class _Blind(ExposureLog):
    """A log without its test rows: what chooses cannot read them."""

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(name for name in super().splits if name != "test")


class Search:
    """The trials of one study; each proposal is made anew from those on disk, so a cut leaves no trace."""

    def __init__(
        self,
        log: ExposureLog,
        config: RunConfig,
        folder: Path,
        metric: str,
        searched: Space,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self.log, self.config, self.folder, self.metric = _Blind(log.path), config, folder, metric
        self.space = buildable(searched, config, self.log.spec)
        self.should_stop = should_stop
        self.higher = higher_is_better(metric)
        self.watched: frozenset[str] | None = None
        self.stages = folder / "stages"

    def trials(self, count: int) -> tuple[Trial, ...]:
        """Make the trials that are missing; returns all."""
        self._settle()
        kept = self.folder / TRIALS
        found = [Trial(**entry) for entry in files.read_json(kept)] if kept.is_file() else []
        with progress.bar("Tuning", count, "trials") as advance, progress.hushed():
            advance(len(found))
            for number in range(len(found), count):
                found.append(self._trial(found, number))
                files.write_json(kept, [dataclasses.asdict(trial) for trial in found])
                advance(1, f"best {found[self.best(found)].value:.5f}")
        return tuple(found)

    def best(self, found: Sequence[Trial]) -> int:
        """Return the number of the best trial: of PCOC the nearest to 1, the earlier where equal."""
        merits = [merit(self.metric, trial.value if trial.state == "complete" else None) for trial in found]
        if not min(merits) < math.inf:
            fix = "choose another --metric"
            raise TrainingError(Finding("tune.no_value", f"no setting has a value of {self.metric}", fix=fix))
        return merits.index(min(merits))

    def _settle(self) -> None:
        """Note what is searched, or refuse to go on with something else."""
        path = self.folder / SEARCH
        form = self.config.to_dict(self.log.hash) | {"metric": self.metric}
        form["space"] = {name: plain(dataclasses.asdict(value)) for name, value in self.space.items()}
        form = json.loads(json.dumps(form))
        if not path.is_file():
            files.write_json(path, form)
            return
        problems, _ = differences(files.read_json(path), form)
        if problems:
            raise ConfigError(*problems)

    def _trial(self, before: Sequence[Trial], number: int) -> Trial:
        """Try the next setting; its folder goes when its value is known."""
        asked = self._ask(before, number) if number else None
        settings = {} if asked is None else {name: _rounded(asked, name, one) for name, one in self.space.items()}
        folder = self.folder / f"trial-{number:03d}"
        watch = _Watch(folder / "metrics.jsonl", asked, self)
        made = partial(Trial, number, settings)
        try:
            run(
                self.log,
                with_settings(self.config, settings),
                folder,
                resume=True,
                should_stop=watch,
                stages=self.stages,
            )
            found = evaluate_bundle(folder, self.log, split="valid", metrics=[self.metric]).to_dict()["metrics"]
            value = found.get(self.metric, {}).get("value")
            trial = made(value, "complete", checks=watch.finish())
        except (ConfigError, DataError, TrainingError) as error:
            if watch.pruned:
                trial = made(None, "pruned", checks=watch.seen)
            elif number == 0 or error.code == "train.interrupted":
                raise
            else:
                trial = made(None, "refused", error.code)
        if folder.exists():
            files.discard(folder)
        return trial

    def _ask(self, before: Sequence[Trial], number: int) -> optuna.Trial:
        """Return a trial of a study that holds all trials before; its proposals depend on them and the seed alone."""
        import optuna

        sampler = optuna.samplers.TPESampler(
            n_startup_trials=_RANDOM, seed=derived_seed(self.config.seed, FOLDER, number) % (1 << 32)
        )
        pruner = optuna.pruners.MedianPruner(n_startup_trials=_UNPRUNED, n_warmup_steps=_WARM)
        way = optuna.study.StudyDirection.MAXIMIZE if self.higher else optuna.study.StudyDirection.MINIMIZE
        study = optuna.create_study(direction=way, sampler=sampler, pruner=pruner)
        every = {name: one.distribution() for name, one in self.space.items()}
        states = {"complete": optuna.trial.TrialState.COMPLETE, "pruned": optuna.trial.TrialState.PRUNED}
        for trial in before:
            if trial.state not in states or (trial.value is None and trial.state == "complete"):
                continue
            settings = trial.settings or self._defaults()
            study.add_trial(
                optuna.trial.create_trial(
                    state=states[trial.state],
                    value=self._aim(trial.value),
                    params=dict(settings),
                    distributions={name: every[name] for name in settings},
                    intermediate_values=dict(enumerate(trial.checks)),
                )
            )
        return study.ask()

    def _aim(self, value: float | None) -> float | None:
        """Return what TPE goes by, in the study's direction: the metric, of PCOC its distance from 1."""
        if value is None:
            return None
        return value if self.higher else merit(self.metric, value)

    def _defaults(self) -> dict[str, Any]:
        """Return the default setting, as far as the space holds it."""
        form = self.config.to_dict()
        found = {}
        for name, one in self.space.items():
            value: Any = form if name.startswith("training.") else form["arguments"]
            for part in name.split("."):
                value = value[part]
            if one.holds(value):
                found[name] = value
        return found


def _rounded(trial: optuna.Trial, name: str, one: Range | Choice) -> Any:
    """Return a proposal to three figures: what is written down is what is trained, and a person can type it."""
    value = one.suggest(trial, name)
    if isinstance(one, Choice) or one.whole:
        return value
    return min(max(float(f"{value:.3g}"), one.low), one.high)


class _Watch:
    """Reads the checks of a running trial as they come, and says when to stop it."""

    def __init__(self, path: Path, trial: optuna.Trial | None, search: Search) -> None:
        self.path, self.trial, self.search = path, trial, search
        self.seen: list[float] = []
        self.size, self.pruned = -1, False

    def __call__(self) -> bool:
        """Answer after each step of the training."""
        size = self.path.stat().st_size if self.path.is_file() else -1
        if size != self.size:
            self.size = size
            self._read()
        asked = self.search.should_stop
        return self.pruned or (asked is not None and asked())

    def finish(self) -> list[float]:
        """Return all checks of a training that ran to its end."""
        self.trial = None
        self._read()
        return self.seen

    def _read(self) -> None:
        checks = [json.loads(line)["valid"] for line in self.path.read_text("utf-8").splitlines()]
        for losses in checks[len(self.seen) :]:
            value = self._value(losses)
            if value is None:
                return
            self.seen.append(value)
            if self.trial is not None:
                self.trial.report(value, len(self.seen) - 1)
                self.pruned = self.pruned or self.trial.should_prune()

    def _value(self, losses: Mapping[str, float]) -> float | None:
        """Return what this check is ranked by; None where it cannot be held against the others'.

        The metric itself where it is a loss that checks have, else the sum of their losses, if it is over the same
        heads as the default's.
        """
        search = self.search
        if search.watched is None:
            search.watched = frozenset(losses)
        if search.metric in losses:
            return losses[search.metric]
        if not losses or frozenset(losses) != search.watched:
            return None
        return -losses[TOTAL] if search.higher else losses[TOTAL]
