"""A leaderboard for people, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from postclick.benchmark.cells import ABSENT, Cell, text
from postclick.benchmark.data_facts import DataFacts, SplitFacts

__all__ = ["markdown", "tables_of"]

Table = Mapping[str, Mapping[str, Cell]]
Groups = Mapping[str, Mapping[str, Mapping[str, Mapping[str, str]]]]
_DATA_HEAD = ("data", "users", "items", "fields", "split", "rows", "clicks", "conversions", "CTR", "CVR", "CTCVR")


def tables_of(
    tables: Mapping[str, Table], metrics: Sequence[str], baseline: str | None, layout: str, notes: Sequence[str]
) -> str:
    """Return a table a data set: mean, seed deviation, and the verdict against the baseline as a sign.

    ``+`` is better than the baseline, ``-`` worse, ``=`` cannot tell; * marks a derived head. A metric that the
    rows of a table do not have, such as those of a world on real data, is left out of it.
    """
    parts = []
    for data, table in tables.items():
        cells = {(label, metric): text(entry) for label, row in table.items() for metric, entry in row.items()}
        shown = [name for name in metrics if any(row[name].undefined != ABSENT for row in table.values())]
        if layout == "run":
            head = shown
            body = [[label, *(cells[label, metric] for metric in shown)] for label in table]
        else:
            head = list(table)
            body = [[metric, *(cells[label, metric] for label in table)] for metric in shown]
        parts.append(_lines([data, *head], body))
    signs = f"Against {baseline}: + better, - worse, = cannot tell. " if baseline else ""
    return "\n\n".join([*parts, f"{signs}Mean over seeds ± their standard deviation; * derived.", *notes])


def markdown(
    means: str,
    data: Mapping[str, DataFacts],
    tables: Mapping[str, Table],
    metrics: Sequence[str],
    baseline: str | None,
    groups: Groups,
) -> str:
    """Return the whole page: the data, `means`, the test behind each sign, the groups."""
    parts = ["## Data", _data(data), "## Results", means]
    if baseline is not None:
        tested = [_tests(name, table, metrics, baseline) for name, table in tables.items()]
        parts += [f"## Against {baseline}", *filter(None, tested)]
        parts.append("Interval of the pair alone, 95 %; p by Holm over the runs of a metric: it decides the verdict.")
    letters = [part for name, found in groups.items() for part in _letters(name, found)]
    if letters:
        parts += ["## Who cannot be told apart", *letters]
        parts.append("Runs that share a letter cannot be told apart, over all pairs by Holm; best first.")
    return "\n\n".join(parts)


def _lines(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    # the | of a slice ("cvr/auc@random|new-pair") and of a label would end a cell
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (head, *body)]
    top, *rows = ["| " + " | ".join(row) + " |" for row in escaped]
    return "\n".join([top, "|" + "---|" * len(head), *rows])


def _data(data: Mapping[str, DataFacts]) -> str:
    body = [
        [*([""] * 4 if place else _facts(name, facts)), split, *_split(found)]
        for name, facts in data.items()
        for place, (split, found) in enumerate(facts.splits.items())
    ]
    return _lines(_DATA_HEAD, body)


def _facts(name: str, facts: DataFacts) -> list[str]:
    return [name, _count(facts.users), _count(facts.items), _count(facts.features)]


def _split(found: SplitFacts) -> list[str]:
    counts = [_count(number) for number in (found.rows, found.clicks, found.conversions)]
    return counts + ["-" if rate is None else f"{rate:.3%}" for rate in (found.ctr, found.cvr, found.ctcvr)]


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _tests(data: str, table: Table, metrics: Sequence[str], baseline: str) -> str:
    body = [
        [metric, label, *_test(row[metric])]
        for metric in metrics
        for label, row in table.items()
        if label != baseline and metric in row and row[metric].difference is not None
    ]
    return _lines([f"{data}: metric", "run", "difference", "95 %", "gain", "p (Holm)", "verdict"], body) if body else ""


def _test(found: Cell) -> list[str]:
    ends = "-" if found.low is None or found.high is None else f"[{found.low:+.4f}, {found.high:+.4f}]"
    gain = "-" if found.gain is None else f"{found.gain:+.2%}"
    p = "-" if found.p_holm is None else f"{found.p_holm:.2g}"
    words = f"{found.verdict} (needs {found.needed})" if found.needed else str(found.verdict)
    return [f"{found.difference:+.4f}", ends, gain, p, words + (", derived" if found.derived else "")]


def _letters(data: str, groups: Mapping[str, Mapping[str, Mapping[str, str]]]) -> list[str]:
    parts = []
    for part, title in (("head", data), ("derived", f"{data}, derived heads, which are never called best")):
        found = {metric: entry[part] for metric, entry in groups.items() if part in entry}
        labels = list(dict.fromkeys(label for entry in found.values() for label in entry))
        body = [[label, *(entry.get(label, "-") for entry in found.values())] for label in labels]
        if body:
            parts.append(_lines([title, *found], body))
    return parts
