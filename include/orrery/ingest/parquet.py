"""Parquet files as the text of a COPY."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import IO, Any

import pyarrow as pa
from pyarrow import csv, parquet

from orrery.ingest.errors import FileError
from orrery.ingest.records import Dialect

DIALECT = Dialect(",", '"', '"')
# Rows of a file that are in memory at once.
_BATCH = 10_000


class ParquetRecords:
    """The rows of a Parquet file, like orrery.ingest.records.Records but without lines and reasons.

    Everything raises FileError for a file that is damaged.
    """

    def __init__(self, name: str, stream: IO[bytes]) -> None:
        self.rows = 0  # so far
        self._name = name
        with self._readable():
            self._source = parquet.ParquetFile(stream)
            self.columns: list[str] = self._source.schema_arrow.names

    def copy_blocks(self) -> Iterator[bytes]:
        """The rows in blocks."""
        with self._readable():
            for batch in self._source.iter_batches(batch_size=_BATCH):
                numbers = pa.array(range(self.rows + 1, self.rows + 1 + len(batch)))
                empty = pa.nulls(len(batch), pa.string())
                arrays = [numbers, empty, empty, *(_as_text(column) for column in batch.columns)]
                names = [str(number) for number in range(len(arrays))]
                out = BytesIO()
                options = csv.WriteOptions(include_header=False, quoting_style="all_valid")
                csv.write_csv(pa.table(dict(zip(names, arrays, strict=True))), out, options)
                self.rows += len(batch)
                yield out.getvalue()

    def values(self) -> Iterator[tuple[str | None, ...]]:
        """The rows, each as texts."""
        with self._readable():
            for batch in self._source.iter_batches(batch_size=_BATCH):
                yield from zip(*(_as_text(column).to_pylist() for column in batch.columns), strict=True)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise FileError(self._name, f"is no valid Parquet file: {error}", "Land it again.") from None


def _as_text(column: Any) -> Any:
    """An Arrow array as strings that PostgreSQL reads back."""
    kind = column.type
    if pa.types.is_nested(kind):
        return pa.array(
            [None if value is None else json.dumps(value, default=str) for value in column.to_pylist()],
            pa.string(),
        )
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.array([None if value is None else "\\x" + value.hex() for value in column.to_pylist()])
    return column.cast(pa.string())
