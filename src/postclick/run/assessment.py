"""Judge a bundle on a split of a log: scored through the Scorer, measured by `evaluation`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick import files, progress
from postclick.bundle import Bundle, Scorer
from postclick.data.arrays import Labels
from postclick.data.audit import UNSEEN_ALERT
from postclick.data.log import ExposureLog, LogSplit
from postclick.data.scores import Scores
from postclick.errors import ConfigError, Finding, InputMissingError, nearest
from postclick.evaluation import EvaluationResult, EvaluationRows, evaluate, expert_use, group_codes, verdicts
from postclick.metrics.overlap import RELATIVE_FLOOR
from postclick.models.gates import GateSums

__all__ = ["evaluate_bundle", "judged_rows"]

EVALUATION = "evaluation.json"


def evaluate_bundle(
    path: str | Path,
    log: ExposureLog | str | Path,
    *,
    split: str = "test",
    by: Sequence[str] = (),
    seed: int = 0,
    device: str = "cpu",
    metrics: Sequence[str] | None = None,
) -> EvaluationResult:
    """Return the metrics of a RUN or BUNDLE on a split.

    Those of a RUN on the whole test split of its own log are also left in its ``evaluation.json``.

    Parameters
    ----------
    path
        RUN or BUNDLE.
    log
        A LOG with the bundle's features and vocabulary.
    split
        ``train``, ``valid`` or ``test``.
    by
        Columns whose values get metrics of their own: sparse features, or the campaign.
    seed
        Of the bootstraps.
    device
        Where the network runs.
    metrics
        Metrics or full names in place of the default set; the result is then not left in the RUN.

    Raises
    ------
    DataError
        The log has other features, or was encoded with another vocabulary.
    ConfigError
        A column in `by` that the log has not.
    InputMissingError
        The split has no rows.
    """
    log = log if isinstance(log, ExposureLog) else ExposureLog(log)
    bundle = Bundle.load(path)
    bundle.require_fit(log)
    gates = GateSums()
    rows, ledger, notes = judged_rows(Scorer(bundle, device), log, split, by, gates)
    population = log.schema.population
    found = evaluate(
        rows,
        metrics=metrics,
        seed=seed,
        population=population,
        split=split,
        bundle=bundle.hash,
        log=log.hash,
        ledger=ledger,
    )
    experts = expert_use(gates.totals)
    notes = [*found.notes, *notes, *verdicts(experts)]
    result = replace(found, ledger={**found.ledger, "notes": notes}, experts=experts)
    own = log.hash == bundle.header.log and split == "test" and not by and metrics is None
    if own and bundle.path != Path(path):
        files.write_json(Path(path) / EVALUATION, result.to_dict())
    return result


def judged_rows(
    scorer: Scorer, log: ExposureLog, split: str, by: Sequence[str] = (), gates: GateSums | None = None
) -> tuple[EvaluationRows, dict[str, Any], list[str]]:
    """Score a split block by block and join what else is known of its rows; `gates` takes in those of the system.

    Returns
    -------
    tuple
        The rows, what was counted on the way, and sentences for the reader.
    """
    part = log.split(split)
    if not len(part):
        fix = f"splits with rows: {', '.join(log.splits) or 'none'}"
        raise InputMissingError(Finding("data.empty", f"the split {split!r} has no rows", str(log.path), fix=fix))
    sliced = _slice_fields(log, by)
    scores, table_rows = _score_blocks(scorer, part, gates)
    labels = part.labels()
    slices = {name: _slice_values(scorer, name, place, table_rows, labels) for name, place in sliced.items()}
    cold = {role: _cold(log, f"{role}_id", table_rows) for role in ("user", "item")}
    truth, floor = log.truth(split), _propensity_floor(scorer.bundle)
    rows = EvaluationRows(
        labels, scores, truth, slices, cold["user"], cold["item"], _new_pair(log, split, labels), floor
    )
    ledger, notes = _counted(scorer.bundle, scores, table_rows)
    return rows, ledger, notes


def _propensity_floor(bundle: Bundle) -> float:
    """Return the smallest propensity to divide by, relative to the click rate of the log the bundle was trained on."""
    spec = bundle.header.log_spec(bundle.schema)
    if bundle.calibration.sampling is None:
        return RELATIVE_FLOOR * spec.ctr
    keep = bundle.calibration.sampling.keep  # the spec counts the sample
    clicks = spec.conversions + (spec.clicks - spec.conversions) / keep.clicked
    return RELATIVE_FLOOR * clicks / (clicks + (spec.rows - spec.clicks) / keep.unclicked)


def _score_blocks(scorer: Scorer, part: LogSplit, gates: GateSums | None) -> tuple[Scores, NDArray[np.int32]]:
    """Return scores and sparse table rows [B, F] of a whole split."""
    parts: list[Scores] = []
    rows: list[NDArray[np.int32]] = []
    with progress.bar("Scoring", len(part)) as advance:
        for block in part.blocks():
            parts.append(scorer.score(block.without_labels(), observe=None if gates is None else gates.add))
            rows.append(block.rows)
            advance(len(block))
    return Scores.concatenate(parts), np.concatenate(rows)


def _slice_fields(log: ExposureLog, by: Sequence[str]) -> dict[str, int | None]:
    """Return column -> its place among the sparse features, None for the campaign; all unknown ones reported."""
    places: dict[str, int | None] = {feature.name: index for index, feature in enumerate(log.schema.sparse)}
    campaign = log.schema.columns.campaign
    if campaign is not None:
        places.setdefault(campaign, None)
    problems = []
    for name in by:
        if name not in places:
            near = nearest(name, places)
            fix = f"did you mean {near!r}?" if near else f"columns: {', '.join(places)}"
            problems.append(Finding("config.value", f"there is no column {name!r} to slice by", "--by", fix=fix))
    if problems:
        raise ConfigError(*problems)
    return {name: places[name] for name in by}


def _slice_values(
    scorer: Scorer, name: str, place: int | None, table_rows: NDArray[np.int32], labels: Labels
) -> NDArray[Any]:
    if place is None:
        assert labels.campaign is not None
        return labels.campaign
    import pyarrow as pa

    values = scorer.bundle.encoder.vocabulary.decode(name, table_rows[:, place])
    text = values.cast(pa.large_string()).fill_null("(unknown)")
    return np.asarray(text.to_numpy(zero_copy_only=False), dtype=object)


def _cold(log: ExposureLog, role: str, table_rows: NDArray[np.int32]) -> NDArray[np.bool_] | None:
    """Return which rows have an entity that training has not seen; None where its id is no feature."""
    names = [feature.name for feature in log.schema.sparse]
    column = getattr(log.schema.columns, role)
    if column not in names:
        return None
    place = names.index(column)
    mask: NDArray[np.bool_] = table_rows[:, place] == place
    return mask


def _new_pair(log: ExposureLog, split: str, labels: Labels) -> NDArray[np.bool_] | None:
    """Return which rows pair a user with an item that no click of the other splits does; None where none is randomised.

    Under the protocol of rating data a test pair may also have been rated in training.
    """
    if labels.randomised is None or not bool(np.any(labels.randomised == 1)):
        return None
    if labels.user_id is None or labels.item_id is None:
        return None
    others = (block.labels for name in log.splits if name != split for block in log.split(name).blocks())
    clicked = [part.take(part.click == 1) for part in others if part is not None]
    users, items = (
        group_codes(np.concatenate([getattr(part, column) for part in (labels, *clicked)]))
        for column in ("user_id", "item_id")
    )
    pair = users.astype(np.int64) * (int(items.max()) + 1) + items
    return ~np.isin(pair[: len(labels)], pair[len(labels) :])


def _counted(bundle: Bundle, scores: Scores, table_rows: NDArray[np.int32]) -> tuple[dict[str, Any], list[str]]:
    names = [feature.name for feature in bundle.schema.sparse]
    shares = (table_rows == np.arange(len(names))).mean(axis=0) if len(table_rows) else np.zeros(len(names))
    unknown = {name: float(share) for name, share in zip(names, shares, strict=True)}
    above = int((scores.odds["ctcvr"] > scores.odds["ctr"]).sum())
    ledger = {"unknown_row_share": unknown, "ctcvr_above_ctr": above}
    unseen = [_unseen(name, share) for name, share in unknown.items() if share > UNSEEN_ALERT]
    return ledger, [*unseen, *_sentences(bundle, scores, above)]


def _unseen(name: str, share: float) -> str:
    """Warn of a field (D12); a log does not tell missing values from unseen ones."""
    what = f"{share:.1%} of the values of {name!r} are missing or were not seen in training"
    fix = "train again on newer rows, or check that the column holds what it held in training"
    return str(Finding("data.unseen", what, name, fix=fix))


def _sentences(bundle: Bundle, scores: Scores, above: int) -> Iterator[str]:
    rows = max(len(scores), 1)
    if scores.derived:
        share = scores.clipped / rows
        yield f"{', '.join(sorted(scores.derived))} is derived as a quotient; {share:.2%} of the rows were clipped"
    if above:
        yield f"ctcvr is above ctr on {above} rows ({above / rows:.2%})"
    for head, constant in bundle.header.constants.items():
        yield f"{head} is a constant prior: training had {constant.positives} positives on {constant.rows} rows"
    for head, entry in bundle.calibration.heads.items():
        if entry.reason:
            yield f"{head} is not calibrated: {entry.reason}"
