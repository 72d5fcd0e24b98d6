"""What keeps data from being loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from orrery.config.errors import OrreryError
from orrery.execute.results import RESULT_KEY, refusal

if TYPE_CHECKING:
    from airflow.sdk import Context


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


@contextmanager
def explained(context: Context) -> Iterator[None]:
    """End a task with errors as users see them: in its log, and in its XCom for the summary of the run."""
    try:
        yield
    except OrreryError as error:
        context["ti"].xcom_push(key=RESULT_KEY, value=refusal(error))
        final = isinstance(error, SetupError)
        raise (AirflowFailException if final else AirflowException)(str(error)) from error
