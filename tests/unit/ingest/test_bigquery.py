"""How files reach BigQuery: by dbt's target, with labels, and with errors that show no secret."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.api_core import exceptions
from google.cloud.bigquery import Client

from orrery.config.ingest import Files
from orrery.execute import profile
from orrery.ingest import bigquery, loaders
from orrery.ingest.bigquery import BigQuery, ConflictError, RefusedError
from orrery.ingest.bigquery_load import BigQueryLoader
from orrery.ingest.bigquery_target import bigquery_type, literal, name
from orrery.ingest.errors import IngestError, SetupError
from orrery.ingest.landing import LandingZone
from orrery.ingest.load import Loader
from orrery.ingest.target import Target

ROOT = Path(__file__).parents[3]
SECRET = "ya29.very-secret-token"
KEY_VARIABLE = "DBT_ENV_SECRET_COSMOS_CONN_GOOGLE_CLOUD_PLATFORM_PRIVATE_KEY"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What clients are made with, on the project of this repository and with its profile."""
    calls: list[Any] = []

    class Recorded(Client):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            calls.append((arguments, options))

    monkeypatch.setattr(bigquery.bigquery, "Client", Recorded)
    monkeypatch.setenv("ORRERY_PROJECT_DIR", str(ROOT))
    monkeypatch.setenv("ORRERY_TARGET", "bigquery")
    monkeypatch.setenv("ORRERY_BIGQUERY_PROJECT", "tables")
    monkeypatch.setenv("ORRERY_BIGQUERY_METHOD", "oauth-secrets")
    monkeypatch.setenv("DBT_ENV_SECRET_BIGQUERY_TOKEN", SECRET)
    return calls


def test_the_settings_are_those_of_dbt(made: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = bigquery.connect({})
    ((project, who), options) = made.pop()
    assert (project, who.token) == ("tables", SECRET)
    assert options == {"location": None, "client_options": None}
    assert warehouse._options == {"priority": "INTERACTIVE"}
    for key, value in {
        "EXECUTION_PROJECT": "pays",
        "LOCATION": "EU",
        "PRIORITY": "batch",
        "MAXIMUM_BYTES_BILLED": "1000",
        "TIMEOUT": "60",
        "ENDPOINT": "http://127.0.0.1:1",
        "IMPERSONATE": "loader@example.com",
    }.items():
        monkeypatch.setenv(f"ORRERY_BIGQUERY_{key}", value)
    warehouse = bigquery.connect({})
    ((project, who), options) = made.pop()
    assert (project, who.service_account_email) == ("pays", "loader@example.com")
    assert options == {"location": "EU", "client_options": {"api_endpoint": "http://127.0.0.1:1"}}
    assert warehouse._options == {"priority": "BATCH", "maximum_bytes_billed": 1000, "job_timeout_ms": 60_000}
    # Another project pays, but the tables are where they were.
    assert warehouse.sql_name("landing", "events") == "`tables`.`landing`.`events`"


@pytest.mark.usefixtures("made")
def test_what_is_wrong_with_a_key_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORRERY_BIGQUERY_METHOD")
    key = tmp_path / "key.json"
    monkeypatch.setenv("ORRERY_BIGQUERY_KEYFILE", str(key))
    for content in (None, "SECRET", json.dumps({"private_key": "SECRET", "client_email": "SECRET"})):
        if content is not None:
            key.write_text(content)
        with pytest.raises(SetupError, match="The key for BigQuery cannot be read") as caught:
            bigquery.connect({})
        assert "SECRET" not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.usefixtures("made")
def test_methods_that_files_do_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORRERY_BIGQUERY_METHOD", "external-oauth-wif")
    with pytest.raises(SetupError, match="with the method 'external-oauth-wif' of dbt's target"):
        bigquery.connect({})


@pytest.mark.usefixtures("made")
def test_the_target_chooses_the_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target("landing", "forex_transactions", "forex.transactions", {}, ())
    ti = SimpleNamespace(dag_id="forex", run_id="manual__2026-01-31T06:00:00+00:00" + "x" * 60)
    zone = LandingZone(f"file://{tmp_path}")
    loader = loaders.make_loader(target, Files(files="*.csv"), zone, ti)
    assert isinstance(loader, BigQueryLoader)
    labels = loader._warehouse._labels
    assert labels.pop("run") == "manual__2026-01-31t06_00_00_00_00" + "x" * 30
    assert labels == {
        "app": "orrery",
        "target": "bigquery",
        "kind": "ingest",
        "node": "forex_transactions",
        "pipeline": "forex",
    }
    monkeypatch.setenv("ORRERY_TARGET", "prod")
    assert isinstance(loaders.make_loader(target, Files(files="*.csv"), zone, ti), Loader)


def test_a_connection_takes_the_place_of_the_settings(
    made: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files reach BigQuery as dbt does: by the connection of Airflow, if one is chosen."""
    made_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = made_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = "loader@there.iam.gserviceaccount.com"
    key = {"private_key": pem, "private_key_id": "1", "client_email": account, "token_uri": "http://token"}
    extra = {"project": "there", "keyfile_dict": json.dumps(key)}
    known = {"conn_type": "google_cloud_platform", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_BQ", json.dumps(known))
    monkeypatch.setenv(profile.CONNECTION, "bq")
    monkeypatch.setenv("ORRERY_BIGQUERY_LOCATION", "EU")
    monkeypatch.setenv("ORRERY_TARGET_PATH", str(tmp_path / "target"))
    # They are set for dbt; what is set here is forgotten afterwards.
    for variable in ("DBT_PROFILES_DIR", KEY_VARIABLE, f"{KEY_VARIABLE}_ID"):
        monkeypatch.setenv(variable, "")
    profile._profile_of.cache_clear()
    target = Target("landing", "forex_transactions", "forex.transactions", {}, ())
    ti = SimpleNamespace(dag_id="forex", run_id="r1")
    loader = loaders.make_loader(target, Files(files="*.csv"), LandingZone(f"file://{tmp_path}"), ti)
    ((_, who), options) = made.pop()
    assert (who.service_account_email, options["location"]) == (account, "EU")
    assert isinstance(loader, BigQueryLoader)
    assert loader._warehouse.sql_name("landing", "events") == "`there`.`landing`.`events`"

    monkeypatch.setenv("AIRFLOW_CONN_BQ", json.dumps(known).replace("BEGIN", "SECRET"))
    monkeypatch.setenv("DBT_PROFILES_DIR", "")
    profile._profile_of.cache_clear()
    with pytest.raises(SetupError, match="or the connection of ORRERY_WAREHOUSE_CONNECTION") as caught:
        loaders.make_loader(target, Files(files="*.csv"), LandingZone(f"file://{tmp_path}"), ti)
    assert "SECRET" not in str(caught.value)


def error(kind: type[exceptions.GoogleAPICallError], reason: str, message: str) -> Exception:
    """What the client raises."""
    return kind(message, errors=[{"reason": reason, "message": message}])


@pytest.mark.parametrize(
    ("raised", "expected", "text"),
    [
        (
            error(
                exceptions.BadRequest,
                "invalidQuery",
                "Transaction is aborted due to concurrent update against table p:landing._orrery_lock__t.",
            ),
            RefusedError,
            "Transaction is aborted",
        ),
        (error(exceptions.BadRequest, "invalidQuery", "No such type"), RefusedError, "No such type"),
        (error(exceptions.NotFound, "notFound", "Not found: Dataset"), RefusedError, "Not found: Dataset"),
        (error(exceptions.Forbidden, "accessDenied", "Access Denied"), SetupError, "BigQuery refuses: "),
        (error(exceptions.Forbidden, "quotaExceeded", "Too many"), IngestError, "BigQuery is busy: Too many"),
        (error(exceptions.ServiceUnavailable, "backendError", "later"), IngestError, "does not answer"),
    ],
)
def test_errors_of_the_client(raised: Exception, expected: type[Exception], text: str) -> None:
    def query(*_: Any, **__: Any) -> None:
        raise raised

    client: Any = SimpleNamespace(query=query)
    with pytest.raises(expected) as caught:
        BigQuery(client, "tables").run("select 1")
    assert text in str(caught.value)
    # Only what a right is missing for is not tried again.
    assert isinstance(caught.value, SetupError) == (expected is SetupError)


@pytest.mark.parametrize(
    ("reason", "message", "expected"),
    [
        # What lost against another transaction, in any words.
        ("invalidQuery", "Transaction is aborted due to concurrent update against table p:t", ConflictError),
        ("invalidQuery", "Could not serialize access to table", ConflictError),
        ("invalidQuery", "concurrent update of nothing, in words of tomorrow", ConflictError),
        # What cannot be, whatever a value says that is repeated in it.
        ("invalid", "Bad value: 'concurrent update'", RefusedError),
        ("tooLarge", "The query is too large", RefusedError),
        ("notFound", "Not found: Dataset concurrent update", RefusedError),
    ],
)
def test_a_conflict_is_told_by_its_reason(reason: str, message: str, expected: type[Exception]) -> None:
    kind = exceptions.NotFound if reason == "notFound" else exceptions.BadRequest

    def query(*_: Any, **__: Any) -> None:
        raise error(kind, reason, message)

    client: Any = SimpleNamespace(query=query)
    with pytest.raises(RefusedError) as caught:
        BigQuery(client, "tables").run_transaction(["select 1"], "select 2")
    assert (type(caught.value), str(caught.value)) == (expected, message)


def test_load_jobs_have_the_timeout_of_queries() -> None:
    given: list[Any] = []

    def load(*_: Any, job_config: Any, **__: Any) -> Any:
        given.append(job_config)
        return SimpleNamespace(result=lambda: None)

    client: Any = SimpleNamespace(load_table_from_file=load, create_table=lambda _: None)
    for options in ({}, {"job_timeout_ms": 60_000, "priority": "BATCH", "maximum_bytes_billed": 1}):
        BigQuery(client, "tables", options=options).load(BytesIO(), "landing", "t", {"c1": "STRING"})
    assert [config.to_api_repr().get("jobTimeoutMs") for config in given] == [None, "60000"]


@pytest.mark.parametrize(
    ("declared", "kind"),
    [
        ("text", "STRING"),
        ("character varying(20)", "STRING"),
        ("varchar (20)", "STRING"),
        ("INTEGER", "INT64"),
        ("double  precision", "FLOAT64"),
        ("numeric(18,2)", "NUMERIC(18, 2)"),
        ("decimal (18, 2)", "NUMERIC(18, 2)"),
        ("numeric", "NUMERIC"),
        ("timestamp", "TIMESTAMP"),
        ("timestamp with time zone", "TIMESTAMP"),
        ("jsonb", "JSON"),
        ("date", "DATE"),
        ("int64", "INT64"),
    ],
)
def test_types(declared: str, kind: str) -> None:
    assert bigquery_type(declared) == kind


def test_names_and_values_stay_what_they_are() -> None:
    """A file may say what its columns are called."""
    assert name("a`; drop table t; --") == "`a\\`; drop table t; --`"
    assert name("a\\") == "`a\\\\`"
    assert literal('a"; \\ \n Zoë') == '"a\\"; \\\\ \\n Zoë"'
