"""Finds where a file can be cut into parts that hold whole records, while it is read once."""

from __future__ import annotations

import codecs
from functools import cache

from orrery.config.ingest import GZIP, Files
from orrery.ingest.landing import LandingFile, LandingZone
from orrery.ingest.limits import LONGEST
from orrery.ingest.records import LINES, Dialect, Quotes
from orrery.ingest.text import BLOCK, Hashing

# A character takes at most so many times the bytes in UTF-8, in which records are measured.
_GROWTH = 3


def can_cut(name: str, spec: Files) -> bool:
    """Whether the bytes of a file can be told to be line ends and quotes without all that is before them."""
    return (
        spec.file_format != "parquet"
        and not name.lower().endswith(GZIP)
        and (spec.csv.encoding == "utf-8" or _is_single_byte(spec.csv.encoding))
    )


def cut(zone: LandingZone, file: LandingFile, spec: Files, size: int) -> tuple[list[tuple[int, int]], str]:
    """Where the parts of a file begin, as offset and line, and the digest of its content.

    :param size: how many bytes a part shall have; it goes on to the end of its last record
    Raises FileError for a file that has changed.
    """
    csv = spec.file_format == "csv"
    longest = LONGEST if spec.csv.encoding == "utf-8" else LONGEST // _GROWTH
    dialect = Dialect.of(spec.csv) if csv else LINES
    cutter = Cutter(Quotes(dialect), size, header=csv and spec.csv.header, longest=longest)
    with zone.open(file) as raw:
        stream = Hashing(raw)
        while block := stream.read(BLOCK):
            cutter.feed(block)
    zone.check_unchanged(file)
    return cutter.finish(), stream.hexdigest


class Cutter:
    """Takes the bytes of a file, and says at the end where its parts begin: (offset, line), from (0, 1).

    A part begins behind a line end at which orrery.ingest.records.Records has no record open, so that the
    records of the parts are those of the whole, damaged ones included. What follows a record that is
    longer than `longest` stays in one part: there Records begins anew with its second line.

    :param header: whether the first line is none of the records; no part begins before its end
    """

    def __init__(self, quotes: Quotes, size: int, *, header: bool, longest: int = LONGEST) -> None:
        self._starts = [(0, 1)]
        self._quotes, self._size, self._longest = quotes, size, longest
        self._before_records = header
        self._offset, self._line = 0, 1  # of what has not been looked at
        self._rest = b""
        self._open = False
        # The last line end of which it is certain that no record is open.
        self._closed = 0
        self._damaged = False

    def feed(self, block: bytes) -> None:
        """Take the next bytes."""
        if self._damaged:
            return
        text = self._rest + block
        end = text.rfind(b"\n") + 1
        if end:
            self._take(text[:end])
        self._rest = text[end:]
        if len(self._rest) > self._longest:
            self._give_up()

    def finish(self) -> list[tuple[int, int]]:
        """Where the parts begin of what has been taken."""
        end = self._offset + len(self._rest)
        if end - self._closed > self._longest:
            self._give_up()
        return [start for start in self._starts if start == (0, 1) or start[0] < end]

    def _take(self, lines: bytes) -> None:
        begin = self._behind_header(lines) if self._before_records else 0
        opened = self._open
        self._cut(lines, begin)
        certain = len(lines) if not self._open else self._first_closed(lines, begin, opened)
        end = self._offset + (len(lines) if certain is None else certain)
        if end - self._closed > self._longest:
            self._give_up()
        elif certain is not None:
            self._closed = end
        self._offset += len(lines)

    def _behind_header(self, lines: bytes) -> int:
        """The end of the first line with anything in it."""
        text = lines.removeprefix(codecs.BOM_UTF8) if self._offset == 0 else lines
        first = len(lines) - len(text.lstrip(b"\r\n"))
        end = lines.find(b"\n", first) + 1 or len(lines)
        self._before_records = first == len(lines)
        self._line += lines.count(b"\n", 0, end)
        return end

    def _cut(self, lines: bytes, begin: int) -> None:
        while begin < len(lines):
            wanted = max(begin, self._starts[-1][0] + self._size - self._offset - 1)
            end = lines.find(b"\n", wanted) + 1
            piece = lines[begin : end or len(lines)]
            self._open = self._quotes.end_open(piece, begin_open=self._open)
            self._line += piece.count(b"\n")
            begin += len(piece)
            if end and not self._open:
                self._starts.append((self._offset + begin, self._line))

    def _first_closed(self, lines: bytes, begin: int, opened: bool) -> int | None:
        """The first line end at which no record is open, if there is one."""
        while begin < len(lines):
            end = lines.index(b"\n", begin) + 1
            opened = self._quotes.end_open(lines[begin:end], begin_open=opened)
            if not opened:
                return end
            begin = end
        return None

    def _give_up(self) -> None:
        self._damaged = True
        self._starts = [start for start in self._starts if start[0] <= self._closed]


@cache
def _is_single_byte(encoding: str) -> bool:
    """Whether every byte is a character of its own, and those of ASCII are the same."""
    if any(_decoded(byte, encoding) != chr(byte) for byte in range(128)):
        return False
    return all(_decoded(byte, encoding) != "" for byte in range(128, 256))


def _decoded(byte: int, encoding: str) -> str | None:
    """The text of a byte; empty where it has none without another, None where it is none at all."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(bytes([byte]))
    except UnicodeError:
        return None
