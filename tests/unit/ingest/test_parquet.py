"""Parquet in bounded memory: a few bytes of a file may stand for any number of values."""

from __future__ import annotations

import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from orrery.ingest.arrow_text import size_of
from orrery.ingest.errors import FileError
from orrery.ingest.limits import LONGEST
from orrery.ingest.parquet import ParquetRecords
from orrery.ingest.target import POSTGRESQL


def lists(values: Any, of: int) -> Any:
    """An array of lists of so many values each."""
    return pa.ListArray.from_arrays(pa.array(range(0, len(values) + 1, of), pa.int32()), values)


# The same text or bytes of 100 kB, 3,000 times.
TEXTS, BYTES = (
    pa.DictionaryArray.from_arrays(pa.nulls(3000, pa.int32()).fill_null(0), [value])
    for value in ("x" * 100_000, b"\0" * 50_000)
)
# Each is some kilobytes that stand for 240 MB or more.
SMALL: dict[str, Any] = {
    "texts": TEXTS,
    "texts in lists": lists(TEXTS, 100),
    "texts in structs": pa.StructArray.from_arrays([TEXTS], ["a"]),
    "bytes": BYTES,
    "numbers in lists": lists(pa.repeat(7, 30_000_000), 10_000),
    "nulls in lists": lists(pa.nulls(30_000_000, pa.int64()), 10_000),
    "short texts in lists": lists(pa.repeat("x" * 1_500, 200_000).dictionary_encode(), 10_000),
    "texts by their differences": pa.array(["x" * 100_000] * 2_500),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "short texts in lists": {"data_page_size": 1 << 30, "write_statistics": False},
    "texts by their differences": {
        "use_dictionary": False,
        "column_encoding": {"v": "DELTA_BYTE_ARRAY"},
        "compression": "zstd",
    },
}
READ = """
import sys
from pathlib import Path
from orrery.ingest.parquet import ParquetRecords
from orrery.ingest.target import POSTGRESQL


def most():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1000


before = most()
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        total = sum(map(len, ParquetRecords("a.parquet", file, POSTGRESQL).copy_blocks()))
    print(most() - before, total / 1e6, path)
"""


def test_memory_does_not_grow_with_what_a_file_expands_to(tmp_path: Path) -> None:
    paths = []
    for name, values in SMALL.items():
        paths.append(tmp_path / f"{name}.parquet")
        parquet.write_table(pa.table({"v": values}), paths[-1], store_schema=False, **OPTIONS.get(name, {}))
        assert paths[-1].stat().st_size < 150_000, name
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", READ, *map(str, paths)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    print(done.stdout)
    for line in done.stdout.splitlines():
        grown, total, name = line.split(maxsplit=2)
        assert float(total) > 75, name
        # Some 130 MB for one file alone, however many values: Arrow keeps what it has taken.
        assert float(grown) < 220, line


def records(compression: str = "snappy", **columns: Any) -> ParquetRecords:
    out = BytesIO()
    parquet.write_table(pa.table(columns), out, compression=compression)
    out.seek(0)
    return ParquetRecords("a.parquet", out, POSTGRESQL)


def test_a_row_may_be_as_long_as_in_other_formats() -> None:
    texts = [None, "a" * (LONGEST - 100), "b"]
    assert [values for _, values in records(v=texts).values()] == [(text,) for text in texts]
    for columns in ({"v": ["a", "b" * LONGEST]}, {"v": [["a"], ["b" * (LONGEST // 100)] * 100]}):
        with pytest.raises(
            FileError, match=r"^a.parquet: row 2 is longer than 16 MB\n  Keep large values in f"
        ):
            list(records(**columns).values())
    with pytest.raises(FileError, match=r"^a.parquet: its rows are longer than 16 MB"):
        records(v=pa.array([[7] * (LONGEST // 4)]))


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["a", None, "bcd"] * 10),
        pa.array(["a", None, "bcd"] * 10).dictionary_encode(),
        pa.array([[1, 2], None, []] * 10),
        pa.array([{"a": "x"}, None] * 10),
        pa.array([[("k", "v" * 100)], None, []] * 10, pa.map_(pa.string(), pa.string())),
        pa.array([[1, 2], None] * 10, pa.list_(pa.int32(), 2)),
        pa.nulls(30),
    ],
    ids=lambda array: str(array.type),
)
def test_the_size_of_a_part_is_a_part_of_the_size(array: Any) -> None:
    assert sum(size_of(array.slice(number, 1)) for number in range(len(array))) >= size_of(array) > 0
    parts = size_of(array.slice(0, 10)) + size_of(array.slice(10))
    assert 0 <= parts - size_of(array) <= 16
