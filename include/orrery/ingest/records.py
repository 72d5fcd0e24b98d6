"""From text to records that PostgreSQL can copy, every one with its number, its line and what is wrong."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from orrery.config.ingest import Csv
from orrery.ingest.errors import FileError
from orrery.ingest.limits import LONGEST, Limits

# Levels of arrays and objects in a line of JSON. PostgreSQL would give up the file for more than some
# thousand, and BigQuery takes no more than these.
_DEEPEST = 500
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[][{}]', re.DOTALL)


@dataclass(frozen=True)
class Dialect:
    """How fields are told apart; the same words as PostgreSQL's COPY has."""

    delimiter: str
    quote: str
    escape: str

    @classmethod
    def of(cls, csv: Csv) -> Dialect:
        """The dialect of a source's CSV files."""
        return cls(csv.delimiter, csv.quote, csv.escape or csv.quote)


# Every line is one field: none of these can stand in JSON.
LINES = Dialect("\x1f", "\x1e", "\x1e")


class Quotes:
    """What is quoted in a dialect, as COPY sees it: wherever it stands in a field."""

    def __init__(self, dialect: Dialect) -> None:
        self._quote, self._escape = dialect.quote.encode(), dialect.escape.encode()
        self._none = dialect is LINES
        quote, escape = re.escape(self._quote), re.escape(self._escape)
        # The group is there in the part that does not end; escapes are none outside of quotes.
        one, last = b"[^%b]" % quote, b""
        if quote != escape:
            one, last = b"(?:[^%b%b]++|%b.)" % (quote, escape, escape), escape + b"?"
        self._parts = re.compile(b"%b%b*+(?:%b|%b(\\Z))" % (quote, one, quote, last), re.DOTALL)

    def without(self, record: bytes) -> bytes:
        """A record without its quoted parts."""
        return self._parts.sub(b"", record)

    def end_open(self, lines: bytes, *, begin_open: bool) -> bool:
        """Whether a quote is open behind one line or more, given whether one is before them."""
        if self._none:
            return False
        if self._escape == self._quote or self._escape not in lines:
            return (lines.count(self._quote) + begin_open) % 2 == 1
        text = self._quote + lines if begin_open else lines
        return any(part[1] is not None for part in self._parts.finditer(text))


def read_header(
    name: str, text: Iterator[bytes], dialect: Dialect, *, limits: Limits
) -> tuple[list[str], Iterator[bytes], int]:
    """The names in the first record, the text after it, and the line on which that begins.

    Raises FileError when there is no such record, it is none, or it names more columns than there can be.
    """
    start = b""
    for block in text:
        start += block
        if b"\n" in start.lstrip(b"\r\n") or len(start) > LONGEST:
            break
    skipped = len(start) - len(start.lstrip(b"\r\n"))
    line = 1 + start[:skipped].count(b"\n")
    first, _, rest = start[skipped:].partition(b"\n")
    if not first:
        raise FileError(name, "the file is empty", "Land a file with at least a header.")
    try:
        header = first.removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise FileError(name, "the header is not valid UTF-8", "Set csv: encoding.", line) from None
    found = None if "\r" in header or "\0" in header else fields(header, dialect, most=limits.columns)
    if found is None:
        raise FileError(name, "the header is no record of one line", "Check quotes and line ends.", line)
    limits.check_columns(name, found, line)
    return [(field or "").strip() for field in found], chain([rest], text), line + 1


def fields(record: str, dialect: Dialect, most: int | None = None) -> list[str | None] | None:
    """The fields of a record as COPY reads them, or None when a quote stays open.

    As there, a field with nothing in it, not even quotes, is None.

    :param most: with more fields than these, those behind the next one are left out
    """
    special = re.compile(f"[{re.escape(dialect.delimiter + dialect.quote + dialect.escape)}]")
    found: list[str | None] = []
    # Of a field, even if it is empty; none of them where there is nothing.
    parts: list[str] = []
    quoted, at = False, 0
    while at < len(record) and (most is None or len(found) <= most):
        match = special.search(record, at)
        end = match.start() if match else len(record)
        if end > at:
            parts.append(record[at:end])
        char, following = record[end : end + 1], record[end + 1 : end + 2]
        at = end + 1
        if quoted and char == dialect.escape and following and following in (dialect.quote, dialect.escape):
            parts.append(following)
            at += 1
        elif char == dialect.quote:
            quoted = not quoted
            parts.append("")
        elif char == dialect.delimiter and not quoted:
            found.append("".join(parts) if parts else None)
            parts = []
        elif char:
            parts.append(char)
    return None if quoted else [*found, "".join(parts) if parts else None]


class Records:
    """The records of a file, or of a part of it, as the text of a COPY.

    Each comes out as `row,line,reason,field,...`. `row` counts records from 1, `line` is the line of the
    file on which the record begins; a record that cannot be split into `fields` fields has a reason and, as
    its first field, all its text. Empty lines are no records.

    :param first_line: the line of the file with which the text begins, from 1
    """

    def __init__(self, name: str, dialect: Dialect, fields: int, *, first_line: int) -> None:
        self.rows = 0  # so far
        self._line = first_line
        self._name = name
        self._fields = fields
        self._delimiter, self._quote = dialect.delimiter.encode(), dialect.quote.encode()
        self._escape = dialect.escape.encode()
        self._quotes = Quotes(dialect)
        self._one_line = dialect is LINES
        # The lines of a record whose quoted field goes on: behind the first, none of them closes it.
        self._open: deque[bytes] = deque()
        self._open_size = 0

    def copy_blocks(self, text: Iterator[bytes]) -> Iterator[bytes]:
        """The records of `text` in blocks; raises FileError for a line that does not end."""
        rest = b""
        for block in text:
            whole, newline, rest = (rest + block).rpartition(b"\n")
            if newline:
                yield b"".join(self._records(whole))
            if len(rest) > LONGEST:
                line = self._line + len(self._open)
                raise FileError(
                    self._name, f"a line is longer than {LONGEST >> 20} MB", "Check line ends.", line
                )
        if rest:
            yield b"".join(self._records(rest))
        while self._open:
            yield b"".join(self._without_first_line())

    def _records(self, text: bytes) -> Iterator[bytes]:
        if b"\r" in text and self._quote not in text and not self._open:
            # With the line end behind it; what is left then is a carriage return of its own.
            unix = (text + b"\n").replace(b"\r\n", b"\n")[:-1]
            text = text if b"\r" in unix else unix
        clean = b"\r" not in text and b"\0" not in text and _is_utf8(text)
        for line in text.split(b"\n"):
            if (
                clean
                and not self._open
                and self._quote not in line
                and line.count(self._delimiter) == self._fields - 1
                and line
                and not (self._one_line and _is_deep(line))
            ):
                yield self._good(line)
                self._line += 1
            else:
                yield from self._add(line)

    def _add(self, line: bytes) -> Iterator[bytes]:
        """Take a line that may hold anything; the record comes with its last line."""
        if self._quotes.end_open(line, begin_open=bool(self._open)):
            self._open.append(line)
            self._open_size += len(line)
            if self._open_size > LONGEST:
                yield from self._without_first_line()
        else:
            lines = [*self._open, line]
            self._open.clear()
            self._open_size = 0
            yield from self._record(lines)

    def _without_first_line(self) -> Iterator[bytes]:
        """Reject the line that opens a quote, and read those behind it anew, up to one that opens another."""
        first = self._open.popleft()
        self._open_size -= len(first)
        yield self._bad(first, "opens a quote that is never closed")
        self._line += 1
        while self._open and not self._quotes.end_open(self._open[0], begin_open=False):
            line = self._open.popleft()
            self._open_size -= len(line)
            yield from self._record([line])

    def _record(self, lines: list[bytes]) -> Iterator[bytes]:
        record = b"\n".join(lines).removesuffix(b"\r")
        if record:
            reason = self._reason(record)
            yield self._bad(record, reason) if reason else self._good(record)
        self._line += len(lines)

    def _reason(self, record: bytes) -> str | None:
        """Why COPY could not take the record."""
        if self._one_line and (self._quote in record or self._delimiter in record):
            return "holds a control character"
        if self._one_line and _is_deep(record):
            return f"is nested more than {_DEEPEST} levels deep"
        if b"\0" in record:
            return "holds a NUL byte"
        if not _is_utf8(record):
            return "is not valid UTF-8"
        bare = self._quotes.without(record)
        if b"\r" in bare:
            return "holds a carriage return outside of quotes"
        found = bare.count(self._delimiter) + 1
        return None if found == self._fields else f"has {found} fields instead of {self._fields}"

    def _good(self, record: bytes) -> bytes:
        self.rows += 1
        return b"%d%b%d%b%b%b\n" % (
            self.rows,
            self._delimiter,
            self._line,
            self._delimiter,
            self._delimiter,
            record,
        )

    def _bad(self, record: bytes, reason: str) -> bytes:
        self.rows += 1
        shown = record.decode("utf-8", "backslashreplace").replace("\0", "\\x00").encode()
        fields = [b"%d" % self.rows, b"%d" % self._line, self._quote_field(reason.encode())]
        fields += [self._quote_field(shown), *[b""] * (self._fields - 1)]
        return self._delimiter.join(fields) + b"\n"

    def _quote_field(self, text: bytes) -> bytes:
        if self._escape != self._quote:
            text = text.replace(self._escape, self._escape * 2)
        return self._quote + text.replace(self._quote, self._escape + self._quote) + self._quote


def _is_deep(line: bytes) -> bool:
    """Whether a line of JSON has more levels than are allowed; what is no JSON may seem so, too."""
    if line.count(b"[") + line.count(b"{") <= _DEEPEST:
        return False
    depth = 0
    for found in _BRACKETS.finditer(line):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(found[0], 0)
        if depth > _DEEPEST:
            return True
    return False


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
