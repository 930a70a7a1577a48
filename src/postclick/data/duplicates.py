"""Exposure ids that occur twice: duplicates within a split, overlap between splits; in bounded memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from postclick.data.hashing import stable_hash
from postclick.data.log import SPLITS
from postclick.data.staged import StagedPiece, read_staged, staged_labels

__all__ = ["Duplicates", "find_duplicates"]

_PARTITION_ROWS = 8_000_000
"""Keys sorted at once: about half a gigabyte. More rows take more passes over the ids, not more memory."""


@dataclass(frozen=True)
class Duplicates:
    """What was found.

    Parameters
    ----------
    drop
        (piece, file within it) -> positions of the later copies.
    exact, conflicting
        Later copies whose labels equal the first one's, and those whose labels differ.
    overlap
        ``train-test`` and so on -> ids that occur in both; only where files have roles.
    """

    drop: Mapping[tuple[int, int], NDArray[np.int64]] = field(default_factory=dict)
    exact: int = 0
    conflicting: int = 0
    overlap: Mapping[str, int] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """The two kinds of copies in words."""
        return f"{self.exact:,} later copies with equal labels, {self.conflicting:,} with other labels"

    @property
    def rows(self) -> int:
        """Rows to drop."""
        return self.exact + self.conflicting


@dataclass(frozen=True)
class _Keys:
    """Of some rows: two hashes of the id, the position over all files, the role and the labels as a number."""

    hash: NDArray[np.uint64]
    check: NDArray[np.uint64]
    position: NDArray[np.int64]
    role: NDArray[np.int8]
    label: NDArray[np.int8]


def find_duplicates(pieces: Sequence[StagedPiece], types: Mapping[str, pa.DataType], *, by_role: bool) -> Duplicates:
    """Find later copies of an exposure id.

    Parameters
    ----------
    pieces
        Staged pieces in order; the first occurrence in this order is the one that stays.
    types
        Types of the staged columns.
    by_role
        Copies in files of different roles are no duplicates but an overlap.
    """
    if _all_different(pieces):
        return Duplicates()
    total = sum(piece.rows for piece in pieces)
    partitions = max(1, -(-total // _PARTITION_ROWS))
    dropped: list[NDArray[np.int64]] = []
    exact = conflicting = 0
    overlap: dict[str, int] = {}
    for partition in range(partitions):
        keys = _collect(lambda: _keys(pieces, types, by_role), partition, partitions)
        copies, differs = _copies(keys)
        dropped.append(copies)
        conflicting += int(differs.sum())
        exact += len(differs) - int(differs.sum())
        for pair, count in _overlap(keys).items():
            overlap[pair] = overlap.get(pair, 0) + count
    return Duplicates(_by_file(pieces, np.sort(np.concatenate(dropped))), exact, conflicting, overlap)


def _all_different(pieces: Sequence[StagedPiece]) -> bool:
    """Whether the ids ascend in every file and no two files' ranges touch: then nothing has to be sorted."""
    spans = sorted((file.span or (0, 0)) for piece in pieces for file in piece.files)
    known = all(file.span is not None for piece in pieces for file in piece.files)
    return known and all(left[1] < right[0] for left, right in itertools.pairwise(spans))


def _keys(pieces: Sequence[StagedPiece], types: Mapping[str, pa.DataType], by_role: bool) -> Iterator[_Keys]:
    wanted = [f"label:{name}" for name in ("click", "conversion", "action", "exposure_id") if f"label:{name}" in types]
    first = 0
    for piece in pieces:
        role = SPLITS.index(piece.role) if by_role and piece.role is not None else 0
        for file in piece.files:
            for batch in read_staged(file, types, wanted):
                labels = staged_labels(batch)
                ids = labels.exposure_id
                assert ids is not None
                rows = len(ids)
                hashes = stable_hash(ids)
                # the hash of an integer is a bijection; two texts may share one, never two independent ones
                check = hashes if ids.dtype.kind == "i" else stable_hash(ids, seed=1)
                label = labels.click + 2 * labels.conversion
                label = label if labels.action is None else label + 4 * labels.action
                place = np.arange(first, first + rows)
                yield _Keys(hashes, check, place, np.full(rows, role, np.int8), label)
                first += rows


def _collect(read: Callable[[], Iterator[_Keys]], partition: int, partitions: int) -> _Keys:
    """Return the keys of one partition sorted by id, then position."""
    parts: list[_Keys] = []
    for keys in read():
        if partitions == 1:
            parts.append(keys)
            continue
        mine = keys.hash % np.uint64(partitions) == np.uint64(partition)
        parts.append(_Keys(keys.hash[mine], keys.check[mine], keys.position[mine], keys.role[mine], keys.label[mine]))

    def joined(name: str, kind: Any) -> Any:
        return np.concatenate([getattr(part, name) for part in parts] or [np.zeros(0, kind)])

    hashes, check = joined("hash", np.uint64), joined("check", np.uint64)
    order = np.argsort(hashes, kind="stable")
    if not np.array_equal(hashes, check):
        order = np.lexsort((check, hashes))
    return _Keys(
        hashes[order],
        check[order],
        joined("position", np.int64)[order],
        joined("role", np.int8)[order],
        joined("label", np.int8)[order],
    )


def _groups(keys: _Keys) -> NDArray[np.int64]:
    """Return where each id begins."""
    if not len(keys.hash):
        return np.zeros(0, np.int64)
    fresh = (keys.hash[1:] != keys.hash[:-1]) | (keys.check[1:] != keys.check[:-1])
    return np.concatenate([[0], np.flatnonzero(fresh) + 1])


def _copies(keys: _Keys) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return positions of later copies within one role, and whether their labels differ from the first one's."""
    starts = _groups(keys)
    group = np.zeros(len(keys.hash), np.int64)
    group[starts[1:]] = 1
    group = np.cumsum(group)
    sizes = np.bincount(group, minlength=len(starts)) if len(starts) else np.zeros(0, np.int64)
    candidates = np.flatnonzero(sizes[group] > 1) if len(starts) else np.zeros(0, np.int64)
    # within an id rows stand by position; within a role, which the combined key adds, the first one stays
    combined = group[candidates] * len(SPLITS) + keys.role[candidates]
    _, first, inverse = np.unique(combined, return_index=True, return_inverse=True)
    original = candidates[first][inverse]
    later = original != candidates
    differs = keys.label[candidates] != keys.label[original]
    return keys.position[candidates[later]], differs[later]


def _overlap(keys: _Keys) -> dict[str, int]:
    starts = _groups(keys)
    if not len(starts):
        return {}
    roles = np.bitwise_or.reduceat(np.left_shift(1, keys.role.astype(np.int64)), starts)
    pairs = {}
    for first, second in ((0, 1), (0, 2), (1, 2)):
        both = (1 << first) | (1 << second)
        count = int(np.count_nonzero(roles & both == both))
        if count:
            pairs[f"{SPLITS[first]}-{SPLITS[second]}"] = count
    return pairs


def _by_file(pieces: Sequence[StagedPiece], dropped: NDArray[np.int64]) -> dict[tuple[int, int], NDArray[np.int64]]:
    found, first = {}, 0
    for piece in pieces:
        for number, file in enumerate(piece.files):
            low, high = np.searchsorted(dropped, [first, first + file.rows])
            if high > low:
                found[piece.index, number] = dropped[low:high] - first
            first += file.rows
    return found
