"""What keeps data from being loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
from psycopg2 import errors

from orrery.config.errors import OrreryError

# What PostgreSQL says of data, unlike of a connection, a lock or a disk: to try again is of no use.
_REFUSALS = (
    psycopg2.DataError,
    psycopg2.IntegrityError,
    psycopg2.ProgrammingError,
    psycopg2.NotSupportedError,
    errors.ProgramLimitExceeded,
    errors.StatementTooComplex,
    errors.TooManyColumns,
)


class IngestError(OrreryError):
    """Data cannot be loaded; nothing of the file in question has been."""


class FileError(IngestError):
    """One file cannot be loaded as a whole. Its text names the file, what is wrong and what to do."""

    def __init__(self, file: str, what: str, fix: str, line: int | None = None) -> None:
        place = f"{file}:{line}" if line else file
        super().__init__(f"{place}: {what}\n  {fix}")
        self.what = what


@contextmanager
def refusals(file: str) -> Iterator[None]:
    """Make a FileError of what PostgreSQL says of the data of a file."""
    try:
        yield
    except _REFUSALS as error:
        raise FileError(
            file,
            f"PostgreSQL does not take it: {(error.diag.message_primary or str(error)).strip()}",
            "Correct the file or the source; nothing of the file is loaded.",
        ) from error
