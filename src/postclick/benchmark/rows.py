"""The rows of ``runs.jsonl``: one a run, equal for equal inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["RunRow"]


@dataclass(frozen=True)
class RunRow:
    """One run: what it is, what chose it, what it measured.

    Parameters
    ----------
    key
        ``DATA/LABEL/seed-NNN``, or ``DATA/LABEL/SETTING/seed-NNN`` under a grid, SETTING a hash: its folder under
        ``runs/``. A run that tried the setting which was then chosen is a final one, too, on a line of its own.
    data, label, system, stage, seed
        Which; `stage` is ``grid`` or ``final``.
    bundle
        Hash of its bundle.
    config
        Hash of its configuration: equal ones are trained alike.
    log
        Hash of the log it was trained on.
    settings
        Its whole configuration.
    chosen
        The part of it that the grid varies.
    valid
        What the choice looked at; None for a final run.
    metrics
        Of the judged split, final runs only.
    """

    key: str
    data: str
    label: str
    system: str
    stage: str
    seed: int
    bundle: str
    config: str = ""
    log: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    chosen: Mapping[str, Any] = field(default_factory=dict)
    valid: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """Return its line of ``runs.jsonl``."""
        return json.dumps(asdict(self), sort_keys=True, allow_nan=False, ensure_ascii=False)
