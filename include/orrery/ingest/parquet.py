"""Parquet files as the text of a COPY.

A few bytes of a file may stand for any number of values. What is in memory at once is bounded by what the
values are long, not by their number: texts stay in their dictionaries until they are written out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import SEEK_END, BytesIO
from typing import IO, Any

import pyarrow as pa
from pyarrow import compute, csv, parquet

from orrery.ingest.arrow_text import OUT_OF_RANGE, WIDTH, as_text, has_times, size_of
from orrery.ingest.errors import FileError
from orrery.ingest.limits import LONGEST, Limits
from orrery.ingest.records import Dialect
from orrery.ingest.text import EXPANSION_FROM, MOST_EXPANSION

DIALECT = Dialect(",", '"', '"')
# Rows that are read at once, and bytes of them, as far as the file tells; bytes that become text at once.
_BATCH, _BATCH_BYTES, _PIECE_BYTES = 10_000, 16 << 20, 4 << 20
# Bytes of a value in a dictionary, of which the rows that are read at once may all have the same.
_LONG_VALUE = 4096
# The encoding of texts by what they share with the one before, and bytes that are read to know their lengths.
_DELTA, _DELTA_BYTES = "DELTA_BYTE_ARRAY", 16 << 20
# Of the times that Spark writes in 96 bits: in nanoseconds, those after 2262 would come out as others.
_UNIT = "us"
# A row group is read as a whole up to this size, which is fastest, and else through small buffers.
_LARGE_GROUP = 512 << 20


class ParquetRecords:
    """The rows of a Parquet file, like orrery.ingest.records.Records but without lines.

    Everything raises FileError for a file that is damaged, or whose rows or columns are too large.
    """

    def __init__(self, name: str, stream: IO[bytes], limits: Limits) -> None:
        self.rows = 0  # so far
        self._name = name
        with self._readable():
            found = parquet.ParquetFile(stream, coerce_int96_timestamp_unit=_UNIT)
            self.columns: list[str] = found.schema_arrow.names
            limits.check_columns(name, self.columns)
            if not self.columns:
                raise FileError(name, "has no columns", "Land a file with at least one.")
            self._check_expansion(found.metadata, stream.seek(0, SEEK_END))
            self._batch = self._rows_at_once(stream, found.metadata, found.schema)
            self._source = parquet.ParquetFile(
                stream,
                metadata=found.metadata,
                read_dictionary=_dictionaries(stream, found.metadata, found.schema),
                buffer_size=_buffer_size(found.metadata),
                coerce_int96_timestamp_unit=_UNIT,
            )

    def copy_blocks(self) -> Iterator[bytes]:
        """The rows in blocks."""
        for texts, reasons in self._texts():
            numbers = pa.array(range(self.rows + 1, self.rows + 1 + len(reasons)))
            arrays = [numbers, pa.nulls(len(reasons), pa.string()), reasons, *texts]
            names = [str(number) for number in range(len(arrays))]
            out = BytesIO()
            options = csv.WriteOptions(include_header=False, quoting_style="all_valid")
            csv.write_csv(pa.table(dict(zip(names, arrays, strict=True))), out, options)
            self.rows += len(reasons)
            yield out.getvalue()

    def values(self) -> Iterator[tuple[str | None, tuple[str | None, ...]]]:
        """The rows, each with why it is none (or None) and its texts."""
        for texts, reasons in self._texts():
            rows = zip(*(text.to_pylist() for text in texts), strict=True)
            yield from zip(reasons.to_pylist(), rows, strict=True)

    def _texts(self) -> Iterator[tuple[list[Any], Any]]:
        """The columns as arrays of text, in pieces, each with an array of what is wrong with its rows."""
        done = 0
        with self._readable():
            for batch in self._source.iter_batches(batch_size=self._batch):
                for piece in self._pieces(batch, done):
                    texts = [as_text(column) for column in piece.columns]
                    yield _reject(self.columns, piece.columns, texts)
                done += len(batch)

    def _pieces(self, batch: Any, before: int) -> Iterator[Any]:
        """A batch in parts of bounded size; `before` is the number of rows before it."""
        size = sum(size_of(column) for column in batch.columns)
        if size <= _PIECE_BYTES or (len(batch) == 1 and size <= LONGEST):
            yield batch
        elif len(batch) == 1:
            raise self._too_long(f"row {before + 1:,} is")
        else:
            half = len(batch) // 2
            yield from self._pieces(batch.slice(0, half), before)
            yield from self._pieces(batch.slice(half), before + half)

    def _rows_at_once(self, stream: IO[bytes], metadata: Any, schema: Any) -> int:
        """How many rows to read at once."""
        deltas = sum(_longest_deltas(stream, metadata, schema))
        nested = [column for column in range(len(schema)) if schema.column(column).max_repetition_level]
        widest = 1.0
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            # Values that are all the same take no room there, but do so here.
            values = WIDTH * sum(group.column(column).num_values for column in nested)
            widest = max(widest, (group.total_byte_size + values) / max(group.num_rows, 1), deltas)
        if widest > LONGEST:
            raise self._too_long("its rows are")
        return max(1, min(_BATCH, int(_BATCH_BYTES / widest)))

    def _check_expansion(self, metadata: Any, size: int) -> None:
        groups = range(metadata.num_row_groups)
        expanded = sum(metadata.row_group(number).total_byte_size for number in groups)
        if expanded > EXPANSION_FROM and expanded > MOST_EXPANSION * size:
            raise FileError(
                self._name, f"expands to more than {MOST_EXPANSION} times its size", "Land it uncompressed."
            )

    def _too_long(self, what: str) -> FileError:
        return FileError(
            self._name,
            f"{what} longer than {LONGEST >> 20} MB",
            "Keep large values in files of their own, and land where they are.",
        )

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except pa.ArrowNotImplementedError as error:
            fix = "Write it with other types, or another encoding or compression."
            raise FileError(self._name, f"cannot be read: {error}", fix) from None
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise FileError(self._name, f"is no valid Parquet file: {error}", "Land it again.") from None


def _dictionaries(stream: IO[bytes], metadata: Any, schema: Any) -> list[str]:
    """The columns of text that have to stay in their dictionaries, by their paths.

    To look up the values takes less time where they are short, as most are.
    """
    texts = [column for column in range(len(schema)) if schema.column(column).physical_type == "BYTE_ARRAY"]
    # A row of a list may have millions of them.
    nested = {schema.column(column).path for column in texts if schema.column(column).max_repetition_level}
    found = set[str]()
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        chunks = [group.column(column) for column in texts]
        # A value is not longer than what has it in its dictionary.
        large = {
            chunk.path_in_schema
            for chunk in chunks
            if chunk.has_dictionary_page
            and (chunk.path_in_schema in nested or chunk.total_uncompressed_size > _LONG_VALUE)
        }
        if large := large - found:
            source = parquet.ParquetFile(
                stream, metadata=metadata, read_dictionary=sorted(large), buffer_size=1 << 16
            )
            batches = source.iter_batches(1, row_groups=[number], columns=sorted(large))
            first = next(batches, pa.record_batch({}))
            found |= {path for path in large if path in nested or _longest(first, path) > _LONG_VALUE}
    return sorted(found)


def _longest_deltas(stream: IO[bytes], metadata: Any, schema: Any) -> Iterator[int]:
    """The bytes of the longest row of each column whose texts are told by their differences.

    The file tells nothing of that length, but that no value is longer than its part of the file.
    """
    for column in range(len(schema)):
        path, longest = schema.column(column).path, 0
        for number in range(metadata.num_row_groups):
            chunk = metadata.row_group(number).column(column)
            if _DELTA not in chunk.encodings:
                continue
            rows = max(1, _DELTA_BYTES // max(chunk.total_uncompressed_size, 1))
            source = parquet.ParquetFile(stream, metadata=metadata, buffer_size=1 << 16)
            for batch in source.iter_batches(rows, row_groups=[number], columns=[path]):
                longest = max(longest, _longest_row(batch.column(0)))
        yield longest


def _longest_row(values: Any) -> int:
    if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
        return int(compute.max(compute.binary_length(values)).as_py() or 0)
    return max((size_of(values.slice(row, 1)) for row in range(len(values))), default=0)


def _longest(first: Any, path: str) -> float:
    """The length of the longest value in a dictionary; unlimited where the first row does not tell."""
    column = first.column(path) if path in first.schema.names else None
    if column is None or not pa.types.is_dictionary(column.type) or not len(column.dictionary):
        return float("inf")
    return float(compute.max(compute.binary_length(column.dictionary)).as_py() or 0)


def _buffer_size(metadata: Any) -> int:
    """How many bytes of a column to read at once; 0 for all of a row group."""
    groups = range(metadata.num_row_groups)
    if max((metadata.row_group(number).total_byte_size for number in groups), default=0) <= _LARGE_GROUP:
        return 0
    return max(_LARGE_GROUP // max(int(metadata.num_columns), 1) // 4, 1 << 20)


def _reject(names: Sequence[str], columns: Sequence[Any], texts: list[Any]) -> tuple[list[Any], Any]:
    """Texts with an array of reasons; a bad row shows all that it holds in its first text."""
    reasons: dict[int, str] = {}
    for name, column, text in zip(names, columns, texts, strict=True):
        if has_times(column.type):
            bad = compute.match_substring(text, OUT_OF_RANGE)
            for row in compute.indices_nonzero(bad.fill_null(False)).to_pylist():
                reasons.setdefault(row, f"{name}: a date or a time is out of range")
    if not reasons:
        return texts, pa.nulls(len(texts[0]), pa.string())
    first = texts[0].to_pylist()
    for row in reasons:
        first[row] = json.dumps({name: text[row].as_py() for name, text in zip(names, texts, strict=True)})
    told = [reasons.get(row) for row in range(len(first))]
    return [pa.array(first, pa.string()), *texts[1:]], pa.array(told, pa.string())
