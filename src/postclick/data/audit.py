"""Audit of a log: what a person should know before trusting it, as numbers and as sentences.

Each check is a function from `AuditFacts` to verdicts; a new check is a new function in `CHECKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from postclick.data.behaviour import ActionCounts
from postclick.data.cardinality import table_bytes
from postclick.data.clock import when
from postclick.data.encode import EncodeCounts
from postclick.data.ledger import Funnel, Ledger
from postclick.data.sampled import SampleFacts
from postclick.data.sources.base import SourceProtocol
from postclick.errors import Finding
from postclick.schema import Schema

__all__ = ["UNSEEN_ALERT", "AuditFacts", "Verdict", "audit_body", "audit_lines", "verdicts"]

AUDIT_FORMAT = 1
UNSEEN_ALERT = 0.1
"""A field with a larger share of values that training did not see is warned of (D12)."""
_ID_LIKE = 0.5
_ID_LIKE_ROWS = 100
_FEW_EFFECTIVE = 0.1
_SHOWN = 5
_ORDER = {"stop": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Verdict:
    """One sentence of the audit.

    Parameters
    ----------
    level
        ``note``, ``warning``, or ``stop`` for what `prepare` refuses.
    code
        Stable name.
    text
        The sentence.
    """

    level: Literal["note", "warning", "stop"]
    code: str
    text: str


@dataclass(frozen=True)
class AuditFacts:
    """What the checks look at.

    Parameters
    ----------
    schema
        The log's schema.
    protocol
        What the source declares.
    ledger
        Rows and values.
    split
        The plain form of the split plan.
    encoded
        Split -> what the encoder met.
    duplicates
        ``exact`` and ``conflicting`` later copies, or None where no exposure id is given.
    overlap
        ``keys``: pair of splits -> ids in both; ``time_us``: pair -> microseconds in both; ``allowed``.
    distinct
        Sparse field -> distinct values in the training rows.
    empty_files
        Files without rows.
    orphan_conversions
        The policy.
    sampled
        What the sample of rows says, or None.
    strays
        Rows rejected because their time lies far from all others.
    table_rows
        Rows of the embedding table, where there is one.
    refusals
        What `prepare` would stop for.
    """

    schema: Schema
    protocol: SourceProtocol
    ledger: Ledger
    split: Mapping[str, Any]
    encoded: Mapping[str, EncodeCounts] = field(default_factory=dict)
    duplicates: Mapping[str, int] | None = None
    overlap: Mapping[str, Any] = field(default_factory=dict)
    distinct: Mapping[str, int] = field(default_factory=dict)
    empty_files: Sequence[str] = ()
    orphan_conversions: str = "reject"
    sampled: SampleFacts | None = None
    strays: int = 0
    table_rows: int | None = None
    refusals: Sequence[Finding] = ()


def _funnel(facts: AuditFacts) -> list[Verdict]:
    found = []
    for name, funnel in facts.ledger.kept.items():
        rates = _rates(funnel)
        text = f"{name}: {funnel.rows:,} rows, CTR {_percent(rates['ctr'])}, CVR {_percent(rates['cvr'])}"
        found.append(Verdict("note", "audit.funnel", f"{text}, CTCVR {_percent(rates['ctcvr'])}."))
    return found


def _percent(rate: float | None) -> str:
    return "undefined" if rate is None else f"{100 * rate:.3g} %"


def _rates(funnel: Funnel) -> dict[str, float | None]:
    return {
        "ctr": _share(funnel.clicks, funnel.rows),
        "cvr": _share(funnel.conversions, funnel.clicks),
        "ctcvr": _share(funnel.conversions, funnel.rows),
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _degenerate(facts: AuditFacts) -> list[Verdict]:
    found = []
    for name, funnel in facts.ledger.kept.items():
        pairs = [("conversions", funnel.conversions, funnel.clicks, "click")]
        if facts.schema.population == "exposure":
            pairs.insert(0, ("clicks", funnel.clicks, funnel.rows, "exposure"))
        if facts.schema.columns.action is not None:
            pairs.append(("actions", funnel.actions - funnel.orphan_actions, funnel.clicks, "click"))
        for word, positives, rows, place in pairs:
            if rows and positives in (0, rows):
                what = "no" if positives == 0 else "nothing but"
                text = f"{name} has {what} {word} on its {rows:,} {place}s, so that label cannot be learned or judged."
                found.append(Verdict("warning", "data.single_class", text))
    return found


def _orphans(facts: AuditFacts) -> list[Verdict]:
    kept = facts.ledger.kept.values()
    count = facts.ledger.rejected.get("data.conversion_without_click", 0)
    count += sum(funnel.view_through + funnel.set_click for funnel in kept)
    if not count:
        return []
    text = f"{count:,} conversions came without a click; policy: {facts.orphan_conversions}."
    return [Verdict("warning", "data.conversion_without_click", text)]


def _behaviour(facts: AuditFacts) -> list[Verdict]:
    """What the in-shop action has to do with clicks and conversions, all splits together."""
    if facts.schema.columns.action is None:
        return []
    found = ActionCounts.of(sum(facts.ledger.kept.values(), Funnel()))
    return [Verdict("warning" if warns else "note", "audit.action", text) for warns, text in found.sentences()]


def _duplicated(facts: AuditFacts) -> list[Verdict]:
    found = facts.duplicates or {}
    if not any(found.values()):
        return []
    exact, conflicting = found.get("exact", 0), found.get("conflicting", 0)
    text = f"{exact + conflicting:,} later copies of an exposure id were rejected: {exact:,} with equal labels, "
    return [Verdict("warning", "data.duplicate_key", f"{text}{conflicting:,} with other labels.")]


def _overlaps(facts: AuditFacts) -> list[Verdict]:
    found = []
    for pair, count in facts.overlap.get("keys", {}).items():
        text = f"{count:,} exposure ids are in both splits of {pair}; this was allowed."
        found.append(Verdict("warning", "data.split_leak", text))
    for pair, span in facts.overlap.get("time_us", {}).items():
        text = f"the times of {pair} overlap by {span / 1e6:,.0f} seconds; this was allowed."
        found.append(Verdict("warning", "data.split_leak", text))
    if facts.protocol.allow_overlap:
        text = f"test pairs overlap the exposure space: part of the protocol of {facts.protocol.source}."
        found.append(Verdict("note", "audit.overlap", text))
    return found


def _unseen(facts: AuditFacts) -> list[Verdict]:
    found = []
    for split, counts in facts.encoded.items():
        for name, count in counts.fields.items():
            if split != "train" and count.unseen_rate > UNSEEN_ALERT:
                text = f"{_percent(count.unseen_rate)} of {name} in {split} are unseen and share the unknown row."
                found.append(Verdict("warning", "data.unseen", text))
    for pair, fields in facts.sampled.unseen.items() if facts.sampled and not facts.encoded else ():
        for name, share in fields.items():
            if share > UNSEEN_ALERT:
                text = f"{pair}: {_percent(share)} of the later values of {name} do not occur in the earlier rows."
                found.append(Verdict("warning", "data.unseen", text))
    return found


def _id_like(facts: AuditFacts) -> list[Verdict]:
    rows = next((funnel.rows for name, funnel in facts.ledger.kept.items() if name in ("train", "rows")), 0)
    if rows < _ID_LIKE_ROWS:
        return []
    return [
        Verdict("warning", "data.id_like", f"{name} has {distinct:,} values in {rows:,} training rows, like a row id.")
        for name, distinct in facts.distinct.items()
        if distinct > _ID_LIKE * rows
    ]


def _leaks(facts: AuditFacts) -> list[Verdict]:
    found = []
    for name, outcomes in facts.sampled.aucs.items() if facts.sampled else ():
        for outcome, entry in outcomes.items():
            if entry.suspicious:
                text = (
                    f"{name} alone ranks the {outcome} with AUC {entry.auc:.4f} (at least {entry.low:.4f}, judged on "
                )
                text += f"{entry.positives:,} {outcome}s): it tells what happened afterwards."
                found.append(Verdict("stop", "data.leakage", text))
    return found


def _drifted(facts: AuditFacts) -> list[Verdict]:
    found: list[Verdict] = []
    for pair, fields in facts.sampled.drift.items() if facts.sampled else ():
        for word in ("large", "moderate"):
            moved = sorted((entry.psi, name) for name, entry in fields.items() if entry.word == word)[::-1]
            if moved:
                shown = ", ".join(f"{name} {psi:.2f}" for psi, name in moved[:_SHOWN])
                more = f" and {len(moved) - _SHOWN} more" if len(moved) > _SHOWN else ""
                text = f"{pair}: {word} drift (population stability index over {0.25 if word == 'large' else 0.1}) in "
                level: Literal["warning", "note"] = "warning" if word == "large" else "note"
                found.append(Verdict(level, "audit.drift", f"{text}{shown}{more}."))
        if fields and all(entry.word == "stable" for entry in fields.values()):
            found.append(Verdict("note", "audit.drift", f"{pair}: no field drifts."))
    return found


def _weighted(facts: AuditFacts) -> list[Verdict]:
    found = []
    for split, sums in facts.sampled.weights.items() if facts.sampled else ():
        share = sums.effective / sums.rows
        text = f"{split}: the weights leave an effective sample of {sums.effective:,.0f} of {sums.rows:,} rows "
        text += f"({_percent(share)})."
        found.append(Verdict("warning" if share < _FEW_EFFECTIVE else "note", "audit.weights", text))
    return found


def _sizes(facts: AuditFacts) -> list[Verdict]:
    found = []
    for name, share in facts.sampled.collisions.items() if facts.sampled else ():
        text = f"{name} is hashed: at least {_percent(share)} of its values share their bucket with another."
        found.append(Verdict("note", "audit.collisions", text))
    if facts.table_rows is not None:
        size = table_bytes(facts.table_rows) / 1e6
        text = f"the embedding table has {facts.table_rows:,} rows: {size:,.1f} MB at size 16 in float32."
        found.append(Verdict("note", "audit.table", text))
    return found


def _clocks(facts: AuditFacts) -> list[Verdict]:
    found = []
    wrong = facts.ledger.rejected.get("data.time_order", 0)
    if wrong:
        text = f"{wrong:,} rows have times that are missing, out of order, or far from all others"
        text += f" ({facts.strays:,} far from all others)." if facts.strays else "."
        found.append(Verdict("warning", "data.time_order", text))
    span = facts.sampled.span if facts.sampled else None
    if span is not None:
        text = f"times run from {when(span.first)} to {when(span.last)} UTC (of the sample)."
        found.append(Verdict("note", "audit.time", text))
        if span.strays:
            text = "some times lie far from all others: mixed units (s, ms), or clocks that are wrong."
            found.append(Verdict("warning", "data.time_order", text))
    return found


def _multivalued(facts: AuditFacts) -> list[Verdict]:
    found = []
    for name, count in facts.ledger.values.items():
        lost = count.truncated + count.rejected
        if name in {item.name for item in facts.schema.sequences} and lost:
            text = f"{name}: {count.read:,} values in, {count.truncated:,} cut off, {count.rejected:,} rejected "
            found.append(Verdict("warning", "data.multivalue", text + "(empty, or with a rejected row)."))
    totals = _sequence_counts(facts)
    for sequence in facts.schema.sequences:
        total = totals.get(sequence.name)
        if sequence.separator is not None and total and total[0] == total[1] >= _ID_LIKE_ROWS:
            text = f"{sequence.name}: no row has more than one value; is {sequence.separator!r} its separator?"
            found.append(Verdict("warning", "data.multivalue", text))
    return found


def _sequence_counts(facts: AuditFacts) -> dict[str, tuple[int, int]]:
    """Return sequence field -> (values, rows that have any) over all splits."""
    totals: dict[str, tuple[int, int]] = {}
    for counts in facts.encoded.values():
        for sequence in facts.schema.sequences:
            if (entry := counts.fields.get(sequence.name)) is not None:
                values, rows = totals.get(sequence.name, (0, 0))
                totals[sequence.name] = (values + entry.values, rows + counts.rows - entry.missing)
    return totals


def _refused(facts: AuditFacts) -> list[Verdict]:
    return [Verdict("stop", finding.code, f"prepare would stop: {finding}") for finding in facts.refusals]


def _declared(facts: AuditFacts) -> list[Verdict]:
    found = [Verdict("note", "audit.protocol", note) for note in facts.protocol.notes]
    found += [Verdict("note", "data.empty", f"{label} holds no rows.") for label in facts.empty_files]
    return found


Check = Callable[[AuditFacts], list[Verdict]]
CHECKS: tuple[Check, ...] = (
    *(_refused, _leaks, _funnel, _behaviour, _orphans, _degenerate, _duplicated, _overlaps, _clocks),
    *(_unseen, _drifted, _id_like, _multivalued, _weighted, _sizes, _declared),
)


def verdicts(facts: AuditFacts) -> list[Verdict]:
    """Return what all checks say."""
    return [verdict for check in CHECKS for verdict in check(facts)]


def audit_body(facts: AuditFacts) -> dict[str, Any]:
    """Return the plain form of ``audit.json``: the numbers, then the verdicts."""
    protocol = asdict(facts.protocol)
    protocol["notes"] = list(facts.protocol.notes)
    return {
        "format": AUDIT_FORMAT,
        "protocol": protocol,
        "population": facts.schema.population,
        "split": {**facts.split, "overlap": dict(facts.overlap)},
        "orphan_conversions": facts.orphan_conversions,
        "funnel": {name: {**asdict(funnel), **_rates(funnel)} for name, funnel in facts.ledger.kept.items()},
        "actions": _actions(facts),
        "features": {
            split: {name: {**asdict(count), "unseen_rate": count.unseen_rate} for name, count in counts.fields.items()}
            for split, counts in facts.encoded.items()
        },
        "duplicates": None if facts.duplicates is None else dict(facts.duplicates),
        "distinct": dict(facts.distinct),
        "strays": facts.strays,
        **({} if facts.sampled is None else facts.sampled.to_dict()),
        "verdicts": [asdict(verdict) for verdict in verdicts(facts)],
    }


def _actions(facts: AuditFacts) -> dict[str, Any] | None:
    if facts.schema.columns.action is None:
        return None
    kept = facts.ledger.kept
    return {name: ActionCounts.of(funnel).to_dict() for name, funnel in kept.items()} | {
        "all": ActionCounts.of(sum(kept.values(), Funnel())).to_dict()
    }


def audit_lines(body: Mapping[str, Any]) -> list[str]:
    """Return the verdicts of an audit for the screen: what stops it, then warnings, then notes."""
    found = sorted(body["verdicts"], key=lambda verdict: _ORDER[verdict["level"]])
    return [f"{verdict['level']}: {verdict['text']}" for verdict in found]
