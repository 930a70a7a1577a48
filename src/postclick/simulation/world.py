"""A simulated log on disk whose true probabilities are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from postclick import files
from postclick.binding import bind
from postclick.data.log import Truth
from postclick.errors import DataError, Finding, InputMissingError
from postclick.schema import Schema
from postclick.simulation.behaviour import BEHAVIOUR_COLUMNS, Behaviour
from postclick.simulation.presets import Knobs
from postclick.simulation.reward import REWARD, RewardKnobs

__all__ = ["MEAN_DELAY", "TRUTH_COLUMNS", "WORLD_FORMAT", "Layout", "World"]

Layout = Literal["parquet", "ali-ccp"]
WORLD_FORMAT = 1
MEAN_DELAY = "mean_delay"
TRUTH_COLUMNS = ("ctr", "cvr_do", "cvr_click", "ctcvr")


@dataclass(frozen=True)
class World:
    """A WORLD folder.

    Parameters
    ----------
    path
        The folder.
    preset, knobs, seed, exposures, full_vocabulary
        What it was made of.
    layout
        ``parquet`` or ``ali-ccp``.
    schema
        Of its exposures.
    counts
        ``clicks, conversions`` (after a click), ``orphan_conversions, users, items`` (entities exposed; the last three
        not in the world ``reward``); with actions
        also ``actions`` (logged after a click), ``orphan_actions`` and ``conversions_without_action`` (logged ones);
        with delays ``late_conversions``, those that had not come by the end of the observation.
    rates
        True means: ``ctr`` over exposures, ``cvr_click`` over clicks (expected), ``cvr_do`` over exposures, ``ctcvr``;
        with actions also ``action`` over clicks (expected), ``ctar``, and ``without_action``, the share of expected
        conversions that no logged action comes before; with delays ``mean_delay``, days, over expected conversions.
    hash
        Identity of the content.
    """

    path: Path
    preset: str
    knobs: Knobs | RewardKnobs
    seed: int
    exposures: int
    full_vocabulary: bool
    layout: Layout
    schema: Schema
    counts: Mapping[str, int]
    rates: Mapping[str, float]
    hash: str

    @classmethod
    def open(cls, path: str | Path) -> World:
        """Open a WORLD folder.

        Raises
        ------
        InputMissingError
            When there is no WORLD at `path`; names the kind that was found.
        """
        folder = Path(path)
        manifest = files.read_manifest(folder, "world")
        body: dict[str, Any] = files.read_json(folder / "world.json")
        if body.get("format") != WORLD_FORMAT:
            what = f"format {body.get('format')!r} is not {WORLD_FORMAT}"
            raise DataError(Finding("data.version", what, str(folder / "world.json"), fix="simulate the world again"))
        knobs = {name: None if value == "off" else value for name, value in body["knobs"].items()}
        kind = RewardKnobs if body["world"] == REWARD else Knobs
        return cls(
            path=folder,
            preset=body["world"],
            knobs=kind(**bind(kind, knobs, where="world.json.knobs")),
            seed=body["seed"],
            exposures=body["exposures"],
            full_vocabulary=body["full_vocabulary"],
            layout=body["layout"],
            schema=Schema.from_toml(folder / "schema.toml"),
            counts=body["counts"],
            rates=body["rates"],
            hash=manifest.hash,
        )

    def truth(self) -> Truth:
        """Return the true probabilities, float64 [exposures] each, in the order of the exposure ids 1, 2, 3, ..."""
        import pyarrow.parquet as pq

        table = pq.read_table(self.path / "truth.parquet")
        names = (*TRUTH_COLUMNS, *(("action", "ctar") if self.knobs.action_rate else ()))
        return Truth(**{name: np.asarray(table.column(name), np.float64) for name in names})

    def mean_delay(self) -> NDArray[np.float64]:
        """Return the true mean delay, in days, of a conversion of each exposure, in the order of `truth`.

        Raises
        ------
        InputMissingError
            In a world whose conversions come at once.
        """
        import pyarrow.parquet as pq

        if not getattr(self.knobs, "delay", 0.0):
            what, fix = f"conversions of the world {self.preset!r} come at once", "simulate the world delayed"
            raise InputMissingError(Finding("input.missing", what, str(self.path), fix=fix))
        table = pq.read_table(self.path / "truth.parquet", columns=[MEAN_DELAY])
        return np.asarray(table.column(MEAN_DELAY), np.float64)

    def behaviour(self) -> Behaviour:
        """Return the true probabilities of the behaviour path, in the order of `truth`.

        Raises
        ------
        InputMissingError
            In a world without in-shop actions.
        """
        import pyarrow.parquet as pq

        if not self.knobs.action_rate:
            what = f"the world {self.preset!r} has no in-shop actions"
            raise InputMissingError(Finding("input.missing", what, str(self.path), fix="simulate the world shop-path"))
        table = pq.read_table(self.path / "truth.parquet", columns=list(BEHAVIOUR_COLUMNS))
        return Behaviour(**{name: np.asarray(table.column(name), np.float64) for name in BEHAVIOUR_COLUMNS})
