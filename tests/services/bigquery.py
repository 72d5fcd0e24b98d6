"""BigQuery on loopback, by bqemulator: the API on a DuckDB in memory."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import duckdb
import httpx
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from orrery.local.ports import find_free
from services.service import Service

PROJECT = "orrery-stand-in"
# The emulator, which misses that a table with declared columns may be made of a query in parentheses; that is
# how dbt makes tables with a contract.
_START = """
from bqemulator.cli import main
from bqemulator.sql.rewriter import create_table_schema_ctas as rewriter
from sqlglot import exp

first_select = rewriter._first_select
rewriter._first_select = lambda body: first_select(body.unnest() if isinstance(body, exp.Subquery) else body)
main(["start"])
"""
_SECONDS = 180.0
# How BigQuery calls the types of tests/services/data, and what Airbyte adds to every row there.
_TYPES = {"varchar": "STRING", "boolean": "BOOL", "bigint": "INT64", "date": "DATE", "timestamp": "TIMESTAMP"}
_META = {
    "_airbyte_raw_id": "STRING",
    "_airbyte_extracted_at": "TIMESTAMP",
    "_airbyte_meta": "STRING",
    "_airbyte_generation_id": "INT64",
}


class BigQueryServer(Service):
    """A BigQuery in a process of its own; what it holds is gone with `close`."""

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="orrery-bigquery-")
        _provide_spatial(Path(self._home.name))
        port = find_free()
        self.url = f"http://127.0.0.1:{port}"
        self._log = Path(self._home.name, "log")
        environment = {
            **os.environ,
            "HOME": self._home.name,
            "BQEMU_REST_PORT": str(port),
            "BQEMU_GRPC_PORT": str(find_free(frozenset({port}))),
            "BQEMU_DEFAULT_PROJECT_ID": PROJECT,
            "BQEMU_UPLOAD_STAGING_DIR": str(Path(self._home.name, "uploads")),
            # It would be looked for in the network.
            "BQEMU_ENABLE_FORMAT_EXTENSIONS": "false",
            "BQEMU_LOG_LEVEL": "warning",
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START],
                env=environment,
                cwd=self._home.name,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise
        self.client: Any = bigquery.Client(
            PROJECT, AnonymousCredentials(), client_options={"api_endpoint": self.url}
        )

    def environment(self, dataset: str = "dev") -> dict[str, str]:
        """What leads dbt here."""
        return {
            "ORRERY_TARGET": "bigquery",
            "ORRERY_BIGQUERY_METHOD": "oauth-secrets",
            "DBT_ENV_SECRET_BIGQUERY_TOKEN": "stand-in",
            "ORRERY_BIGQUERY_PROJECT": PROJECT,
            "ORRERY_BIGQUERY_DATASET": dataset,
            "ORRERY_BIGQUERY_ENDPOINT": self.url,
        }

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return [tuple(row.values()) for row in self.client.query_and_wait(sql)]

    def sync(self, folder: Path, dataset: str = "landing") -> None:
        """Load a folder with a <stream>.csv for each table, and their types, as Airbyte would."""
        self.client.create_dataset(dataset, exists_ok=True)
        types = json.loads((folder / "_types.json").read_bytes())
        for path in sorted(folder.glob("*.csv")):
            with path.open(newline="", encoding="utf-8") as file:
                rows = [{name: value or None for name, value in row.items()} for row in csv.DictReader(file)]
            now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
            meta = {"_airbyte_extracted_at": now, "_airbyte_meta": "{}", "_airbyte_generation_id": 1}
            kinds = {name: _TYPES[types[path.stem][name]] for name in rows[0]} | _META
            lines = [
                json.dumps(row | meta | {"_airbyte_raw_id": f"{path.stem}-{number}"})
                for number, row in enumerate(rows)
            ]
            # Not as JSON: the emulator does not take how the client sends that.
            self.client.load_table_from_file(
                BytesIO("\n".join(lines).encode()),
                f"{PROJECT}.{dataset}.{path.stem}",
                job_config=bigquery.LoadJobConfig(
                    source_format="NEWLINE_DELIMITED_JSON",
                    schema=[bigquery.SchemaField(name, kind) for name, kind in kinds.items()],
                    write_disposition="WRITE_TRUNCATE",
                ),
            ).result()

    def close(self) -> None:
        """Stop."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._home.cleanup()

    def _wait(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                if httpx.get(f"{self.url}/readyz").is_success:
                    return
            except httpx.TransportError:
                pass
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"bqemulator does not start:\n{self._log.read_text()}")
            time.sleep(0.1)


def _provide_spatial(home: Path) -> None:
    """Put DuckDB's extension for places where DuckDB looks; the emulator needs it, and would fetch it."""
    found = find_spec("duckdb_extension_spatial")
    if found is None or found.origin is None:
        raise RuntimeError("duckdb-extension-spatial is missing: it is in requirements-dev.lock")
    (file,) = Path(found.origin).parent.glob("extensions/*/spatial.duckdb_extension")
    ((platform,),) = duckdb.sql("pragma platform").fetchall()
    folder = home / ".duckdb" / "extensions" / file.parent.name / platform
    folder.mkdir(parents=True)
    (folder / file.name).symlink_to(file)
