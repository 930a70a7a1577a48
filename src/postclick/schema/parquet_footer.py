"""What a Parquet file's footer says of its column chunks, read here.

Arrow's own accessors end the process over some damaged footers (a C++ exception that Python never sees), so sizes are
read from the bytes before anything else looks at the file. The format: Thrift compact protocol, ``parquet.thrift`` of
the Apache Parquet project.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postclick.errors import DataError, Finding

__all__ = ["ChunkSizes", "GroupSizes", "read_footer"]

_MAGIC = b"PAR1"
_TAIL = 8
_LARGEST_FOOTER = 256 << 20
_DEEPEST = 16
_TRUE, _FALSE, _BYTE, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 6, 7, 8, 9, 10, 11, 12
_BYTE_ARRAY = 6


@dataclass(frozen=True)
class ChunkSizes:
    """One column of a row group.

    Parameters
    ----------
    path
        Names from the column down to the values of a list.
    text
        Whether it holds byte arrays.
    packed, full
        Bytes, compressed and not.
    coded
        Whether it has a dictionary.
    """

    path: tuple[str, ...]
    text: bool
    packed: int
    full: int
    coded: bool


@dataclass(frozen=True)
class GroupSizes:
    """One row group: rows, bytes when unpacked, its columns."""

    rows: int
    full: int
    chunks: tuple[ChunkSizes, ...]


class _Compact:
    """Reads Thrift's compact protocol: structs as field number -> value, lists as lists, numbers, bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Read a struct."""
        if depth > _DEEPEST:
            raise ValueError("nested too deep")
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            kind = head & 15
            found[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind == _BINARY:
            return self._take(self._varint())
        if _BYTE < kind <= _I64:
            return self._zigzag()
        if kind in (_LIST, _SET):
            return list(self._items(depth))
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_TRUE, _FALSE, _BYTE):  # inside lists
            return self._byte()
        if kind == _DOUBLE:
            return self._take(8)
        if kind == _MAP:
            return self._map(depth)
        raise ValueError(f"no type {kind}")

    def _items(self, depth: int) -> Iterator[Any]:
        head = self._byte()
        count = self._varint() if head >> 4 == 15 else head >> 4
        if count > len(self._data):
            raise ValueError("a list longer than the footer")
        for _ in range(count):
            yield self._value(head & 15, depth + 1)

    def _map(self, depth: int) -> list[tuple[Any, Any]]:
        count = self._varint()
        if count > len(self._data):
            raise ValueError("a map longer than the footer")
        kinds = self._byte() if count else 0
        return [(self._value(kinds >> 4, depth + 1), self._value(kinds & 15, depth + 1)) for _ in range(count)]

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _take(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise ValueError("a value longer than the footer")
        self._at += count
        return self._data[self._at - count : self._at]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number that is too long")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)


def read_footer(path: Path, label: str) -> tuple[GroupSizes, ...]:
    """Return the sizes of a file's row groups.

    Raises
    ------
    DataError
        ``data.corrupt_file``: no Parquet, cut short, or a footer that makes no sense.
    """
    try:
        with path.open("rb") as handle:
            size = handle.seek(0, 2)
            handle.seek(max(0, size - _TAIL))
            tail = handle.read(_TAIL)
            length = int.from_bytes(tail[:4], "little")
            if tail[4:] != _MAGIC:
                raise ValueError("the file does not end as Parquet does: it is cut short, or no Parquet file")
            if not 0 < length <= min(size - _TAIL, _LARGEST_FOOTER):
                raise ValueError("the length of the footer makes no sense")
            handle.seek(size - _TAIL - length)
            found = _Compact(handle.read(length)).struct()
        return tuple(_group(group) for group in found[4])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OSError) as error:
        what = str(error) if isinstance(error, ValueError | OSError) else "the footer is damaged"
        raise DataError(Finding("data.corrupt_file", what, label, fix="replace the file")) from error


def _group(value: dict[int, Any]) -> GroupSizes:
    chunks = tuple(_chunk(chunk[3]) for chunk in value[1])
    # the footer of a file that is right says no less of a group than of its columns
    return GroupSizes(int(value[3]), max(int(value[2]), sum(chunk.full for chunk in chunks)), chunks)


def _chunk(value: dict[int, Any]) -> ChunkSizes:
    path = tuple(str(part, "utf-8") for part in value[3])
    packed, full = int(value[7]), int(value[6])
    if packed < 0 or full < 0:
        raise ValueError("sizes below zero")
    return ChunkSizes(path, value[1] == _BYTE_ARRAY, packed, full, 11 in value)
