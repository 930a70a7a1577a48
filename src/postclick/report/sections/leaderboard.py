"""The leaderboard: a table of means, a chart a metric, the paired verdicts, the best possible score."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from postclick.report.blocks import Board, BoardRow, Figure, Part, Table
from postclick.report.facts import Cell, Contestant, Pair, Study
from postclick.report.forest import Bar, forest
from postclick.report.words import gain, interval, lower_is_better, meaning, number, plain, title

__all__ = ["leaderboard", "ordered"]


def leaderboard(study: Study) -> Part:
    """Return the leaderboard of a study."""
    if not study.metrics:
        return Part()
    rows = ordered(study)
    figures = [_figure(study, metric, rows) for metric in study.metrics]
    notes = [plain(note, 400) for note in study.notes]
    return Part.drawn(
        [found for found in figures if found is not None],
        text=tuple(notes),
        board=_board(study, rows),
        first=tuple(_letters(study)),
    )


def ordered(study: Study) -> list[Contestant]:
    """Return the contestants, best first by the headline; derived heads apart, behind the others."""
    metric = study.metrics[0] if study.metrics else ""

    def place(entry: Contestant) -> tuple[bool, bool, float]:
        cell = entry.cells.get(metric)
        if cell is None or cell.value is None:
            return True, True, 0.0
        value = abs(math.log(cell.value)) if "/pcoc" in metric and cell.value > 0 else cell.value
        return False, cell.derived, value if lower_is_better(metric) or "/pcoc" in metric else -value

    return sorted(study.contestants, key=place)


def _figure(study: Study, metric: str, rows: Sequence[Contestant]) -> Figure | None:
    placed = sorted(rows, key=lambda entry: _derived(entry, metric))  # derived heads behind the others
    bars = [bar for bar in (_bar(study, metric, entry) for entry in placed) if bar is not None]
    if not bars:
        return None
    limit = study.oracle.get(metric)
    if limit is not None and "/pcoc" not in metric:
        bars.insert(0, Bar("best possible: the truth itself", limit, text=number(limit), mark="diamond"))
    ratio = "/pcoc" in metric and min(bar.value for bar in bars) > 0
    reference = 1.0 if ratio else _base(study, metric)
    words = "ratio, 1 is right" if ratio else "lower is better" if lower_is_better(metric) else "higher is better"
    words = "mean prediction" if "/mean" in metric else words
    label = f"{title(metric)}: " + "; ".join(f"{plain(bar.label, 40)} {number(bar.value)} {bar.text}" for bar in bars)
    svg = forest(bars, label, axis=words, reference=reference, log=ratio)
    return Figure(title(metric), svg, _table(study, metric, rows), metric, meaning=meaning(metric))


def _base(study: Study, metric: str) -> float | None:
    """Return the baseline's value, the dashed line."""
    found = next((entry for entry in study.contestants if entry.label == study.baseline), None)
    cell = None if found is None else found.cells.get(metric)
    return None if cell is None else cell.value


def _bar(study: Study, metric: str, entry: Contestant) -> Bar | None:
    """Place a system: with its own interval, or with the interval of its difference from the baseline."""
    cell = entry.cells.get(metric)
    if cell is None or cell.value is None:
        return None
    pair, base = study.pair(metric, entry.label), _base(study, metric)
    low, high = (None, None) if study.pairs else (cell.low, cell.high)
    if pair is not None and base is not None and "/pcoc" not in metric:
        low, high = base + pair.low, base + pair.high
    verdict = "baseline" if entry.label == study.baseline else "" if pair is None else pair.verdict
    text = number(cell.value) + (f" · {verdict}" if verdict else "")
    label = entry.label + (" (derived)" if cell.derived else "")
    return Bar(label, cell.value, low, high, text, verdict, cell.seeds if len(cell.seeds) > 1 else ())


def _table(study: Study, metric: str, rows: Sequence[Contestant]) -> Table:
    columns = [("system", "text"), ("value", "number"), ("low", "number"), ("high", "number"), ("seeds", "count")]
    columns += [("sd over seeds", "number"), ("difference", "signed"), ("difference low", "signed")]
    columns += [("difference high", "signed"), ("gain", "gain"), ("p (Holm)", "number"), ("verdict", "text")]
    columns += [("test", "text"), ("note", "text")]
    return Table.of(f"{study.name} {metric}", columns, list(_lines(study, metric, rows)))


def _lines(study: Study, metric: str, rows: Sequence[Contestant]) -> Iterator[tuple[str | float | int | None, ...]]:
    for entry in rows:
        cell = entry.cells.get(metric, Cell(None, undefined="not measured"))
        pair = study.pair(metric, entry.label)
        ends = (None,) * 5 if pair is None else (pair.value, pair.low, pair.high, pair.gain, pair.p)
        verdict = "baseline" if entry.label == study.baseline else "" if pair is None else pair.verdict
        if pair is not None and pair.needed:
            verdict += f" (needs {pair.needed})"
        note = "derived" if cell.derived else cell.undefined or ""
        own = (entry.label, cell.value, cell.low, cell.high, entry.seeds, cell.seed_sd)
        yield (*own, *ends, verdict, "" if pair is None else pair.method, note)
    if study.oracle.get(metric) is not None:
        yield ("truth itself", study.oracle[metric], *([None] * 9), "", "", "best possible")


def _board(study: Study, rows: Sequence[Contestant]) -> Board:
    apart = [_row(study, entry) for entry in rows if _derived(entry, study.metrics[0])]
    shown = [_row(study, entry) for entry in rows if not _derived(entry, study.metrics[0])]
    if study.oracle:
        limits = tuple((number(study.oracle.get(metric)), "", "", "") for metric in study.metrics)
        shown.append(("the truth itself", "", "best possible", limits))
    columns = [("system", "text"), ("key", "text"), ("seeds", "count")]
    columns += [(f"{metric}{what}", "number") for metric in study.metrics for what in ("", " sd over seeds")]
    lines = [
        (
            entry.label,
            entry.system,
            entry.seeds,
            *(end for name in study.metrics for end in _ends(entry.cells.get(name))),
        )
        for entry in rows
    ]
    table = Table.of(f"{study.name} leaderboard", columns, lines)
    names = tuple((title(metric), metric) for metric in study.metrics)
    aside = f"{title(study.metrics[0])} of these is a quotient of two other scores (derived): never called best"
    return Board(names, tuple(shown), table, _caption(study), tuple(apart), aside)


def _row(study: Study, entry: Contestant) -> BoardRow:
    cells = tuple(_shown(study, metric, entry) for metric in study.metrics)
    note = f"{entry.seeds} seeds" if entry.seeds > 1 else "1 seed"
    return plain(entry.label), plain(entry.system, 24), note, cells


def _derived(entry: Contestant, metric: str) -> bool:
    cell = entry.cells.get(metric)
    return cell is not None and cell.derived


def _letters(study: Study) -> Iterator[Figure]:
    """Yield who cannot be told apart: own heads in one table, derived ones in another."""
    order = {entry.label: place for place, entry in enumerate(ordered(study))}
    for part, words in (("head", "Who cannot be told apart"), ("derived", "Derived heads that cannot be told apart")):
        found = {name: study.groups.get(name, {}).get(part, {}) for name in study.metrics}
        found = {name: letters for name, letters in found.items() if len(letters) > 1}
        labels = sorted({label for letters in found.values() for label in letters}, key=lambda name: order.get(name, 0))
        rows = [(label, *(letters.get(label, "") for letters in found.values())) for label in labels]
        if rows:
            columns = [("system", "text"), *((title(name), "text") for name in found)]
            note = "Two that share a letter cannot be told apart by that metric, over all pairs (Holm); a is best."
            note = note if part == "head" else note.replace("; a is best", "; none of them is called best")
            yield Figure(words, "", Table.of(f"{study.name} groups {part}", columns, rows), note=note)


def _ends(cell: Cell | None) -> tuple[float | None, float | None]:
    return (None, None) if cell is None else (cell.value, cell.seed_sd)


def _shown(study: Study, metric: str, entry: Contestant) -> tuple[str, str, str, str]:
    cell = entry.cells.get(metric)
    if cell is None or cell.value is None:
        return "–", "", plain(cell.undefined or "", 40) if cell is not None else "", ""
    spread = f"± {number(cell.seed_sd, 2)}" if cell.seed_sd is not None else ""
    if not spread and cell.low is not None:
        spread = interval(cell.value, cell.low, cell.high).partition(" ")[2]
    pair = study.pair(metric, entry.label)
    verdict = "" if pair is None else pair.verdict
    if entry.label == study.baseline:
        verdict = "baseline"
    return number(cell.value) + ("*" if cell.derived else ""), spread, verdict, _more(pair)


def _more(pair: Pair | None) -> str:
    """Say how much a system gains over the baseline, and what would tell them apart."""
    if pair is None:
        return ""
    parts = [] if pair.gain is None else [f"gain {gain(pair.gain)}"]
    parts += [f"needs {plain(pair.needed)}"] if pair.needed else []
    return "; ".join(parts)


def _caption(study: Study) -> str:
    many = any(entry.seeds > 1 for entry in study.contestants)
    parts = ["Mean over seeds ± their standard deviation." if many else "Values with their 95 % intervals."]
    if many and any("/pcoc" in metric for metric in study.metrics):
        parts.append("Of PCOC it is the geometric mean ± the standard deviation of the logarithm.")
    if study.baseline is not None and study.pairs:
        parts.append(
            f"Verdicts are paired against {plain(study.baseline, 40)}: all systems score the same rows. In a chart a "
            "line is the interval of the difference from it, drawn from the dashed line on; it counts rows and seeds. "
            "Where it crosses the dashed line, or clears it by less than the size of the table asks for (Holm), the "
            "answer is “cannot tell”. Small ticks are single seeds."
        )
    if any(pair.gain is not None for pair in study.pairs):
        parts.append("Gain is the difference over the baseline’s value; of a loss, less is better.")
    if any(cell.derived for entry in study.contestants for cell in entry.cells.values()):
        parts.append("* is a quotient of two other scores (derived): listed last, never called best.")
    return " ".join(parts)
