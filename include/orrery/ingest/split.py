"""Which files are cut into how many chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from math import ceil
from typing import Any

from orrery.config.ingest import Files
from orrery.ingest.chunks import Chunk
from orrery.ingest.cut import can_cut, cut
from orrery.ingest.errors import FileError
from orrery.ingest.landing import LandingFile, LandingZone

# A run has no more chunks: Airflow maps a task at most 1,024 times, and each costs it a second.
MOST_CHUNKS = 256


def split(zone: LandingZone, files: list[LandingFile], spec: Files) -> Iterator[Chunk]:
    """The chunks of those of `files` that are larger than the block's `chunk_size`, in their order.

    What cannot be cut is one chunk. Where there would be more than MOST_CHUNKS they become larger, and
    further files are left out. So is a file that has changed: who loads it tells of that.
    """
    assert spec.chunk_size is not None
    size = spec.chunk_size
    big = [file for file in files if file.size > size][:MOST_CHUNKS]
    while sum(_count(file, spec, size) for file in big) > MOST_CHUNKS:
        size *= 2
    for file in big:
        count = _count(file, spec, size)
        try:
            yield from _cut(zone, file, spec, count) if count > 1 else [_whole(file)]
        except FileError:
            continue


def as_values(chunks: Iterator[Chunk]) -> list[dict[str, Any]]:
    """Chunks as an XCom has them."""
    return [asdict(chunk) for chunk in chunks]


def _count(file: LandingFile, spec: Files, size: int) -> int:
    return ceil(file.size / size) if can_cut(file.name, spec) else 1


def _whole(file: LandingFile) -> Chunk:
    return Chunk(file.name, file.version, 1, 1, 0, file.size, 1, None)


def _cut(zone: LandingZone, file: LandingFile, spec: Files, count: int) -> Iterator[Chunk]:
    starts, content_hash = cut(zone, file, spec, ceil(file.size / count))
    ends = [*(offset for offset, _ in starts[1:]), file.size]
    for number, ((start, line), end) in enumerate(zip(starts, ends, strict=True), start=1):
        yield Chunk(file.name, file.version, number, len(starts), start, end, line, content_hash)
