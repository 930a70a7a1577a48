"""``postclick evaluate``: the metrics of a trained system on a split of a log."""

from __future__ import annotations

from typing import Annotated

import typer

from postclick.cli.options import Json, LogFolder, Quiet, Split, SplitName, Trained
from postclick.cli.output import Output

__all__ = ["evaluate"]


def evaluate(
    trained: Trained,
    log: LogFolder,
    split: Split = SplitName.TEST,
    by: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Also for each value of this column; repeat for several.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate a RUN or BUNDLE on a split of a LOG; every metric is named HEAD/METRIC@POPULATION and has its interval.

    @exposure: all rows. @click: clicked rows, the only ones where a conversion can be observed. @world: against the
    true probabilities, on simulated logs. A metric that the rows do not define is undefined, not a number. Beside ece
    and field_rce, which are above 0 for perfect scores too, stands where they would lie were the scores calibrated.
    Where a system has gates: how each task uses the experts, and which have collapsed. The mean CVR and its log-loss
    over all exposures are also estimated from the clicked rows (estimator=naive, ips, snips, dr), with the overlap of
    clicks and exposures that the weighted ones rest on; where it is too thin they are withheld.

    Example: postclick evaluate run log --by campaign

    Next: postclick score run SRC --out scores.parquet
    """
    from postclick.cli.tables import experts_parts, metrics_parts, overlap_parts
    from postclick.run import evaluate_bundle

    output = Output(as_json, quiet)
    result = evaluate_bundle(trained, log, split=split.value, by=by or []).to_dict()
    for note in result["ledger"].get("notes", []):
        output.note(note)
    title = f"{trained} on {split.value} of {log}"
    parts = (*experts_parts(result.get("experts")), *overlap_parts(result.get("overlap")))
    output.result(result, *metrics_parts(title, result["metrics"]), *parts)
    output.note(f"next: postclick score {trained} {log} --split {split.value} --out scores.parquet")
