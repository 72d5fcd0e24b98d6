"""The BigQuery that files are loaded into: its connection, queries and load jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import IO, Any

from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.cloud import bigquery

from orrery.ingest.connections import require
from orrery.ingest.errors import IngestError, SetupError
from orrery.ingest.gcs import credentials

CONNECTION = "bigquery_loader"
_EXAMPLE = "google-cloud-platform://?project=my-project&key_path=/path/to/key.json"
_SCOPES = ("https://www.googleapis.com/auth/bigquery", "https://www.googleapis.com/auth/cloud-platform")
# Part of what BigQuery says to a transaction that lost against another one.
CONFLICT = "concurrent update"
_LABELS = {"app": "orrery", "kind": "ingest"}


class ConflictError(Exception):
    """Somebody else has changed the same tables in the meantime; another try may do."""


class RefusedError(Exception):
    """BigQuery says that a statement, or a value in it, cannot be."""


class BigQuery:
    """A project in BigQuery, by its client.

    :param job_labels: the labels of its jobs, beside those that say whose they are
    """

    def __init__(self, client: Any, job_labels: dict[str, str] | None = None) -> None:
        self._client, self._labels = client, _LABELS | (job_labels or {})

    def create_dataset(self, name: str) -> None:
        """Make a dataset where there is none."""
        with _told():
            self._client.create_dataset(name, exists_ok=True)

    def columns(self, dataset: str, table: str) -> dict[str, str]:
        """The columns of a table with their types; none when there is no such table."""
        with _told():
            try:
                found = self._client.get_table(f"{self._client.project}.{dataset}.{table}")
            except exceptions.NotFound:
                return {}
        return {field.name: _type(field) for field in found.schema}

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query, or those of the last one of a script."""
        config = bigquery.QueryJobConfig(labels=self._labels)
        with _told():
            return [tuple(row.values()) for row in self._client.query(sql, job_config=config).result()]

    def load(self, parquet: IO[bytes], dataset: str, table: str, columns: dict[str, str]) -> None:
        """Make a table of a Parquet file; `columns` are all that it has, with their types."""
        config = bigquery.LoadJobConfig(
            source_format="PARQUET",
            schema=[bigquery.SchemaField(column, kind) for column, kind in columns.items()],
            write_disposition="WRITE_TRUNCATE",
            labels=self._labels,
        )
        with _told():
            self._client.load_table_from_file(
                parquet, f"{self._client.project}.{dataset}.{table}", rewind=True, job_config=config
            ).result()

    def drop(self, dataset: str, table: str) -> None:
        """Remove a table, if it is there."""
        with _told():
            self._client.delete_table(f"{self._client.project}.{dataset}.{table}", not_found_ok=True)


def connect(job_labels: dict[str, str] | None = None) -> BigQuery:
    """BigQuery by the connection of Airflow; raises SetupError when there is none, or no key that fits it."""
    extra = json.loads(require(CONNECTION, _EXAMPLE).extra or "{}")
    endpoint = extra.get("bigquery.endpoint")
    try:
        who, project = credentials(extra, _SCOPES)
    except DefaultCredentialsError:
        raise SetupError(
            f"The connection {CONNECTION!r} has no credentials.\n  Give it a key_path."
        ) from None
    except (OSError, ValueError) as error:
        # What is wrong with it would show some of it.
        raise SetupError(
            f"The connection {CONNECTION!r} has no key that can be read ({type(error).__name__}).\n"
            "  Correct its key_path or keyfile_dict."
        ) from None
    return BigQuery(
        bigquery.Client(
            extra.get("project") or project,
            who,
            location=extra.get("location"),
            client_options={"api_endpoint": endpoint} if endpoint else None,
        ),
        job_labels,
    )


def name(*parts: str) -> str:
    """A name in SQL."""
    return ".".join(f"`{part}`" for part in parts)


def literal(value: str | int | datetime | None) -> str:
    """A value in SQL."""
    if value is None:
        return "null"
    if isinstance(value, datetime):
        return f"timestamp '{value.isoformat()}'"
    # JSON's escapes are among those of BigQuery.
    return str(value) if isinstance(value, int) else json.dumps(value, ensure_ascii=False)


def script(statements: Sequence[str]) -> str:
    """Statements as one script."""
    return "".join(f"{statement};\n" for statement in statements)


def _type(field: Any) -> str:
    """The type of a column as SQL has it."""
    names = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}
    kind = names.get(field.field_type, field.field_type)
    size = [str(number) for number in (field.precision, field.scale) if number is not None]
    return f"{kind}({', '.join(size)})" if size else kind


@contextmanager
def _told() -> Iterator[None]:
    """Turn the errors of the client into ours."""
    try:
        yield
    except exceptions.BadRequest as error:
        text = error.errors[0]["message"] if error.errors else str(error)
        raise (ConflictError if CONFLICT in text else RefusedError)(text) from error
    except (exceptions.Forbidden, exceptions.Unauthorized) as error:
        raise SetupError(
            f"BigQuery refuses the connection {CONNECTION!r}: {error.message}\n  Grant it."
        ) from error
    except exceptions.NotFound as error:
        raise RefusedError(error.message) from error
    except (exceptions.GoogleAPIError, GoogleAuthError) as error:
        raise IngestError(f"BigQuery does not answer: {error}\n  Try again.") from error
