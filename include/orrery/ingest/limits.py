"""What a warehouse takes, and a file may therefore have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orrery.ingest.errors import FileError

# A record longer than this is taken for damage, in bytes.
LONGEST = 16 << 20


@dataclass(frozen=True)
class Limits:
    """The length of names of columns and tables, in a `unit`, and how many columns one file may have."""

    warehouse: str
    name: int
    table: int
    unit: str
    columns: int

    def is_longer(self, name: str, most: int) -> bool:
        """Whether a name is longer than that."""
        return len(name if self.unit == "characters" else name.encode()) > most

    def check_columns(self, file: str, names: Sequence[str | None], line: int | None = None) -> None:
        """Raise FileError for more columns than a file may have, before anything is done with each."""
        if len(names) > self.columns:
            raise FileError(
                file,
                f"has more than {self.columns:,} columns, and {self.warehouse} takes no more",
                "Land it in several files, or put what has many names into one JSON value.",
                line,
            )
