"""Audit of a log: what a person should know before trusting it, as numbers and as sentences.

Each check is a function from `AuditFacts` to verdicts; a new check is a new function in `CHECKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from postclick.data.encode import EncodeCounts
from postclick.data.ledger import Funnel, Ledger
from postclick.data.sources.base import SourceProtocol
from postclick.errors import DataError, Finding
from postclick.schema import Schema

__all__ = ["AuditFacts", "Verdict", "audit_body", "audit_lines", "refuse_leaks", "verdicts"]

AUDIT_FORMAT = 1
_UNSEEN_ALERT = 0.2
_ID_LIKE = 0.5
_ID_LIKE_ROWS = 100
_LEAKS = frozenset(
    (
        *("label", "target", "click", "clicked", "isclick", "clicklabel", "labelclick", "ctrlabel", "clicktime"),
        *("conversion", "converted", "isconversion", "conversionlabel", "labelconversion", "conversiontime"),
        *("cvrlabel", "ctcvr", "ctcvrlabel", "buy", "bought", "isbuy", "buytime", "ispaid", "paytime", "ordertime"),
        *("purchase", "purchased", "ispurchase", "purchasetime"),
    )
)
"""Names, letters and digits alone, that say what happened after the exposure."""


@dataclass(frozen=True)
class Verdict:
    """One sentence of the audit.

    Parameters
    ----------
    level
        ``note`` or ``warning``.
    code
        Stable name.
    text
        The sentence.
    """

    level: Literal["note", "warning"]
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


def _plain(name: str) -> str:
    return "".join(char for char in name.casefold() if char.isalnum())


def refuse_leaks(schema: Schema) -> None:
    """Refuse features that are an outcome by their name (D15).

    Raises
    ------
    DataError
        ``data.leakage``, all of them together.
    """
    outcomes = {_plain(name) for role, name in schema.columns.named().items() if role in ("click", "conversion")}
    leaks = [feature.name for feature in schema.features if _plain(feature.name) in _LEAKS | outcomes]
    if leaks:
        fix = "drop them from the features, or rename what only sounds like an outcome"
        raise DataError(
            *(Finding("data.leakage", "a feature that is an outcome by its name", name, fix=fix) for name in leaks)
        )


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
        "ctr": funnel.clicks / funnel.rows if funnel.rows else None,
        "cvr": funnel.conversions / funnel.clicks if funnel.clicks else None,
        "ctcvr": funnel.conversions / funnel.rows if funnel.rows else None,
    }


def _degenerate(facts: AuditFacts) -> list[Verdict]:
    found = []
    for name, funnel in facts.ledger.kept.items():
        pairs = [("conversions", funnel.conversions, funnel.clicks, "click")]
        if facts.schema.population == "exposure":
            pairs.insert(0, ("clicks", funnel.clicks, funnel.rows, "exposure"))
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
            if split != "train" and count.unseen_rate > _UNSEEN_ALERT:
                text = f"{_percent(count.unseen_rate)} of {name} in {split} are unseen and share the unknown row."
                found.append(Verdict("warning", "data.unseen", text))
    return found


def _id_like(facts: AuditFacts) -> list[Verdict]:
    rows = facts.ledger.kept.get("train", Funnel()).rows
    if rows < _ID_LIKE_ROWS:
        return []
    return [
        Verdict("warning", "data.id_like", f"{name} has {distinct:,} values in {rows:,} training rows, like a row id.")
        for name, distinct in facts.distinct.items()
        if distinct > _ID_LIKE * rows
    ]


def _declared(facts: AuditFacts) -> list[Verdict]:
    found = [Verdict("note", "audit.protocol", note) for note in facts.protocol.notes]
    found += [Verdict("note", "data.empty", f"{label} holds no rows.") for label in facts.empty_files]
    return found


Check = Callable[[AuditFacts], list[Verdict]]
CHECKS: tuple[Check, ...] = (_funnel, _orphans, _degenerate, _duplicated, _overlaps, _unseen, _id_like, _declared)


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
        "features": {
            split: {name: {**asdict(count), "unseen_rate": count.unseen_rate} for name, count in counts.fields.items()}
            for split, counts in facts.encoded.items()
        },
        "duplicates": None if facts.duplicates is None else dict(facts.duplicates),
        "distinct": dict(facts.distinct),
        "verdicts": [asdict(verdict) for verdict in verdicts(facts)],
    }


def audit_lines(body: Mapping[str, Any]) -> list[str]:
    """Return the verdicts of an audit for the screen, warnings first."""
    found = sorted(body["verdicts"], key=lambda verdict: verdict["level"] != "warning")
    return [f"{verdict['level']}: {verdict['text']}" for verdict in found]
