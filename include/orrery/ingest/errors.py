"""What keeps data from being loaded."""

from __future__ import annotations

from orrery.config.errors import OrreryError


class IngestError(OrreryError):
    """Data cannot be loaded; nothing of the file in question has been."""


class SetupError(IngestError):
    """Something has to be set up first: a connection, a bucket or a right is missing; no retry mends it."""


class FileError(IngestError):
    """One file cannot be loaded as a whole. Its text names the file, what is wrong and what to do."""

    def __init__(self, file: str, what: str, fix: str, line: int | None = None) -> None:
        place = f"{file}:{line}" if line else file
        super().__init__(f"{place}: {what}\n  {fix}")
        self.what = what
