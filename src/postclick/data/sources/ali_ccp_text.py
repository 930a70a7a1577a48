"""Lines of the raw Ali-CCP files, read column-wise from the bytes: no Python per line or per feature.

A line is some comma-separated cells and then a feature string: features joined by byte 1, each a field, byte 2, a
value id, byte 3 and a weight.
Every separator is a byte of at most 44 and nothing else in a well-formed line is, so one comparison over the buffer
finds the whole structure; numbers are decoded eight digits at a time in 64-bit words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick.data.hashing import stable_hash
from postclick.errors import DataError, Finding

__all__ = ["Features", "Lines", "line_chunks"]

Words = NDArray[np.uint64]
Places = NDArray[np.int64]

_PAD = 32  # a word that ends at the first byte starts before the buffer; 32 covers 19 digits and then some
_COMMA, _NEWLINE = 44, 10
_ZEROS, _CARRY, _HIGH = np.uint64(0x3030303030303030), np.uint64(0x7676767676767676), np.uint64(0x8080808080808080)
# keep the last n bytes of a little-endian word, n = 0 ... 8
_KEEP = np.array([0] + [(2**64 - 1) ^ (2 ** (64 - 8 * n) - 1) for n in range(1, 9)], np.uint64)
_DOTS, _ONES = np.uint64(0x2E2E2E2E2E2E2E2E), np.uint64(0x0101010101010101)
# by the place of the dot, 8 without one: the bytes above and below it, and what its digits count
_ABOVE = np.array([2**64 - 2 ** (8 * n + 8) for n in range(8)] + [2**64 - 1], np.uint64)
_BELOW = np.array([2 ** (8 * n) - 1 for n in range(8)] + [0], np.uint64)
_POWER = np.array([10.0 ** (7 - n) for n in range(8)] + [1.0])
# 256^n mod 19 is another number for each place n; 0 is no dot
_PLACE = np.full(19, 8, np.int64)
_PLACE[[256**n % 19 for n in range(8)]] = range(8)
_CHUNK_BYTES = 4 << 20


def line_chunks(path: Path, start: int, end: int) -> Iterator[bytes]:
    """Yield the bytes [start, end) of a file in chunks of whole lines of about 4 MB; `start` is the start of a line."""
    with path.open("rb") as handle:
        handle.seek(start)
        rest = b""
        left = end - start
        while left > 0:
            data = handle.read(min(_CHUNK_BYTES, left))
            if not data:
                break
            left -= len(data)
            cut = data.rfind(b"\n") + 1
            if cut:
                yield rest + data[:cut]
                rest = data[cut:]
            else:
                rest += data
        if rest:
            yield rest + b"\n"


def _eight(word: Words) -> tuple[Words, NDArray[np.bool_]]:
    """Return the number of up to eight digits, given as their values a byte, and whether all are digits.

    After Lemire, "Quickly parsing eight digits", 2018.
    """
    good = (((word + _CARRY) | word) & _HIGH) == 0
    word = (word * np.uint64(2561)) >> np.uint64(8)
    word = ((word & np.uint64(0x00FF00FF00FF00FF)) * np.uint64(6553601)) >> np.uint64(16)
    return ((word & np.uint64(0x0000FFFF0000FFFF)) * np.uint64(42949672960001)) >> np.uint64(32), good


@dataclass(frozen=True)
class Features:
    """The features of the wanted fields in V occurrences, in file order.

    Parameters
    ----------
    line
        Line of each, from 0.
    field
        Place of its field among the wanted ones.
    value
        Value id, int64.
    weight
        float32; None where weights were not asked for.
    """

    line: Places
    field: Places
    value: Places
    weight: NDArray[np.float32] | None


class Lines:
    """R lines of a chunk: their structure is checked when the object is made.

    Parameters
    ----------
    data
        Whole lines.
    cells
        Cells before the feature string.
    where, first_line
        File and number of the first line (from 0), for messages.

    Raises
    ------
    DataError
        ``data.csv`` with the number of the first malformed line.
    """

    def __init__(self, data: bytes, cells: int, where: str, first_line: int) -> None:
        self.where, self.first_line = where, first_line
        data = data.replace(b"\r\n", b"\n") if b"\r" in data else data
        self._bytes = np.frombuffer(bytes(_PAD) + data, np.uint8)
        self._words: Words = np.ndarray((len(self._bytes) - 7,), "<u8", self._bytes, strides=(1,))  # one a byte
        place = np.flatnonzero(self._bytes[_PAD:] <= _COMMA) + _PAD
        kind = self._bytes[place]
        last = np.flatnonzero(kind == _NEWLINE)
        first = np.concatenate([[0], last[:-1] + 1])
        self._check_cells(kind, first, last, cells)
        begin = np.concatenate([[_PAD], place[last[:-1]] + 1])
        ends = [place[first + cell] for cell in range(cells)]
        starts = [begin, *(end + 1 for end in ends[:-1])]
        self._cells = list(zip(starts, ends, strict=True))
        self._features = self._split(place, kind, first + cells, last, ends[-1] + 1)

    def __len__(self) -> int:
        return len(self._cells[0][0])

    def integers(self, cell: int) -> Places:
        """Return a cell as int64 [R]."""
        start, end = self._cells[cell]
        return self._whole(start, end, np.arange(len(self)), f"cell {cell + 1} is no whole number")

    def digests(self, cell: int) -> tuple[Words, Words]:
        """Return two independent 64-bit hashes of a cell's text [R] each: together its identity."""
        start, end = self._cells[cell]
        length = end - start
        pair = []
        for seed in (0, 1):
            digest = stable_hash(length, seed)
            for done in range(0, int(length.max(initial=0)), 8):
                word = self._words[np.maximum(end - 8 - done, 0)] & _KEEP[np.clip(length - done, 0, 8)]
                mixed = stable_hash((digest ^ word).view(np.int64), seed)
                digest = np.where(length > done, mixed, digest)
            pair.append(digest)
        return pair[0], pair[1]

    def features(self, wanted: Sequence[str], *, weights: bool) -> Features:
        """Return the occurrences of the wanted fields (names of at most 8 characters)."""
        codes = np.array([int.from_bytes(name.encode().rjust(8, b"\0"), "little") for name in wanted], np.uint64)
        order = np.argsort(codes)
        line, spans = self._features
        length = spans[1] - spans[0]
        code = self._words[spans[1] - 8] & _KEEP[np.clip(length, 0, 8)]
        slot = np.searchsorted(codes[order], code)
        slot[slot == len(codes)] = 0
        known = np.flatnonzero((codes[order[slot]] == code) & (length <= 8))
        line, field = line[known], order[slot[known]]
        spans = [span[known] for span in spans]
        value = self._whole(spans[1] + 1, spans[2], line, "a value id is no whole number")
        return Features(line, field, value, self._decimals(spans[2] + 1, spans[3], line) if weights else None)

    def _fail(self, line: int, what: str) -> None:
        where = f"{self.where}:{self.first_line + line + 1}"
        fix = "repair or remove the line"
        raise DataError(Finding("data.csv", what, where, fix=fix))

    def _check_cells(self, kind: NDArray[np.uint8], first: Places, last: Places, cells: int) -> None:
        short = last - first < cells
        wrong = short.copy()
        for cell in range(cells):
            wrong |= kind[np.minimum(first + cell, len(kind) - 1)] != _COMMA
        if wrong.any():
            self._fail(int(np.argmax(wrong)), f"expected {cells} cells and a feature string")

    def _split(
        self, place: Places, kind: NDArray[np.uint8], first: Places, last: Places, begin: Places
    ) -> tuple[Places, list[Places]]:
        """Return the line of each feature, and where it starts, where its two separators are, where it ends."""
        count = last - first + 1  # separators of the feature string and the newline
        empty = (count == 1) & (place[last] == begin)
        ragged = ~empty & (count % 3 != 0)
        if ragged.any():
            self._fail(int(np.argmax(ragged)), "a feature is not field \\x02 value \\x03 weight")
        features = np.where(empty, 0, count // 3)
        line = np.repeat(np.arange(len(first)), features)
        total = len(line)
        before = np.cumsum(features) - features
        index = np.repeat(first, features) + 3 * (np.arange(total) - np.repeat(before, features))
        middle, close, stop = (place[index + step] for step in range(3))
        good = (kind[index] == 2) & (kind[index + 1] == 3) & (kind[index + 2] == 1)
        final = (before + features - 1)[features > 0]
        good[final] = (kind[index] == 2)[final] & (kind[index + 1] == 3)[final]  # a newline ends the last one
        if not good.all():
            self._fail(int(line[np.argmin(good)]), "a feature is not field \\x02 value \\x03 weight")
        start = np.empty(total, np.int64)
        start[1:] = stop[:-1] + 1
        start[before[features > 0]] = begin[features > 0]
        return line, [start, middle, close, stop]

    def _whole(self, start: Places, end: Places, line: Places, what: str) -> Places:
        value, good = self._digits(start, end)
        good &= value < np.uint64(2**63)
        if not good.all():
            bad = int(np.argmin(good))
            text = self._bytes[start[bad] : end[bad]].tobytes().decode("utf-8", "replace")
            self._fail(int(line[bad]), f"{what}: {text!r}")
        return value.view(np.int64)

    def _digits(self, start: Places, end: Places) -> tuple[Words, NDArray[np.bool_]]:
        """Decode runs of 1 to 19 digits, eight at a time."""
        length = end - start
        good = (length > 0) & (length <= 19)
        total = np.zeros(len(length), np.uint64)
        for done in range(0, min(int(length.max(initial=0)), 19), 8):
            eight, fine = _eight((self._words[end - 8 - done] ^ _ZEROS) & _KEEP[np.clip(length - done, 0, 8)])
            good &= fine
            total = eight if done == 0 else total + eight * np.uint64(10**done)
        return total, good

    def _decimals(self, start: Places, end: Places, line: Places) -> NDArray[np.float32]:
        """Decode weights: up to eight characters in one word, others by the general way."""
        length = end - start
        word = self._words[end - 8] & _KEEP[np.clip(length, 0, 8)]
        dot = word ^ _DOTS
        dot = (dot - _ONES) & ~dot & _HIGH  # the lowest bit set is that of the first dot
        dot &= np.uint64(0) - dot
        place = _PLACE[((dot >> np.uint64(7)) % np.uint64(19)).astype(np.intp)]
        # the digits before the dot move up over it, and leave a zero behind
        moved = (word & _ABOVE[place]) | ((word & _BELOW[place]) << np.uint64(8))
        count = length - (place < 8)
        value, good = _eight((moved ^ _ZEROS) & _KEEP[np.clip(count, 0, 8)])
        good &= (length <= 8) & (count > 0)
        result = value.astype(np.float64) / _POWER[place]
        rest = np.flatnonzero(~good)
        if len(rest):
            result[rest] = self._long_decimals(start[rest], end[rest], line[rest])
        weights: NDArray[np.float32] = result.astype(np.float32)
        return weights

    def _long_decimals(self, start: Places, end: Places, line: Places) -> NDArray[np.float64]:
        """Decode digits with at most one point exactly (a quotient of two exact floats), others as Python does."""
        dots = np.append(np.flatnonzero(self._bytes == ord(".")), len(self._bytes))
        dot = np.minimum(dots[np.searchsorted(dots, start)], end)
        whole, good = self._digits(start, dot)
        behind = np.maximum(end - dot - 1, 0)
        fraction, fits = self._digits(np.minimum(dot + 1, end), end)
        good &= (fits | (behind == 0)) & (end - start <= 16)
        power = np.power(10.0, np.minimum(behind, 15))
        fraction = np.where(behind == 0, np.uint64(0), fraction)
        result: NDArray[np.float64] = (whole.astype(np.float64) * power + fraction.astype(np.float64)) / power
        odd = np.flatnonzero(~good)
        if len(odd):
            result[odd] = [self._odd(int(start[item]), int(end[item]), int(line[item])) for item in odd]
        return result

    def _odd(self, start: int, end: int, line: int) -> float:
        text: Any = self._bytes[start:end].tobytes()
        try:
            return float(text)
        except ValueError:
            self._fail(line, f"a weight is no number: {text.decode('utf-8', 'replace')!r}")
            raise
