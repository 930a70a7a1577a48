"""The ordinary way to prepare raw Ali-CCP: a line at a time, dictionaries and lists, then arrays.

It does what `postclick prepare` does: parse both files, join the common features by key, count the training values,
keep those that occur often enough, encode every exposure to int32 ids, save arrays. Written for the comparison,
plainly, as the repositories that prepare Ali-CCP do it.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

__all__ = ["Exposure", "Prepared", "encode", "read_common", "read_exposures"]

UNKNOWN = 0


@dataclass
class Exposure:
    """One row: its labels, its single values by field, and its lists of (value, weight) by field."""

    number: int
    click: int
    conversion: int
    single: dict[str, int]
    lists: dict[str, list[tuple[int, float]]]


@dataclass
class Prepared:
    """What was saved: fields' vocabularies and the number of rows."""

    rows: int = 0
    vocabulary: dict[str, dict[int, int]] = field(default_factory=dict)


def features(text: str) -> Iterator[tuple[str, int, float]]:
    """Yield (field, value, weight)."""
    for feature in text.split("\x01"):
        name, rest = feature.split("\x02")
        value, weight = rest.split("\x03")
        yield name, int(value), float(weight)


def gather(
    text: str, single: set[str], lists: set[str], longest: int = 50
) -> tuple[dict[str, int], dict[str, list[tuple[int, float]]]]:
    """Return a line's single values (the last one of each field) and its lists."""
    values: dict[str, int] = {}
    several: dict[str, list[tuple[int, float]]] = {}
    for name, value, weight in features(text):
        if name in single:
            values[name] = value
        elif name in lists:
            found = several.setdefault(name, [])
            if len(found) < longest:
                found.append((value, weight))
    return values, several


def read_common(path: Path, single: Sequence[str], lists: Sequence[str]) -> dict[str, tuple[dict, dict]]:
    """Return key -> what the exposures with that key share."""
    common = {}
    wanted, several = set(single), set(lists)
    with path.open() as file:
        for line in file:
            key, _, text = line.rstrip("\n").split(",", 2)
            common[key] = gather(text, wanted, several)
    return common


def read_exposures(
    path: Path, common: dict[str, tuple[dict, dict]], single: Sequence[str], lists: Sequence[str], rows: int | None
) -> Iterator[Exposure]:
    """Yield the first `rows` exposures of a skeleton, joined with their common features."""
    wanted, several = set(single), set(lists)
    nothing: tuple[dict, dict] = ({}, {})
    with path.open() as file:
        for line in islice(file, rows):
            number, click, buy, key, _, text = line.rstrip("\n").split(",", 5)
            own, own_lists = gather(text, wanted, several)
            shared, shared_lists = common.get(key, nothing)
            values = {**shared, **own}
            joined = {name: shared_lists.get(name, []) + own_lists.get(name, []) for name in lists}
            yield Exposure(int(number), int(click), int(buy), values, joined)


def encode(
    exposures: Iterable[Exposure], single: Sequence[str], lists: Sequence[str], folder: Path, min_count: int = 10
) -> Prepared:
    """Count the training rows (nine in ten, by a hash of the number), encode all rows and save them as arrays."""
    kept = list(exposures)
    counts: dict[str, Counter[int]] = {name: Counter() for name in (*single, *lists)}
    for row in kept:
        if zlib.crc32(str(row.number).encode()) % 10 == 0:
            continue
        for name, value in row.single.items():
            counts[name][value] += 1
        for name, values in row.lists.items():
            for value, _ in values:
                counts[name][value] += 1
    prepared = Prepared(len(kept))
    for name, counter in counts.items():
        often = [value for value, count in counter.most_common() if count >= min_count]
        prepared.vocabulary[name] = {value: place + 1 for place, value in enumerate(often)}
    ids = np.zeros((len(kept), len(single)), np.int32)
    labels = np.zeros((len(kept), 3), np.int64)
    ragged: dict[str, tuple[list[int], list[float], list[int]]] = {name: ([], [], [0]) for name in lists}
    for place, row in enumerate(kept):
        labels[place] = row.number, row.click, row.conversion
        for column, name in enumerate(single):
            if name in row.single:
                ids[place, column] = prepared.vocabulary[name].get(row.single[name], UNKNOWN)
        for name, (values, weights, offsets) in ragged.items():
            known = prepared.vocabulary[name]
            for value, weight in row.lists[name]:
                values.append(known.get(value, UNKNOWN))
                weights.append(weight)
            offsets.append(len(values))
    np.save(folder / "ids.npy", ids)
    np.save(folder / "labels.npy", labels)
    for name, (values, weights, offsets) in ragged.items():
        np.save(folder / f"{name}.npy", np.asarray(values, np.int32))
        np.save(folder / f"{name}-weights.npy", np.asarray(weights, np.float32))
        np.save(folder / f"{name}-offsets.npy", np.asarray(offsets, np.int64))
    return prepared
