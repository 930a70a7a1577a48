"""Post-click conversion-rate (CVR) estimation over the entire exposure space: calibrated, debiased, servable.

>>> import postclick
>>> model = postclick.ConversionEstimator("esmm").fit("clicks/*.parquet")   # doctest: +SKIP
>>> model.predict("new.parquet")["cvr"]                                     # doctest: +SKIP

Names are imported when they are first used, so that ``import postclick`` costs nothing and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from postclick.calibration import CalibrationConfig
    from postclick.data.log import ExposureLog
    from postclick.errors import PostclickError
    from postclick.estimator import ConversionEstimator, load
    from postclick.schema import Columns, DenseFeature, EmbeddingFeature, Schema, SequenceFeature, SparseFeature
    from postclick.simulation.simulate import simulate
    from postclick.training.config import TrainingConfig

    __version__: str

__all__ = [
    "CalibrationConfig",
    "Columns",
    "ConversionEstimator",
    "DenseFeature",
    "EmbeddingFeature",
    "ExposureLog",
    "PostclickError",
    "Schema",
    "SequenceFeature",
    "SparseFeature",
    "TrainingConfig",
    "__version__",
    "load",
    "prepare",
    "simulate",
]

_HOMES = {
    "CalibrationConfig": "postclick.calibration",
    "Columns": "postclick.schema",
    "ConversionEstimator": "postclick.estimator",
    "DenseFeature": "postclick.schema",
    "EmbeddingFeature": "postclick.schema",
    "ExposureLog": "postclick.data.log",
    "PostclickError": "postclick.errors",
    "Schema": "postclick.schema",
    "SequenceFeature": "postclick.schema",
    "SparseFeature": "postclick.schema",
    "TrainingConfig": "postclick.training.config",
    "load": "postclick.estimator",
    "simulate": "postclick.simulation",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name == "__version__":
        from importlib.metadata import version

        return version("postclick")
    if name not in _HOMES:
        raise AttributeError(f"module 'postclick' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def prepare(
    src: Any = (),
    out: str | Path = "log",
    *,
    train: Any = None,
    valid: Any = None,
    test: Any = None,
    schema: Schema | str | Path | None = None,
    source: str | None = None,
    force: bool = False,
    resume: bool = False,
    **options: Any,
) -> ExposureLog:
    """Turn raw rows into a LOG: the ``postclick prepare`` of Python.

    Parameters
    ----------
    src
        One body of rows that is split: paths, globs, WORLD folders, frames, tables, dicts of arrays, or a list of them.
    out
        The LOG folder.
    train, valid, test
        Rows by role, in place of `src`.
    schema
        A `Schema`, the path of a TOML file, or None (the WORLD's or the source's own, else inferred).
    source
        Key of the raw format; None finds it out.
    force
        Replace an existing LOG.
    resume
        Go on with what an interrupted preparation left.
    options
        ``fields``, ``threshold`` and ``propensity`` of the source; ``split``, ``vocabulary``, ``min_count``,
        ``orphan_conversions``, ``max_reject_ratio``, ``allow_overlap`` of the preparation.

    Raises
    ------
    PostclickError
        What is wrong with the input, all findings together.
    """
    from postclick.binding import bind
    from postclick.data import prepare as preparing
    from postclick.data.sources.opening import open_source
    from postclick.data.truth import world_truth
    from postclick.schema import Schema

    reading = {name: options.pop(name) for name in ("fields", "threshold", "propensity") if name in options}
    if isinstance(options.get("vocabulary"), str):
        options["vocabulary"] = Path(options["vocabulary"])
    chosen = preparing.PrepareOptions(**bind(preparing.PrepareOptions, options, where="prepare"))
    given = Schema.from_toml(schema) if isinstance(schema, str | Path) else schema
    opened = open_source(src, key=source, train=train, valid=valid, test=test, schema=given, **reading)
    return preparing.prepare(opened, out, chosen, truth=world_truth(src), force=force, resume=resume)
