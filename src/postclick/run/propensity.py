"""A trained bundle in the place of a logged propensity: its CTR on the training rows."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from postclick.bundle import Bundle
from postclick.data.log import ExposureLog
from postclick.errors import ConfigError, Finding
from postclick.models.base import ConversionModel
from postclick.run.config import RunConfig
from postclick.run.stages import PropensityBundle

__all__ = ["propensity_bundle", "require_reader"]

_WHERE = "training.propensity_bundle"
_HASH = re.compile(r"[0-9a-f]{64}")


def propensity_bundle(config: RunConfig, log: ExposureLog) -> tuple[RunConfig, PropensityBundle | None]:
    """Load the bundle that `config` names; returns the configuration with its hash in place of its path.

    Raises
    ------
    ConfigError
        ``config.value``: a hash, as a RUN's ``config.toml`` records it, and no such file.
    InputMissingError, TrustError, BundleError
        As `Bundle.load`.
    DataError
        ``data.schema_mismatch`` or ``data.vocabulary_mismatch``: it reads other features or another vocabulary.
    """
    path = config.training.propensity_bundle
    if path is None:
        return config, None
    if _HASH.fullmatch(path) and not Path(path).exists():
        what = "this is the hash of a bundle, as config.toml records it"
        raise ConfigError(Finding("config.value", what, _WHERE, fix="give the path of the RUN or BUNDLE"))
    bundle = Bundle.load(path)
    bundle.require_fit(log)
    return replace(config, training=replace(config.training, propensity_bundle=bundle.hash)), PropensityBundle(bundle)


def require_reader(model: ConversionModel, system: str) -> None:
    """Refuse a bundle that nothing would read.

    Raises
    ------
    ConfigError
        ``config.combination``: the system's loss reads no logged propensity as it is set.
    """
    if not model.reads_propensity:
        what = f"{system!r} reads no logged propensity as it is set, so the bundle would weigh nothing"
        fix = "use --set propensity=logged with a system that has it (postclick systems --json), or give no bundle"
        raise ConfigError(Finding("config.combination", what, _WHERE, fix=fix))
