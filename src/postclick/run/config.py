"""What decides a run besides its log: system, arguments, training, calibration, seed; ``config.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from postclick.binding import bind, dotted, plain, unknown_key
from postclick.calibration import CalibrationConfig
from postclick.errors import ConfigError, Finding, InputMissingError
from postclick.models.catalog import resolve_arguments
from postclick.training.config import SAFE_TO_CHANGE, TrainingConfig

__all__ = ["RunConfig", "differences"]

CONFIG_FORMAT = 1
DEVICES = ("auto", "cpu", "cuda")
_SECTIONS = ("arguments", "training", "calibration")
_KNOWN = dict.fromkeys(("format", "system", "seed", "device", "log", *_SECTIONS))
Section = TypeVar("Section")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run, but the log.

    Parameters
    ----------
    system
        Key of the table of systems.
    arguments
        The system's own arguments, plain values; those left out take their defaults.
    training
        The loop.
    calibration
        Calibrators by head.
    seed
        Equal seeds give equal bytes on CPU at the same thread count.
    device
        ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    ConfigError
        An unknown device, system or argument, or a value of the wrong type; all together.
    """

    system: str = "esmm"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        problems = _scalars({"system": self.system, "seed": self.seed, "device": self.device})
        try:
            if not any(problem.where == "system" for problem in problems):
                object.__setattr__(self, "arguments", resolve_arguments(self.system, self.arguments))
        except ConfigError as error:
            problems += error.findings
        if problems:
            raise ConfigError(*problems)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """Build from the plain form: ``system, seed, device`` and tables ``arguments, training, calibration``.

        The hash of the log in a run's own file is not an instruction and is left aside.

        Raises
        ------
        ConfigError
            All mistakes together, with the likely spelling.
        """
        problems = [unknown_key(key, key, _KNOWN) for key in values if key not in _KNOWN]
        if values.get("format", CONFIG_FORMAT) != CONFIG_FORMAT:
            what = f"format {values['format']!r} is not {CONFIG_FORMAT}"
            problems.append(Finding("config.value", what, "format", fix="upgrade postclick"))
        tables = {name: _table(values, name, problems) for name in _SECTIONS}
        training = _collect(problems, lambda: _bound(TrainingConfig, tables["training"], "training"))
        calibration = _collect(problems, lambda: _bound(CalibrationConfig, tables["calibration"], "calibration"))
        scalars = {name: values[name] for name in ("system", "seed", "device") if name in values}
        built = _collect(problems, lambda: cls(arguments=tables["arguments"], **scalars))
        if problems or built is None or training is None or calibration is None:
            raise ConfigError(*problems)
        return cls(built.system, built.arguments, training, calibration, built.seed, built.device)

    @classmethod
    def from_toml(cls, path: str | Path) -> RunConfig:
        """Read a TOML file, for instance the ``config.toml`` of a RUN."""
        return cls.from_dict(read_toml(Path(path)))

    def to_dict(self, log: str | None = None) -> dict[str, Any]:
        """Return the plain form with every argument resolved; `log` is the hash of the log that was used."""
        form: dict[str, Any] = {"format": CONFIG_FORMAT, "system": self.system, "seed": self.seed}
        form["device"] = self.device
        if log is not None:
            form["log"] = log
        return form | {name: plain(getattr(self, name)) for name in _SECTIONS}

    def to_toml(self, log: str | None = None) -> str:
        """Return the plain form as TOML text: no clock, no host, no path."""
        import tomli_w

        return tomli_w.dumps(self.to_dict(log))


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; a missing or malformed one is a typed error that names it."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise InputMissingError(Finding("input.missing", "no such file", str(path), fix="check the path")) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(Finding("config.toml", str(error), str(path))) from error


def differences(
    before: Mapping[str, Any], after: Mapping[str, Any], allowed: Iterable[str] = ()
) -> tuple[list[Finding], list[str]]:
    """Compare two plain forms field by field.

    Returns
    -------
    problems
        One ``ckpt.incompatible`` a field that differs and may not.
    changed
        Names of the fields that differ and may: safe ones that `allowed` names (with or without ``training.``).
    """
    named = {name.removeprefix("training.") for name in allowed}
    old, new = dotted(before), dotted(after)
    problems, changed = [], []
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) == new.get(key):
            continue
        leaf = key.removeprefix("training.")
        safe = key.startswith("training.") and leaf in SAFE_TO_CHANGE
        if safe and leaf in named:
            changed.append(key)
            continue
        what = f"the run was started with {old.get(key)!r}, this one asks for {new.get(key)!r}"
        fix = f"--allow-config-change {leaf}" if safe else "resume with the old value, or start another run"
        problems.append(Finding("ckpt.incompatible", what, key, fix=fix))
    return problems, changed


def _scalars(values: Mapping[str, Any]) -> list[Finding]:
    problems = []
    if type(values["seed"]) is not int or values["seed"] < 0:
        problems.append(Finding("config.value", f"expected an integer of at least 0, got {values['seed']!r}", "seed"))
    if not isinstance(values["system"], str):
        problems.append(Finding("config.value", f"expected the key of a system, got {values['system']!r}", "system"))
    if values["device"] not in DEVICES:
        what = f"expected one of {', '.join(DEVICES)}, got {values['device']!r}"
        problems.append(Finding("config.value", what, "device"))
    return problems


def _table(values: Mapping[str, Any], name: str, problems: list[Finding]) -> Mapping[str, Any]:
    table = values.get(name, {})
    if isinstance(table, Mapping):
        return table
    problems.append(Finding("config.value", f"expected a table, got {table!r}", name))
    return {}


def _bound(kind: Callable[..., Section], table: Mapping[str, Any], where: str) -> Section:
    return kind(**bind(kind, table, where=where))


def _collect(problems: list[Finding], make: Callable[[], Section]) -> Section | None:
    try:
        return make()
    except ConfigError as error:
        problems += error.findings
        return None
