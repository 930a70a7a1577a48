"""Where a large CSV file can be cut so that several processes read it: after a record, never inside a quoted cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from postclick.schema.csv_stream import QuoteCheck

__all__ = ["CsvRange", "csv_ranges"]

_PIECE_BYTES = 32 << 20
_BLOCK_BYTES = 4 << 20
_NEWLINE, _RETURN, _QUOTE = ord("\n"), ord("\r"), ord('"')
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class CsvRange:
    """Some whole records of a file.

    Parameters
    ----------
    start, end
        Bytes; None is the end of the file.
    first_row
        Number of the first record, from 0, the header not counted.
    """

    start: int = 0
    end: int | None = None
    first_row: int = 0


def csv_ranges(path: Path, label: str, delimiter: str, skip: int) -> list[CsvRange]:
    """Cut a file into ranges of about 32 MB.

    A file stays whole where it is short or compressed, where a line ends in a carriage return alone, and where quotes
    stand inside cells that are not quoted: there only the parser itself can tell what is inside a cell.

    Parameters
    ----------
    path, label
        The file and its name for messages.
    delimiter
        Of its cells.
    skip
        Lines before its first record.

    Raises
    ------
    DataError
        ``data.csv`` with the line where a quote is not closed as it should be.
    """
    if path.name.lower().endswith(".gz") or path.stat().st_size <= _PIECE_BYTES:
        return [CsvRange()]
    check = QuoteCheck(delimiter, label)
    starts, rows = [(0, 0)], 0
    lines = -skip
    for end, block in _blocks(path):
        inside = check.opened is not None
        check.feed(block)
        if check.walked or block.count(b"\r") != block.count(b"\r\n"):
            return [CsvRange()]
        rows += _records(block, inside, max(0, -lines))
        lines += block.count(b"\n")
        if end - starts[-1][0] >= _PIECE_BYTES and check.opened is None:
            starts.append((end, rows))
    check.finish()
    ends = [start for start, _ in starts[1:]]
    if starts[-1][0] == path.stat().st_size:
        starts.pop()
        ends.pop()
    return [CsvRange(start, end, row) for (start, row), end in zip(starts, [*ends, None], strict=True)]


def _blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (where it ends, bytes) of blocks of whole lines; the last one may lack its line break."""
    rest, position = b"", 0
    with path.open("rb") as handle:
        while data := handle.read(_BLOCK_BYTES):
            first = position == 0
            position += len(data)
            cut = data.rfind(b"\n") + 1
            if not cut:
                rest += data
                if len(rest) > _PIECE_BYTES:  # no CSV that can be read: the reader of the last range will say so
                    return
                continue
            block = rest + data[:cut]
            rest = data[cut:]
            yield position - len(rest), block.removeprefix(_BYTE_ORDER_MARK) if first else block
    if rest:
        yield position, rest


def _records(block: bytes, inside: bool, skip: int) -> int:
    """Return how many records end in a block: line breaks outside quotes, without those of blank lines."""
    data = np.frombuffer(block, np.uint8)
    breaks = np.flatnonzero(data == _NEWLINE)[skip:]
    if b'"' in block:
        quotes = np.flatnonzero(data == _QUOTE)
        breaks = breaks[(np.searchsorted(quotes, breaks) + inside) % 2 == 0]
    return len(breaks) - int(np.count_nonzero(_blank(data, breaks)))


def _blank(data: NDArray[np.uint8], breaks: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which line breaks end an empty line; a block begins where a line begins."""
    before = np.where(breaks >= 1, data[breaks - 1], _NEWLINE)
    earlier = np.where(breaks >= 2, data[breaks - 2], _NEWLINE)
    found: NDArray[np.bool_] = (before == _NEWLINE) | ((before == _RETURN) & (earlier == _NEWLINE))
    return found
