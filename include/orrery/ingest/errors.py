"""What keeps data from being loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import redact
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from orrery.config.errors import OrreryError
from orrery.execute.results import RESULT_KEY, outcome

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


class ChangedError(FileError):
    """A file is not the one any more that was found under its name, or it is gone."""


# What an answer may repeat of a request, and what stands in URIs.
_CREDENTIALS = re.compile(
    r"(?i)(?<=\bbearer )[\w.~+/=-]{16,}|(?<=\bbasic )[\w+/=]{16,}|(?<=://)[^\s/@]*:[^\s/@]*@"
)


def without_secrets(text: str) -> str:
    """A text for logs and XComs, of which Airflow masks only the former, and only what it knows.

    Services repeat what they were sent, and clients where they have sent it to.
    """
    return _CREDENTIALS.sub(lambda found: "***@" if found[0].endswith("@") else "***", str(redact(text)))


@contextmanager
def explained(context: Context) -> Iterator[None]:
    """End a task with errors as users see them: in its log, and in its XCom for the summary of the run."""
    try:
        yield
    except OrreryError as error:
        told = without_secrets(str(error))
        context["ti"].xcom_push(key=RESULT_KEY, value=outcome(told, status="error"))
        final = isinstance(error, SetupError)
        # The log shows what an error comes from.
        cause = error if told == str(error) else None
        raise (AirflowFailException if final else AirflowException)(told) from cause
    except AirflowException:
        raise
    except Exception as error:
        # Such as a database that does not answer: another try may help.
        context["ti"].xcom_push(key=RESULT_KEY, value=outcome(without_secrets(str(error)), status="error"))
        raise
