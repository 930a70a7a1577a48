"""Sentences: what the numbers of a study say, chosen by the numbers and not by hope."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from postclick.report.blocks import Bullet
from postclick.report.facts import Contestant, Pair, Study
from postclick.report.words import count, interval, lower_is_better, number, plain, title

__all__ = ["FEW_CONVERSIONS", "inside", "level_verdict", "near", "pair_verdict", "verdicts"]

FEW_CONVERSIONS = 10_000
"""Training conversions under which a table of systems shows directions and not third digits."""
_NEAR = 0.1
"""A level within 10 % is called near even where its interval excludes 1."""
_MOST_PAIRS = 6
_FEW = 2
"""So many sentences of one kind stand alone; more are put together."""


def verdicts(study: Study) -> list[Bullet]:
    """Return the study in words, most important first: who is better, is the level right, can weights be trusted."""
    return [*_paired(study), *_unpaired(study), *_levels(study), *_overlaps(study), *_gates(study), *_cautions(study)]


def pair_verdict(pair: Pair) -> Bullet:
    """Return a paired comparison as a sentence: "CSTWA is better than ESMM by 0.012 [0.004, 0.020]"."""
    one, other, metric = plain(pair.system, 40), plain(pair.against, 40), title(pair.metric)
    measure = f"distance of log PCOC from 0 in {metric}" if "/pcoc" in pair.metric else metric
    if pair.verdict == "cannot tell":
        missing = f" It would take {pair.needed}." if pair.needed else ""
        shown = interval(pair.value, pair.low, pair.high, sign=True)
        text = f"Cannot tell {one} from {other} by {measure}: difference {shown}.{missing}"
        return Bullet("unsure", "cannot tell", text)
    gain = (pair.value, pair.low, pair.high)
    if pair.value < 0.0:
        gain = (-pair.value, -pair.high, -pair.low)
    text = f"{one} is {pair.verdict} than {other} by {interval(*gain)} in {measure}."
    return Bullet("good" if pair.verdict == "better" else "bad", pair.verdict, text)


def _paired(study: Study) -> Iterator[Bullet]:
    """Say who beats the baseline by the headline metric; a derived head is never called best."""
    if not study.metrics:
        return
    metric = study.metrics[0]
    pairs = [pair for pair in study.pairs if pair.metric == metric]
    order = {"better": 0, "worse": 1, "cannot tell": 2}
    pairs.sort(key=lambda pair: (order.get(pair.verdict, 3), -abs(pair.value)))
    derived = {entry.label for entry in study.contestants if metric in entry.cells and entry.cells[metric].derived}
    open_ones = [pair for pair in pairs if pair.verdict == "cannot tell"]
    alone = pairs if len(open_ones) <= _FEW else [pair for pair in pairs if pair not in open_ones]
    for pair in alone[:_MOST_PAIRS]:
        verdict = pair_verdict(pair)
        aside = " Its score is a quotient of two others." if pair.system in derived else ""
        yield replace(verdict, text=verdict.text + aside)
    if len(open_ones) > _FEW:
        yield _cannot_tell(open_ones, metric)
    best = _best(study, metric)
    if best is not None and len(study.contestants) > 1 and pairs:
        yield best
    if len(alone) > _MOST_PAIRS:
        rest = len(alone) - _MOST_PAIRS
        yield Bullet("note", "more", f"{rest} further comparisons by {title(metric)} are in the leaderboard.")


def _cannot_tell(pairs: Sequence[Pair], metric: str) -> Bullet:
    """Return one sentence for many that cannot be told from the baseline."""
    against = plain(pairs[0].against, 40)
    each = [f"{plain(pair.system, 40)} {interval(pair.value, pair.low, pair.high, sign=True)}" for pair in pairs]
    shown, rest = each[:_MOST_PAIRS], len(each) - _MOST_PAIRS
    more = f"; and {rest} more" if rest > 0 else ""
    text = f"Cannot tell from {against} by {title(metric)} (differences): {'; '.join(shown)}{more}."
    return Bullet("unsure", "cannot tell", text)


def _best(study: Study, metric: str) -> Bullet | None:
    """Name the best mean, and how far the best possible score is; it is a place in a list and no verdict."""
    own = [entry for entry in study.contestants if _value(entry, metric) is not None]
    own = [entry for entry in own if not entry.cells[metric].derived]
    if not own or "/pcoc" in metric or "/mean" in metric:
        return None
    pick = min if lower_is_better(metric) else max
    leader = pick(own, key=lambda entry: _value(entry, metric) or 0.0)
    what = "mean" if leader.seeds > 1 else "value"
    text = f"{plain(leader.label, 40)} has the best {what} of {title(metric)}, {number(_value(leader, metric))}"
    limit = study.oracle.get(metric)
    text += f"; the true probabilities would reach {number(limit)}." if limit is not None else "."
    return Bullet("note", "leads", text)


def _value(entry: Contestant, metric: str) -> float | None:
    cell = entry.cells.get(metric)
    return None if cell is None else cell.value


def _unpaired(study: Study) -> Iterator[Bullet]:
    if len(study.contestants) > 1 and not study.pairs and study.metrics:
        why = "nothing here compares them in pairs on the same rows"
        fix = "name a baseline in the experiment" if study.baseline is None and study.log.known else "add --log LOG"
        yield Bullet("unsure", "cannot tell", f"Which system is better is not said: {why}; {fix}.")


_LEVELS = ("cvr/pcoc@click", "cvr/pcoc@world", "cvr/pcoc@random")
_WHERE = {
    "cvr/pcoc@click": "on clicks",
    "cvr/pcoc@world": "over all exposures",
    "cvr/pcoc@random": "on random exposures",
}


def _levels(study: Study) -> Iterator[Bullet]:
    """Say whose mean CVR is right, population by population."""
    for metric in _LEVELS:
        entries = {
            entry.label: entry.run.metrics[metric]
            for entry in study.contestants
            if entry.run is not None and entry.run.metrics.get(metric, {}).get("value")
        }
        if entries:
            yield from _level(metric, entries)


def _level(metric: str, entries: Mapping[str, Mapping[str, Any]]) -> Iterator[Bullet]:
    wrong = {label: entry for label, entry in entries.items() if not near(entry)}
    vague = {label: entry for label, entry in entries.items() if inside(entry) and not _close(entry)}
    right = {label: entry for label, entry in entries.items() if label not in wrong and label not in vague}
    where = _WHERE[metric]
    if right:
        exact = all(inside(entry) for entry in right.values())
        word = "right" if exact else f"right to {_NEAR:.0%} or within its interval"
        text = f"The mean CVR {where} is {word} for {_listed(list(right))} (PCOC {_spread(right)})."
        yield Bullet("good", "level", text)
    for label, entry in list(vague.items())[:_FEW]:
        ends = interval(entry["value"], entry.get("low"), entry.get("high"))
        text = f"Cannot tell whether the mean CVR {where} is right for {plain(label, 40)}: PCOC {ends}."
        yield Bullet("unsure", "level", text)
    if len(vague) > _FEW:
        more = list(vague)[_FEW:]
        text = f"Nor for {_listed(more)} (PCOC {_spread({label: vague[label] for label in more})})."
        yield Bullet("unsure", "level", text)
    off = sorted(wrong.items(), key=lambda item: -abs(math.log(item[1]["value"])))
    if len(off) <= _FEW:
        yield from (level_verdict(label, entry, where) for label, entry in off)
        return
    shown = [f"{plain(label, 40)} ×{entry['value']:.2f}" for label, entry in off[:_MOST_PAIRS]]
    rest = f"; and {len(off) - _MOST_PAIRS} more" if len(off) > _MOST_PAIRS else ""
    yield Bullet("bad", "level", f"The mean CVR {where} is off (predicted over observed): {'; '.join(shown)}{rest}.")


def level_verdict(label: str, entry: Mapping[str, Any], where: str) -> Bullet:
    """Return that a mean CVR is too high or too low, by how much."""
    share = abs(entry["value"] - 1.0)
    verb = "over-states" if entry["value"] > 1.0 else "under-states"
    shown = interval(entry["value"], entry.get("low"), entry.get("high"))
    return Bullet("bad", "level", f"{plain(label, 40)} {verb} the mean CVR {where} by {share:.0%} (PCOC {shown}).")


def _spread(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one level with its interval, or the range of several."""
    found = list(entries.values())
    if len(found) == 1:
        return interval(found[0]["value"], found[0].get("low"), found[0].get("high"))
    values = sorted(entry["value"] for entry in found)
    return f"{values[0]:.2f} to {values[-1]:.2f}"


def inside(entry: Mapping[str, Any]) -> bool:
    """Return whether the interval of a level, or the level alone where it has none, holds 1."""
    low, high = entry.get("low"), entry.get("high")
    if low is None or high is None:
        return bool(entry["value"] == 1.0)
    return bool(low <= 1.0 <= high)


def near(entry: Mapping[str, Any]) -> bool:
    """Return whether a level, predicted over observed, is near 1: by its interval, or within 10 %."""
    return inside(entry) or _close(entry)


def _close(entry: Mapping[str, Any]) -> bool:
    return abs(float(entry["value"]) - 1.0) <= _NEAR


def _listed(labels: Sequence[str], most: int = 4) -> str:
    """Return names as a person lists them; apart by semicolons where a name has a comma of its own."""
    names = [plain(label, 40) for label in labels]
    comma = "; " if any("," in name for name in names) else ", "
    if len(names) > most:
        return f"{comma.join(names[:most])}{comma if comma == '; ' else ' '}and {len(names) - most} more"
    return names[0] if len(names) == 1 else f"{comma.join(names[:-1])}{comma if comma == '; ' else ' '}and {names[-1]}"


def _overlaps(study: Study) -> Iterator[Bullet]:
    """Say whether weighted numbers may be trusted; systems with one verdict share a sentence."""
    known = {entry.label: entry.run.overlap for entry in study.contestants if entry.run and entry.run.overlap}
    thin = [label for label, form in known.items() if not form["sufficient"]]
    enough = [label for label in known if label not in thin]
    if thin:
        shares = sorted(float(known[label]["effective_share"]) for label in thin)
        out = sorted(float(known[label]["left_out"]) for label in thin)
        text = (
            f"Overlap is too thin for IPS with the propensity of {_listed(thin)}: "
            f"{_shares(out)} of the exposure space is out of the clicks' reach, "
            f"and the clicks are worth {_shares(shares)} of their number. Weighted estimates are withheld."
        )
        yield Bullet("bad", "overlap", text)
    if enough:
        shares = sorted(float(known[label]["effective_share"]) for label in enough)
        text = (
            f"Overlap suffices for {_listed(enough)}: the weighted clicks are worth {_shares(shares)} of their number."
        )
        yield Bullet("good", "overlap", text)


def _shares(values: Sequence[float]) -> str:
    low, high = f"{values[0]:.0%}", f"{values[-1]:.0%}"
    return low if low == high else f"{low} to {high}"


def _gates(study: Study) -> Iterator[Bullet]:
    for entry in study.contestants:
        experts = entry.run.experts if entry.run is not None else None
        for sentence in (experts or {}).get("verdict", ())[:3]:
            yield Bullet("bad", "experts", f"{plain(entry.label, 40)}: {plain(sentence, 200)}.")


def _cautions(study: Study) -> Iterator[Bullet]:
    train = study.log.funnel("train")
    few = train is not None and 0 < train.conversions < FEW_CONVERSIONS
    if few and train is not None:
        text = (
            f"Trained on {count(train.conversions)} conversions, under the {count(FEW_CONVERSIONS)} that a comparison "
            "of systems asks for: read the direction, not the third digit."
        )
        yield Bullet("unsure", "caution", text)
    seeds = [entry.seeds for entry in study.contestants]
    if max(seeds, default=1) > 1:
        text = (
            "Levels, curves, overlap and training are those of each system’s first seed; the leaderboard is over all."
        )
        yield Bullet("note", "seeds", text)
    if len(seeds) > 1 and max(seeds) == 1:
        yield Bullet("unsure", "caution", "One seed each: verdicts are on these trained models, not on the systems.")
