"""Write the world of a reward model (`postclick.simulation.reward`): vectors, labels, truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from postclick import files, progress
from postclick.schema import Columns, EmbeddingFeature, Schema
from postclick.simulation.parquet import ParquetFile
from postclick.simulation.reward import Ratings, RewardKnobs, draw_ratings

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["write_reward"]

_TRUTH = ("ctr", "cvr_do", "cvr_click", "ctcvr")


def reward_schema(knobs: RewardKnobs) -> Schema:
    """Return the schema: one vector, the funnel under the names of annotation."""
    columns = Columns(
        click="annotated",
        conversion="preferred",
        exposure_id="exposure_id",
        time="time",
        propensity="propensity" if knobs.has_propensity else None,
    )
    return Schema((EmbeddingFeature("embedding", knobs.size, "item"),), columns)


def write_reward(knobs: RewardKnobs, seed: int, exposures: int, folder: Path) -> dict[str, Any]:
    """Write ``exposures/``, ``truth.parquet`` and ``schema.toml``; return counts and rates, as `World` has them."""
    counts, sums = dict.fromkeys(("clicks", "conversions"), 0), dict.fromkeys(_TRUTH, 0.0)
    inner = folder / "exposures"
    inner.mkdir()
    with (
        ParquetFile(inner / "part-00000.parquet") as rows,
        ParquetFile(folder / "truth.parquet") as truth,
        progress.bar("simulating", exposures) as advance,
    ):
        for part in draw_ratings(knobs, seed, exposures):
            rows.write(_rows(knobs, part))
            truth.write(_batch({"exposure_id": part.exposure_id} | {name: getattr(part, name) for name in _TRUTH}))
            counts["clicks"] += int(part.click.sum())
            counts["conversions"] += int(part.conversion.sum())
            for name in _TRUTH:
                sums[name] += float(getattr(part, name).sum())
            advance(len(part))
    files.write_text(folder / "schema.toml", reward_schema(knobs).to_toml())
    rates = {"ctr": sums["ctr"] / exposures, "cvr_do": sums["cvr_do"] / exposures}
    rates |= {"cvr_click": sums["ctcvr"] / sums["ctr"], "ctcvr": sums["ctcvr"] / exposures}
    return {"counts": counts, "rates": rates}


def _rows(knobs: RewardKnobs, part: Ratings) -> pa.RecordBatch:
    import pyarrow as pa

    columns: dict[str, Any] = {
        "exposure_id": part.exposure_id,
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(part.vector.ravel()), knobs.size),
        "time": part.time,
        "annotated": part.click,
        "preferred": part.conversion,
    }
    if knobs.has_propensity:
        columns["propensity"] = part.propensity
    return _batch(columns)


def _batch(columns: dict[str, Any]) -> pa.RecordBatch:
    import pyarrow as pa

    arrays = {name: pa.array(each) if isinstance(each, np.ndarray) else each for name, each in columns.items()}
    return pa.RecordBatch.from_pydict(arrays)
