"""The BigQuery of dbt's target: its client, with queries, load jobs and errors as loads need them.

Files are loaded with the settings that dbt has in profiles.yml, or by the connection that takes their place:
there is one place for them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import IO, Any

import google.auth
from airflow.sdk.log import mask_secret
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.auth.impersonated_credentials import Credentials as Impersonated
from google.cloud import bigquery
from google.cloud.bigquery.retry import DEFAULT_RETRY
from google.oauth2.credentials import Credentials as Token
from google.oauth2.service_account import Credentials as ServiceAccount

from orrery.config.project import Project
from orrery.ingest.errors import IngestError, SetupError
from orrery.manifest.profile import read_output, what_is_set

log = logging.getLogger(__name__)

_SCOPES = ("https://www.googleapis.com/auth/bigquery", "https://www.googleapis.com/auth/cloud-platform")
# What stays of a load that was killed is gone after this.
_KEPT = timedelta(days=1)
# The reason of a statement that cannot be: what is wrong with it, or what other transactions did meanwhile.
_INVALID = "invalidQuery"
# Why a 403 may be none the next time.
_BUSY = ("rateLimitExceeded", "quotaExceeded")
_OTHER_NAMES = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL"}


class RefusedError(Exception):
    """BigQuery says that a statement, or a value in it, cannot be."""


class ConflictError(RefusedError):
    """A transaction that BigQuery has ended: others may have changed the same tables meanwhile.

    BigQuery has one reason for that and for a statement that cannot be. What each statement does with the
    values of a file is tried before; so what a transaction is refused for is most likely another one.
    """


class BigQuery:
    """A project, by a client that may belong to another one, which then pays for the jobs.

    :param project: that of the tables
    :param labels: those of all jobs
    :param options: of all queries, such as `maximum_bytes_billed`; load jobs have the timeout, too
    """

    def __init__(
        self,
        client: Any,
        project: str,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._client, self._project = client, project
        self._labels, self._options = dict(labels or {}), dict(options or {})

    def sql_name(self, dataset: str, table: str) -> str:
        """The name of a table in SQL."""
        return ".".join(f"`{part}`" for part in (self._project, dataset, table))

    def create_dataset(self, dataset: str) -> None:
        """Make a dataset where there is none, which needs a right that writing into one does not."""
        with _told():
            try:
                self._client.get_dataset(f"{self._project}.{dataset}")
            except exceptions.NotFound:
                self._client.create_dataset(f"{self._project}.{dataset}", exists_ok=True)

    def columns(self, dataset: str, table: str) -> dict[str, str]:
        """The columns of a table with their types; none when there is no such table."""
        with _told():
            try:
                found = self._client.get_table(f"{self._project}.{dataset}.{table}")
            except exceptions.NotFound:
                return {}
        return {field.name: _type(field) for field in found.schema}

    def run_transaction(self, statements: Sequence[str], last: str) -> list[tuple[Any, ...]]:
        """Run statements together or not at all, and return the rows of a last query behind them.

        Raises ConflictError when BigQuery ends the transaction.
        """
        script = ["begin transaction", *statements, "commit transaction", last]
        try:
            return self.run(";\n".join(script))
        except RefusedError as error:
            cause: Any = error.__cause__
            if cause.errors and cause.errors[0].get("reason") == _INVALID:
                raise ConflictError(str(error)) from cause
            raise

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query, or those of the last one of a script."""
        config = bigquery.QueryJobConfig(labels=self._labels, **self._options)
        with _told():
            return [tuple(row.values()) for row in self._client.query(sql, job_config=config).result()]

    def load(self, parquet: IO[bytes], dataset: str, table: str, columns: Mapping[str, str]) -> None:
        """Make a table of a Parquet file, for a day; `columns` are all that it has, with their types."""
        name = f"{self._project}.{dataset}.{table}"
        made = bigquery.Table(name, [bigquery.SchemaField(*column) for column in columns.items()])
        made.expires = datetime.now(UTC) + _KEPT
        config = bigquery.LoadJobConfig(
            source_format="PARQUET",
            write_disposition="WRITE_EMPTY",
            labels=self._labels,
            job_timeout_ms=self._options.get("job_timeout_ms"),
        )
        with _told():
            self._client.create_table(made)
            self._client.load_table_from_file(parquet, name, rewind=True, job_config=config).result()

    def discard(self, dataset: str, tables: Iterable[str]) -> None:
        """Remove tables that expire anyway: one that cannot be removed is told of, and no error."""
        retry: Any = DEFAULT_RETRY
        for table in tables:
            name = f"{self._project}.{dataset}.{table}"
            try:
                self._client.delete_table(name, retry=retry, not_found_ok=True)
            except Exception as error:
                log.warning("%s stays until it expires: %s", name, error)
                # Where BigQuery has not answered for minutes, there may be hundreds of others.
                retry = None


def connect(labels: Mapping[str, str]) -> BigQuery:
    """BigQuery as dbt's target has it; raises SetupError when that does not say who asks."""
    found = what_is_set(read_output(Project.find()))
    project = found["project"]
    options: dict[str, Any] = {"priority": str(found.get("priority", "interactive")).upper()}
    if most := found.get("maximum_bytes_billed"):
        options["maximum_bytes_billed"] = int(most)
    if seconds := found.get("job_execution_timeout_seconds"):
        options["job_timeout_ms"] = int(seconds) * 1000
    endpoint = found.get("api_endpoint")
    client = bigquery.Client(
        found.get("execution_project", project),
        _credentials(found),
        location=found.get("location"),
        client_options={"api_endpoint": endpoint} if endpoint else None,
    )
    return BigQuery(client, project, labels, options)


def _credentials(target: Mapping[str, Any]) -> Any:
    """Who asks, by the fields of dbt's target."""
    try:
        found = _own_credentials(target)
    except (OSError, ValueError) as error:
        # What is wrong with it would show some of it.
        what = f"The key for BigQuery cannot be read ({type(error).__name__})"
        fix = "Correct ORRERY_BIGQUERY_KEYFILE, or the connection of ORRERY_WAREHOUSE_CONNECTION."
        raise SetupError(f"{what}.\n  {fix}") from None
    except DefaultCredentialsError:
        fix = "Set ORRERY_BIGQUERY_KEYFILE, or GOOGLE_APPLICATION_CREDENTIALS."
        raise SetupError(f"There are no credentials for BigQuery.\n  {fix}") from None
    if account := target.get("impersonate_service_account"):
        return Impersonated(found, account, list(_SCOPES))
    return found


def _own_credentials(target: Mapping[str, Any]) -> Any:
    method = str(target.get("method", "")).strip()
    if method == "oauth":
        return google.auth.default(scopes=_SCOPES)[0]
    if method == "service-account":
        return ServiceAccount.from_service_account_file(target.get("keyfile", ""), scopes=_SCOPES)
    if method == "service-account-json":
        key = dict(target.get("keyfile_json", {}))
        return ServiceAccount.from_service_account_info(key, scopes=_SCOPES)
    if method == "oauth-secrets":
        names = ("token", "refresh_token", "client_id", "client_secret", "token_uri")
        fields = {name: target.get(name) for name in names}
        for name in ("token", "refresh_token", "client_secret"):
            mask_secret(fields[name])
        return Token(**fields, scopes=_SCOPES)
    raise SetupError(
        f"Files cannot be loaded with the method {method!r} of dbt's target.\n"
        "  Use oauth, service-account, service-account-json or oauth-secrets."
    )


def _type(field: Any) -> str:
    """The type of a column as SQL has it."""
    kind = _OTHER_NAMES.get(field.field_type, field.field_type)
    size = [str(number) for number in (field.precision, field.scale) if number is not None]
    return f"{kind}({', '.join(size)})" if size else str(kind)


@contextmanager
def _told() -> Iterator[None]:
    """Turn the errors of the client, which has tried again what may help, into ours."""
    try:
        yield
    except (exceptions.BadRequest, exceptions.NotFound) as error:
        text = error.errors[0]["message"] if error.errors else error.message
        raise RefusedError(text) from error
    except (exceptions.Forbidden, exceptions.Unauthorized) as error:
        if error.errors and error.errors[0].get("reason") in _BUSY:
            raise IngestError(f"BigQuery is busy: {error.message}\n  Try again.") from error
        raise SetupError(
            f"BigQuery refuses: {error.message}\n  Grant what docs/bigquery.md lists below Rights."
        ) from error
    except (exceptions.GoogleAPIError, GoogleAuthError) as error:
        raise IngestError(f"BigQuery does not answer: {error}\n  Try again.") from error
