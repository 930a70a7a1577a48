"""Write a world: draw chunk by chunk, write as it is drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from postclick import files, progress
from postclick.binding import plain
from postclick.errors import ConfigError, Finding, nearest
from postclick.simulation.ali_ccp import AliCcpLayout
from postclick.simulation.behaviour import BEHAVIOUR_COLUMNS, psc_gap
from postclick.simulation.chunks import Chunk, Outcomes, Plan, draw, draw_outcomes, plan, solve
from postclick.simulation.parquet import ParquetFile, ParquetLayout
from postclick.simulation.preferences import write_reward
from postclick.simulation.presets import Knobs, resolve
from postclick.simulation.reward import RewardKnobs
from postclick.simulation.world import MEAN_DELAY, TRUTH_COLUMNS, WORLD_FORMAT, Layout, World

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["simulate"]

_LAYOUTS: dict[str, type[ParquetLayout] | type[AliCcpLayout]] = {"parquet": ParquetLayout, "ali-ccp": AliCcpLayout}
_MOST_EXPOSURES = 10**10


def simulate(
    out: str | Path,
    *,
    world: str = "selection",
    knobs: Mapping[str, Any] = {},
    exposures: int = 200_000,
    seed: int = 0,
    layout: Layout = "parquet",
    full_vocabulary: bool = False,
    force: bool = False,
) -> World:
    """Simulate an exposure log whose true CTR and CVR are known; equal arguments give equal bytes.

    Memory grows with the number of users and items, not with `exposures`. The equations are in `postclick.simulation`.

    Parameters
    ----------
    out
        The WORLD folder to write.
    world
        A preset: a key of `PRESETS`.
    knobs
        Knobs turned away from the preset: fields of `Knobs`, of the world ``reward`` those of `RewardKnobs`.
    exposures
        Rows.
    seed
        Another seed gives another population and another log.
    layout
        ``parquet``, or ``ali-ccp`` for the provider's raw files.
    full_vocabulary
        Give every id as many values as Ali-CCP has (a short log meets only some of them).
    force
        Replace an existing output.

    Raises
    ------
    ConfigError
        Unknown world, knob or layout (with the likely spelling), a value out of its range, or in-shop actions, a logged
        propensity or times of conversions in the layout ``ali-ccp``, which has no column for them.
    StorageError
        `out` exists and `force` is off, or the disk fails.
    """
    _check(exposures, seed, layout)
    turned = resolve(world, knobs)
    _check_columns(turned, layout)
    target = Path(out)
    files.check_free(target, force=force)
    with files.new_folder(target, "world", force=force) as folder:
        if isinstance(turned, RewardKnobs):
            written = write_reward(turned, seed, exposures, folder)
        else:
            written = _written(plan(turned, exposures, seed, full_vocabulary=full_vocabulary), folder, layout)
        body = {
            "format": WORLD_FORMAT,
            "world": world,
            "knobs": turned.to_dict(),
            "exposures": exposures,
            "seed": seed,
            "layout": layout,
            "full_vocabulary": full_vocabulary,
            **written,
        }
        files.write_json(folder / "world.json", body)
    return World.open(target)


def _check(exposures: int, seed: int, layout: str) -> None:
    """Report every argument that does not fit."""
    wrong = []
    if not 1 <= exposures <= _MOST_EXPOSURES:
        wrong.append(Finding("config.value", f"{exposures} is not from 1 to {_MOST_EXPOSURES}", "exposures"))
    if not 0 <= seed < 2**63:
        wrong.append(Finding("config.value", f"{seed} is not from 0 to 2^63 - 1", "seed"))
    if layout not in _LAYOUTS:
        near = nearest(layout, _LAYOUTS)
        fix = f"did you mean {near!r}?" if near else f"known formats: {', '.join(get_args(Layout))}"
        wrong.append(Finding("config.value", f"there is no format {layout!r}", "format", fix=fix))
    if wrong:
        raise ConfigError(*wrong)


def _check_columns(knobs: Knobs | RewardKnobs, layout: str) -> None:
    if isinstance(knobs, RewardKnobs):
        asked = {"a vector": True}
    else:
        asked = {
            "in-shop actions": knobs.action_rate > 0,
            "a logged propensity": knobs.logged_propensity,
            "times of conversions": knobs.delay > 0,
        }
    missing = [name for name, there in asked.items() if there]
    if missing and layout == "ali-ccp":
        fix = "take the format parquet, or a world without"
        what = f"the files of ali-ccp have no column for {' and '.join(missing)}"
        raise ConfigError(Finding("config.value", what, "format", fix=fix))


def _written(story: Plan, folder: Path, layout: Layout) -> dict[str, Any]:
    """Write the rows; return what was counted of them."""
    tally = _write(story, folder, layout)
    return {"vocabulary": plain(story.vocabularies), "counts": tally.counts(), "rates": tally.rates()}


def _write(story: Plan, folder: Path, layout: Layout) -> _Tally:
    intercepts = solve(story)
    tally = _Tally(story)
    with (
        _LAYOUTS[layout](story, folder) as target,
        ParquetFile(folder / "truth.parquet") as truth,
        progress.bar("simulating", story.exposures) as advance,
    ):
        for index in range(story.chunks):
            chunk = draw(story, index)
            outcomes = draw_outcomes(story, intercepts, chunk)
            target.write(index, chunk, outcomes)
            truth.write(_truth(chunk, outcomes))
            tally.add(chunk, outcomes)
            advance(len(chunk))
    files.write_text(folder / "schema.toml", target.schema.to_toml())
    return tally


def _truth(chunk: Chunk, outcomes: Outcomes) -> pa.RecordBatch:
    import pyarrow as pa

    columns = {"exposure_id": chunk.exposure_id} | {name: getattr(outcomes, name) for name in TRUTH_COLUMNS}
    if outcomes.behaviour is not None:
        columns |= {name: getattr(outcomes.behaviour, name) for name in BEHAVIOUR_COLUMNS}
    if outcomes.times is not None:
        columns[MEAN_DELAY] = outcomes.times.mean_delay
    return pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in columns.items()})


@dataclasses.dataclass
class _Tally:
    """Counts and true means, summed chunk by chunk."""

    story: Plan
    rows: int = 0
    clicks: int = 0
    conversions: int = 0
    orphans: int = 0
    ctr: float = 0.0
    cvr_do: float = 0.0
    ctcvr: float = 0.0
    actions: int = 0
    orphan_actions: int = 0
    without_action: int = 0
    ctar: float = 0.0
    ctcvr_without_action: float = 0.0
    late: int = 0
    waited: float = 0.0
    users: NDArray[np.bool_] = dataclasses.field(init=False)
    items: NDArray[np.bool_] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.users = np.zeros(self.story.vocabularies.users, bool)
        self.items = np.zeros(self.story.vocabularies.items, bool)

    def add(self, chunk: Chunk, outcomes: Outcomes) -> None:
        """Count a chunk."""
        click, conversion = outcomes.click == 1, outcomes.conversion == 1
        self.rows += len(chunk)
        self.clicks += int(click.sum())
        self.conversions += int((conversion & click).sum())
        self.orphans += int((conversion & ~click).sum())
        self.ctr += float(outcomes.ctr.sum())
        self.cvr_do += float(outcomes.cvr_do.sum())
        self.ctcvr += float(outcomes.ctcvr.sum())
        if outcomes.action is not None and outcomes.behaviour is not None:
            true = outcomes.behaviour
            self.actions += int(outcomes.action[click].sum())
            self.orphan_actions += int(outcomes.action[~click].sum())
            self.without_action += int((conversion & click & (outcomes.action == 0)).sum())
            self.ctar += float(true.ctar.sum())
            self.ctcvr_without_action += float(psc_gap(outcomes.ctr, true).without_action.sum())
        if outcomes.times is not None:
            self.late += outcomes.times.late
            self.waited += float(outcomes.ctcvr @ outcomes.times.mean_delay)
        self.users[chunk.user] = True
        self.items[chunk.item] = True

    def counts(self) -> dict[str, int]:
        """Return the counts of `World`."""
        acting = {
            "actions": self.actions,
            "orphan_actions": self.orphan_actions,
            "conversions_without_action": self.without_action,
        }
        counts = {
            "clicks": self.clicks,
            "conversions": self.conversions,
            "orphan_conversions": self.orphans,
            "users": int(self.users.sum()),
            "items": int(self.items.sum()),
        }
        late = {"late_conversions": self.late} if self.story.knobs.delay else {}
        return counts | (acting if self.story.knobs.action_rate else {}) | late

    def rates(self) -> dict[str, float]:
        """Return the rates of `World`."""
        acting = {
            "action": self.ctar / self.ctr,
            "ctar": self.ctar / self.rows,
            "without_action": self.ctcvr_without_action / self.ctcvr,
        }
        rates = {
            "ctr": self.ctr / self.rows,
            "cvr_do": self.cvr_do / self.rows,
            "cvr_click": self.ctcvr / self.ctr,
            "ctcvr": self.ctcvr / self.rows,
        }
        delay = {"mean_delay": self.waited / self.ctcvr} if self.story.knobs.delay else {}
        return rates | (acting if self.story.knobs.action_rate else {}) | delay
