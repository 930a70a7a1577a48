"""Which calibrator each head gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from postclick.binding import Argument
from postclick.errors import ConfigError, Finding, nearest
from postclick.schema import Schema

__all__ = ["CalibrationConfig", "Method"]

Method: TypeAlias = Literal["none", "platt", "temperature", "beta", "isotonic", "field-aware"]
_HEADS = ("ctr", "cvr", "ctcvr")


@dataclass(frozen=True)
class CalibrationConfig:
    """Calibrators by head; ``off`` is ``none``.

    Parameters
    ----------
    ctr
        Fitted on all exposures against the click.
    cvr
        Fitted on clicked exposures against the conversion; without effect where cvr is derived.
    ctcvr
        Fitted on all exposures against click and conversion, for systems whose own head is ctcvr (their cvr is then
        derived from the calibrated pair); elsewhere ctcvr is the product of the calibrated ctr and cvr.
    fields
        Sparse features whose values shift the log-odds of the ``field-aware`` heads.
    weights
        ``ips`` weighs the clicks that the cvr is fitted on by 1 / propensity, so that its mean is right over exposures,
        for systems whose losses are weighted so. None is the mean over clicks.
    propensity
        Of ``ips``: the calibrated ``ctr``, or the ``logged`` one.

    Raises
    ------
    ConfigError
        ``config.combination`` for ``field-aware`` without fields, and for fields without a ``field-aware`` head.
    """

    ctr: Annotated[Method | None, Argument("calibrator of the CTR, fitted on exposures; off: none")] = "platt"
    cvr: Annotated[Method | None, Argument("calibrator of the CVR, fitted on clicks; off: none")] = "platt"
    ctcvr: Annotated[Method | None, Argument("calibrator of a CTCVR head, fitted on exposures; off: none")] = "platt"
    fields: Annotated[tuple[str, ...], Argument("sparse features that a field-aware calibrator reads")] = ()
    weights: Annotated[
        Literal["ips"] | None, Argument("ips: clicks weighed by 1 / propensity when the CVR is fitted; off: alike")
    ] = None
    propensity: Annotated[
        Literal["ctr", "logged"], Argument("propensity of the ips weights: the calibrated CTR, or the logged one")
    ] = "ctr"

    def __post_init__(self) -> None:
        for head in _HEADS:
            if getattr(self, head) is None:
                object.__setattr__(self, head, "none")
        aware = [head for head in _HEADS if getattr(self, head) == "field-aware"]
        where = "calibration.fields"
        if aware and not self.fields:
            what = f"{' and '.join(aware)} shall be field-aware, and no field is named"
            fix = "name sparse features: --set 'calibration.fields=[\"campaign\"]'"
            raise ConfigError(Finding("config.combination", what, where, fix=fix))
        if self.fields and not aware:
            what = f"fields are named ({', '.join(self.fields)}), and no head is field-aware"
            raise ConfigError(Finding("config.combination", what, where, fix="--set calibration.cvr=field-aware"))
        twice = sorted({name for name in self.fields if self.fields.count(name) > 1})
        if twice:
            raise ConfigError(Finding("config.value", f"named twice: {', '.join(twice)}", where))

    def require(self, schema: Schema) -> None:
        """Refuse what `schema` does not have.

        Raises
        ------
        ConfigError
            Fields that are no sparse features, with the likely spelling; a logged propensity without its column.
        """
        known = [feature.name for feature in schema.sparse]
        problems = []
        for name in self.fields:
            if name not in known:
                near = nearest(name, known)
                fix = f"did you mean {near!r}?" if near else f"sparse features: {', '.join(known) or 'none'}"
                problems.append(
                    Finding("config.value", f"{name!r} is no sparse feature", "calibration.fields", fix=fix)
                )
        if self.weights and self.propensity == "logged" and schema.columns.propensity is None:
            fix = "name the column in the schema (propensity = ...) and prepare the log again, or use propensity = ctr"
            what = "the log has no logged propensity"
            problems.append(Finding("config.combination", what, "calibration.propensity", fix=fix))
        if problems:
            raise ConfigError(*problems)
