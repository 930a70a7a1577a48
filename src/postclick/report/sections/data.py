"""What was trained on what: the ledger, the funnel of every split, the fields, and what the audit says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from postclick.report.blocks import Bullet, Facts, Figure, Part, Stage, Table, Tone, Value
from postclick.report.facts import Study
from postclick.report.log_facts import DataTable, Funnel, LogFacts
from postclick.report.words import count, percent, plain

__all__ = ["data"]

_SPLITS = {"time": "by time", "user": "by user", "random": "at random", "provider": "as the provider gave them"}
_NAMES = {"train": "train", "valid": "valid (early stopping and calibration)", "test": "test"}


def data(study: Study) -> Part:
    """Return the data part of a study."""
    log = study.log
    if not log.funnels:
        return Part()
    systems = list(dict.fromkeys(entry.system for entry in study.contestants if entry.system))
    trained = f"{len(study.contestants)} trained: {', '.join(plain(name, 24) for name in systems)}." if systems else ""
    return Part(
        text=tuple(sentence for sentence in (trained, _ledger(log)) if sentence),
        bullets=tuple(_bullets(log)),
        funnels=tuple((_NAMES.get(found.split, found.split), _stages(found)) for found in log.funnels),
        facts=Facts(tuple(_facts(log))),
        tables=tuple(_tables(study)),
        first=(_table_one(study, study.table),) if study.table is not None else (),
    )


def _table_one(study: Study, table: DataTable) -> Figure:
    """Return Table 1 of the data: users, items, fields, and counts and rates of every split."""
    (split, *counted), lines = _counted(table.splits)
    columns = [split, ("users", "count"), ("items", "count"), ("fields", "count"), *counted]
    rows = []
    for index, (name, *counts) in enumerate(lines):
        whole = (table.users, table.items, table.features) if index == 0 else (None, None, None)
        rows.append((name, *whole, *counts))
    note = "Users, items and fields are those of the whole log; – is not known, or stands in the row above."
    return Figure("Table 1: the data", "", Table.of(f"{study.name} table 1", columns, rows), note=note)


def _counted(splits: Sequence[Funnel]) -> tuple[list[tuple[str, str]], list[tuple[Value, ...]]]:
    """Return the columns and the rows of counts and rates split by split; actions where the log has them."""
    acts = any(found.actions is not None for found in splits)
    columns = [("split", "text"), ("rows", "count"), ("clicks", "count")]
    columns += [*([("in-shop actions", "count")] if acts else []), ("conversions", "count")]
    columns += [("CTR", "percent"), ("CVR on clicks", "percent"), ("CTCVR", "percent")]
    rows: list[tuple[Value, ...]] = []
    for found in splits:
        counts = (found.rows, found.clicks, *((found.actions,) if acts else ()), found.conversions)
        rows.append((found.split, *counts, *_rates(found)))
    return columns, rows


def _ledger(log: LogFacts) -> str:
    if log.read is None or log.kept is None:
        return "Only the rows that the run itself remembers are known here: pass the LOG for its ledger."
    parts = [f"{count(log.kept)} kept", f"{count(sum(log.rejected.values()))} rejected"]
    left = sum(log.filtered.values())
    parts += [f"{count(left)} filtered by a rule"] if left else []
    return f"{count(log.read)} rows in = {' + '.join(parts)}."


def _stages(found: Funnel) -> tuple[Stage, ...]:
    stages = [Stage("exposures", found.rows, None)]
    stages.append(Stage("clicks", found.clicks, _share(found.clicks, found.rows), "of exposures"))
    if found.actions is not None:
        stages.append(Stage("in-shop actions", found.actions, _share(found.actions, found.rows), "of exposures"))
    of = f"of clicks; {count(found.open)} clicks still open" if found.open else "of clicks"
    name, share = "conversions so far" if found.open else "conversions", _share(found.conversions, found.clicks)
    stages.append(Stage(name, found.conversions, share, of))
    return tuple(stages)


def _rates(found: Funnel) -> tuple[float | None, float | None, float | None]:
    parts = ((found.clicks, found.rows), (found.conversions, found.clicks), (found.conversions, found.rows))
    ctr, cvr, ctcvr = (_share(part, whole) for part, whole in parts)
    return ctr, cvr, ctcvr


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _bullets(log: LogFacts) -> Iterator[Bullet]:
    tones: dict[str, tuple[Tone, str]] = {"stop": ("bad", "stop"), "warning": ("unsure", "warning")}
    for level, text in log.verdicts:
        if level in tones:
            yield Bullet(*tones[level], plain(text, 300))
    if log.view_through or log.set_click:
        kept = f"{count(log.view_through)} kept as view-through, never as labels" if log.view_through else ""
        made = f"{count(log.set_click)} given the click that they lacked" if log.set_click else ""
        text = f"Conversions without a click: {' and '.join(filter(None, (kept, made)))}."
        yield Bullet("unsure", "orphans", text)


def _facts(log: LogFacts) -> Iterator[tuple[str, str]]:
    if log.split:
        yield "split", _SPLITS.get(log.split, plain(log.split))
    if log.fields:
        sides = [side for _, side in log.fields.values()]
        parts = [f"{sides.count(side)} {side}" for side in ("user", "item", "context") if sides.count(side)]
        yield "fields", f"{len(sides)} ({', '.join(parts)})"
    train = log.funnel("train")
    if train is not None and train.rows:
        yield "CTCVR in train", percent(train.conversions / train.rows)
    if log.simulated:
        yield "truth", "known: a simulated world"
    yield "log", log.hash[:12]


def _tables(study: Study) -> Iterator[Figure]:
    log = study.log
    if study.table is None:
        columns, rows = _counted(log.funnels)
        yield Figure("Counts and rates of every split", "", Table.of(f"{study.name} funnel", columns, rows))
    lost = [("rejected", why, rows_) for why, rows_ in log.rejected.items()]
    lost += [("filtered", why, rows_) for why, rows_ in log.filtered.items()]
    if lost:
        table = Table.of(f"{study.name} ledger", [("what", "text"), ("why", "text"), ("rows", "count")], lost)
        yield Figure("Rows that did not stay", "", table)
    if log.fields:
        fields = [
            (name, kind, side, log.distinct.get(name), log.unseen.get(name))
            for name, (kind, side) in log.fields.items()
        ]
        heads = [("field", "text"), ("kind", "text"), ("side", "text"), ("distinct values", "count")]
        table = Table.of(f"{study.name} fields", [*heads, ("unseen in test", "percent")], fields)
        yield Figure("Fields", "", table)
    notes = [(level, text) for level, text in log.verdicts]
    if notes:
        yield Figure("The audit", "", Table.of(f"{study.name} audit", [("level", "text"), ("finding", "text")], notes))
