"""The estimator: fit, predict, evaluate, save, by scikit-learn's contract, on frames, tables, dicts, files and logs."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick import files
from postclick.batch_scoring import open_for_scoring, score_batches
from postclick.binding import plain
from postclick.bundle import Bundle, Scorer
from postclick.calibration import CalibrationConfig
from postclick.data.log import ExposureLog
from postclick.data.prepare import PrepareOptions, prepare
from postclick.data.scores import Scores
from postclick.data.sources.opening import open_source
from postclick.data.truth import world_truth
from postclick.errors import ConfigError, Finding, InputMissingError, NotFittedError, nearest
from postclick.evaluation import EvaluationResult
from postclick.run import RunConfig, RunResult, evaluate_bundle, run
from postclick.schema import Schema
from postclick.training.config import TrainingConfig

__all__ = ["ConversionEstimator", "load"]

_NESTED = ("arguments", "training", "calibration")


class ConversionEstimator:
    """Estimates CTR, CVR and CTCVR of every exposure with one of the published systems.

    The constructor stores; `fit` checks, learns, and leaves what it learned in attributes that end in ``_``.

    Parameters
    ----------
    system
        Key of a system: ``postclick systems`` lists them.
    schema
        Features and funnel: a `Schema`, the path of a TOML file, or None to infer one from the training rows (a LOG or
        a WORLD brings its own).
    arguments
        The system's own arguments, for instance ``{"embedding_size": 16}``.
    training
        A `TrainingConfig` or a dict of its fields.
    calibration
        A `CalibrationConfig` or a dict of its fields.
    seed
        Equal seeds and rows give equal bits on the CPU.
    device
        ``auto``, ``cpu`` or ``cuda``.

    Attributes
    ----------
    bundle_
        What was learned, as `postclick.bundle.Bundle`.
    schema_
        The schema in use.
    training_
        What training did: best check, steps, history; None after `load`.
    evaluation_
        Metrics on rows that `fit` held out for a test; None where there were none.

    Examples
    --------
    >>> model = ConversionEstimator("esmm", arguments={"embedding_size": 16}).fit(frame)   # doctest: +SKIP
    >>> model.predict(new)["cvr"]                                                          # doctest: +SKIP
    """

    def __init__(
        self,
        system: str = "esmm",
        *,
        schema: Schema | str | Path | None = None,
        arguments: Mapping[str, Any] | None = None,
        training: TrainingConfig | Mapping[str, Any] | None = None,
        calibration: CalibrationConfig | Mapping[str, Any] | None = None,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.system = system
        self.schema = schema
        self.arguments = arguments
        self.training = training
        self.calibration = calibration
        self.seed = seed
        self.device = device

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's parameters; with `deep` also ``arguments__NAME``, ``training__NAME``, ..."""
        values = {name: getattr(self, name) for name in _parameter_names()}
        if deep:
            for name in _NESTED:
                values |= {f"{name}__{key}": value for key, value in _entries(values[name]).items()}
        return values

    def set_params(self, **params: Any) -> ConversionEstimator:
        """Set parameters, also nested ones (``arguments__trunk``, ``training__batch_size``); returns self.

        Raises
        ------
        ConfigError
            All unknown names together, with the likely spelling.
        """
        names = _parameter_names()
        problems = []
        for name in params:
            head, nested, _ = name.partition("__")
            if head not in names or (nested and head not in _NESTED):
                near = nearest(head, names)
                fix = f"did you mean {near!r}?" if near else f"parameters: {', '.join(names)}"
                problems.append(Finding("config.unknown_key", f"there is no parameter {name!r}", name, fix=fix))
        if problems:
            raise ConfigError(*problems)
        for name in sorted(params, key=lambda key: "__" in key):  # whole ones first, then parts of them
            head, nested, rest = name.partition("__")
            value = _with_entry(getattr(self, head), rest.split("__"), params[name]) if nested else params[name]
            setattr(self, head, value)
        return self

    def __repr__(self) -> str:
        defaults = {name: item.default for name, item in inspect.signature(type(self)).parameters.items()}
        changed = [
            f"{name}={value!r}" for name, value in self.get_params(deep=False).items() if value != defaults[name]
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    def fit(self, train: Any, valid: Any = None) -> ConversionEstimator:
        """Learn from labelled exposures; returns self.

        Parameters
        ----------
        train
            A LOG (path or `ExposureLog`), a WORLD, a path, a glob, a Polars or pandas frame, an Arrow table, a dict of
            arrays, or a list of those.
        valid
            Rows for early stopping and calibration (halves by a hash of the exposure id). Without them, where the
            schema names a time, `train` is split by time 80/10/10 and the last tenth is evaluated (`evaluation_`);
            else a tenth of it is held out by a hash of the exposure id. A LOG has its own splits and takes no `valid`.

        Raises
        ------
        PostclickError
            As `prepare` and `run` raise them; nothing is learned then.
        """
        config = self._config()
        store = Path(tempfile.mkdtemp(prefix="postclick-"))
        # not TemporaryDirectory: it warns when the interpreter ends before it is closed
        finalizer = weakref.finalize(self, shutil.rmtree, store, ignore_errors=True)
        try:
            log = self._training_log(train, valid, store)
            result = run(log, config, store / "run")
            bundle = Bundle.load(store / "run")
        except BaseException:
            finalizer()
            raise
        if log.path.parent == store:
            shutil.rmtree(log.path)
        self._adopt(bundle, config.device, result)
        return self

    def predict(self, data: Any) -> Any:
        """Return ctr, cvr, ctcvr (and action, ctar where the system has them) of raw exposures, in their order.

        Parameters
        ----------
        data
            As `fit`; labels need not be there. A LOG stands for its test split.

        Returns
        -------
        frame
            Of the kind given: Polars, pandas (with its index), Arrow, a dict of arrays; paths give Polars.
        """
        bundle = self._fitted()
        if _is_log(data):
            log = _as_log(data)
            bundle.require_fit(log)
            parts = [self.scorer_.score(block.without_labels()) for block in log.split("test").blocks()]
        else:
            rows = data.collect() if hasattr(data, "collect_schema") and hasattr(data, "collect") else data
            source = open_for_scoring(bundle.schema, rows)
            parts = [scored.scores for scored in score_batches(self.scorer_, source)]
        if not parts:
            raise InputMissingError(Finding("data.empty", "no row to score", fix="pass rows"))
        scores = Scores.concatenate(parts)
        return _like(data, {head: scores.probability(head) for head in scores.heads})

    def evaluate(self, data: Any, *, by: Sequence[str] = ()) -> EvaluationResult:
        """Return metrics by name (``result["cvr/auc@click"]``) on labelled exposures.

        Parameters
        ----------
        data
            As `fit`. A LOG stands for its test split; everything else is encoded with this model's vocabulary.
        by
            Columns whose values get metrics of their own.
        """
        bundle = self._fitted()
        if _is_log(data):
            return evaluate_bundle(self._folder, _as_log(data), by=by)
        with tempfile.TemporaryDirectory(prefix="postclick-") as work:
            source = open_source(test=data, schema=bundle.schema)
            options = PrepareOptions(vocabulary=self._folder)
            log = prepare(source, Path(work) / "log", options, truth=world_truth(data))
            return evaluate_bundle(self._folder, log, by=by)

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the BUNDLE, which `postclick.load`, ``postclick score`` and the service read; data only, no pickle.

        Raises
        ------
        StorageError
            `path` exists and `force` is off.
        """
        self._fitted()
        with files.new_folder(Path(path), "bundle", force=force) as folder:
            for name in files.read_manifest(self._folder, "bundle").files:
                (folder / name).parent.mkdir(exist_ok=True)
                files.write_bytes(folder / name, (self._folder / name).read_bytes())
        return Path(path)

    def _config(self) -> RunConfig:
        tables = {name: plain(getattr(self, name) or {}) for name in _NESTED}
        return RunConfig.from_dict({"system": self.system, "seed": self.seed, "device": self.device, **tables})

    def _training_log(self, train: Any, valid: Any, store: Path) -> ExposureLog:
        if _is_log(train):
            if valid is not None:
                fix = "leave valid out, or pass raw rows twice"
                raise ConfigError(Finding("config.value", "a LOG has its own valid split", "valid", fix=fix))
            return _as_log(train)
        schema = Schema.from_toml(self.schema) if isinstance(self.schema, str | Path) else self.schema
        source = open_source(train=train, valid=valid, schema=schema)
        if valid is None and source.schema.columns.time is not None:
            source = open_source(train, schema=source.schema)
        return prepare(source, store / "log", truth=world_truth(train))

    def _adopt(self, bundle: Bundle, device: str = "auto", result: RunResult | None = None) -> None:
        import torch

        where = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
        self.bundle_ = bundle
        self.schema_ = bundle.schema
        self.scorer_ = Scorer(bundle, where)
        self.training_ = None if result is None else result.training
        self.evaluation_ = None if result is None else result.evaluation

    def _fitted(self) -> Bundle:
        if not hasattr(self, "bundle_"):
            fix = "call fit first, or postclick.load(path)"
            raise NotFittedError(
                Finding("estimator.not_fitted", f"this {type(self).__name__} has learned nothing", fix=fix)
            )
        return self.bundle_

    @property
    def _folder(self) -> Path:
        return self.bundle_.path


def load(path: str | Path) -> ConversionEstimator:
    """Return the fitted estimator of a BUNDLE or RUN; the folder is checked before anything in it is parsed.

    Raises
    ------
    TrustError, BundleError, InputMissingError
        As `Bundle.load`.
    """
    bundle = Bundle.load(path)
    header = bundle.header
    estimator = ConversionEstimator(header.system, schema=bundle.schema, arguments=dict(header.arguments))
    estimator._adopt(bundle)
    return estimator


def _parameter_names() -> list[str]:
    return list(inspect.signature(ConversionEstimator).parameters)


def _entries(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: getattr(value, entry.name) for entry in dataclasses.fields(value)}
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def _with_entry(value: Any, path: Sequence[str], new: Any) -> Any:
    """Return `value` with the entry at `path` replaced; what was there is not changed."""
    head, *rest = path
    if rest:
        new = _with_entry(_entries(value).get(head), rest, new)
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and head in _entries(value):
        return dataclasses.replace(value, **{head: new})
    return {**_entries(value), head: new}


def _is_log(data: Any) -> bool:
    if isinstance(data, ExposureLog):
        return True
    is_folder = isinstance(data, str | Path) and (Path(data) / files.MANIFEST).is_file()
    return is_folder and files.read_manifest(Path(data)).kind == "log"


def _as_log(data: Any) -> ExposureLog:
    return data if isinstance(data, ExposureLog) else ExposureLog(data)


def _like(data: Any, columns: dict[str, NDArray[np.float64]]) -> Any:
    """Return columns as a frame of the kind of `data`; paths, logs and lists give Polars."""
    kind = type(data).__module__.partition(".")[0]
    if isinstance(data, Mapping):
        return columns
    if kind == "pandas":
        import pandas as pd

        return pd.DataFrame(columns, index=data.index)
    if kind == "pyarrow":
        import pyarrow as pa

        return pa.table(columns)
    import polars as pl

    return pl.DataFrame(columns)
