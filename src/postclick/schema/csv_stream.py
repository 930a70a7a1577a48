"""The bytes of a CSV file on their way to the parser: a bomb is stopped, and a quote that would swallow rows."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from postclick.errors import DataError, Finding

__all__ = ["CsvStream", "QuoteCheck", "line_of", "long_line"]

_QUOTE = ord('"')
_LARGEST_RATIO = 200
"""Gzip makes logs some 5 to 50 times smaller; beyond this only bytes made to swell do so."""
_FREE_BYTES = 32 << 20
"""Below this no ratio is a danger: a short file of one repeated row is no bomb."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class QuoteCheck:
    """Watches the quotes of a CSV go by and refuses what the parser would silently take for part of a cell.

    A quote opens a cell where a cell begins; what it opens must end with a quote before a delimiter or a line break, as
    RFC 4180 has it. Without this a forgotten quote swallows the rows up to the next one. A quote inside a cell that was
    not opened by one is a character like any other.

    Parameters
    ----------
    delimiter
        Of the cells.
    label
        The file, for the message.
    """

    def __init__(self, delimiter: str, label: str) -> None:
        self._ends = np.zeros(256, np.bool_)
        self._ends[[ord(delimiter), ord("\n"), ord("\r")]] = True
        self._label = label
        self._inside, self._opened = False, 1
        self._lines, self._before = 0, ord("\n")
        self._held = b""
        self.walked = False
        """Whether quotes stood where they open or close nothing, so that not every second one closes."""

    @property
    def opened(self) -> int | None:
        """The line of a quote that is open, or None."""
        return self._opened if self._inside else None

    def feed(self, data: bytes) -> None:
        """Look at the next bytes.

        Raises
        ------
        DataError
            ``data.csv`` with the line: text after a closing quote.
        """
        data = self._held + data
        body = data.rstrip(b'"')  # a run of quotes at the end waits for what follows it
        self._held = data[len(body) :]
        self._look(body)

    def finish(self) -> None:
        """Say that the file ends here.

        Raises
        ------
        DataError
            ``data.csv`` with the line where a quote was opened that nothing closes.
        """
        self._look(self._held + b"\n")
        if self._inside:
            raise self._fault("a quote is opened here and never closed", self._opened)

    def _look(self, body: bytes) -> None:
        if not body:
            return
        if b'"' in body:
            self._judge(body)
        self._lines += body.count(b"\n")
        self._before = body[-1]

    def _judge(self, body: bytes) -> None:
        data = np.frombuffer(body, np.uint8)
        quotes = np.flatnonzero(data == _QUOTE)
        before = data[quotes - 1]
        if quotes[0] == 0:
            before[0] = self._before
        after = data[quotes + 1]  # the last byte of `body` is no quote
        opens, closes = self._ends[before], self._ends[after]
        inside = (np.arange(len(quotes)) + self._inside) % 2 == 1
        # in a file where only whole cells are quoted, every second quote closes; a doubled one closes and opens again
        if np.where(inside, closes | (after == _QUOTE), opens | (before == _QUOTE)).all():
            self._inside ^= bool(len(quotes) % 2)
            openers = quotes[~inside & opens]
            if self._inside and len(openers):
                self._opened = self._line(body, int(openers[-1]))
            return
        self._walk(body, quotes, opens, closes)

    def _walk(self, body: bytes, quotes: NDArray[Any], opens: NDArray[np.bool_], closes: NDArray[np.bool_]) -> None:
        """Go from quote to quote as the parser does."""
        self.walked = True
        places = quotes.tolist()
        at = 0
        while at < len(places):
            if not self._inside:
                if opens[at]:
                    self._inside, self._opened = True, self._line(body, places[at])
            elif at + 1 < len(places) and places[at + 1] == places[at] + 1:
                at += 1
            elif closes[at]:
                self._inside = False
            else:
                line = self._line(body, places[at])
                opened = f", which began in line {self._opened}" if self._opened != line else ""
                raise self._fault(f"text after the closing quote of a cell{opened}", line)
            at += 1

    def _line(self, body: bytes, place: int) -> int:
        return self._lines + body.count(b"\n", 0, place) + 1

    def _fault(self, what: str, line: int) -> DataError:
        fix = "close the quote; a quote inside a quoted cell is doubled"
        return DataError(Finding("data.csv", what, f"{self._label}:{line}", fix=fix))


class CsvStream(io.RawIOBase):
    """The plain bytes of a CSV file, gzip undone and watched.

    Parameters
    ----------
    path, label
        The file and its name for messages.
    delimiter
        Of its cells.
    start, end
        Bytes of whole records; None is the end of the file.
    """

    def __init__(self, path: Path, label: str, delimiter: str, start: int = 0, end: int | None = None) -> None:
        super().__init__()
        self._file: IO[bytes] = path.open("rb")
        self._file.seek(start)
        self._left = None if end is None else end - start
        self._plain: Any = self._file
        if path.name.lower().endswith(".gz"):
            self._plain = gzip.GzipFile(fileobj=self._file)
        self._label, self._given, self._begun = label, 0, False
        self._check = QuoteCheck(delimiter, label)

    def readable(self) -> bool:
        """Say yes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes.

        Raises
        ------
        DataError
            ``data.bomb`` where a compressed file swells beyond reason, ``data.csv`` as `QuoteCheck`.
        OSError, EOFError
            Where the compression is damaged.
        """
        if self._left is not None:
            size = self._left if size < 0 else min(size, self._left)
        data: bytes = self._plain.read(size)
        if self._left is not None:
            self._left -= len(data)
        if self._plain is not self._file:
            self._measure(len(data))
        if not data:
            self._check.finish()
        else:
            self._check.feed(data if self._begun else data.removeprefix(_BYTE_ORDER_MARK))
            self._begun = True
        return data

    def _measure(self, count: int) -> None:
        self._given += count
        packed = max(self._file.tell(), 1)
        if self._given > _FREE_BYTES and self._given > _LARGEST_RATIO * packed:
            what = f"{packed:,} compressed bytes gave {self._given:,}, more than {_LARGEST_RATIO} times as many"
            fix = "if the file is what it should be, decompress it yourself and pass the plain CSV"
            raise DataError(Finding("data.bomb", what, self._label, fix=fix))

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._plain.close()
            self._file.close()
        super().close()


def line_of(path: Path, delimiter: str, skip: int, record: int) -> int:
    """Return the line in which a record begins: records may hold line breaks in quotes, and blank lines are none.

    Parameters
    ----------
    path
        The file.
    delimiter
        Of its cells.
    skip
        Lines before the first record.
    record
        Number of the record, from 1.
    """
    opener: Any = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8", errors="replace", newline="") as handle:
        for _ in range(skip):
            handle.readline()
        reader, seen, line = csv.reader(handle, delimiter=delimiter), 0, skip + 1
        try:
            for cells in reader:
                seen += bool(cells)
                if cells and seen == record:
                    return line
                line = skip + reader.line_num + 1
        except csv.Error:  # a cell that is too long for this reader: the line it is in
            return skip + reader.line_num
    return line


def long_line(path: Path, limit: int) -> int | None:
    """Return the number of the first line of more than `limit` bytes, or None; never holds more than that."""
    opener: Any = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rb") as handle:
        number = 1
        while line := handle.readline(limit + 1):
            if len(line) > limit:
                return number
            number += 1
    return None
