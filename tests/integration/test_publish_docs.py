"""dbt's documentation after runs that went wrong, over a real PostgreSQL."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from psycopg2.extensions import parse_dsn

from conftest import WriteProject
from orrery.execute.options import RunOptions
from orrery.execute.run_folder import folder_of, keep_results
from orrery.manifest.dbt import Dbt, DbtError
from orrery.publish.docs import publishing_dbt, write_docs
from support.warehouse import query

pytestmark = pytest.mark.integration

NODES = ("model.tiny.fine", "model.tiny.odd", "model.tiny.removed")
TI = SimpleNamespace(dag_id="shop", run_id="manual__1")


def project(write_project: WriteProject, uri: str, schema: str, odd: str, **target: object) -> Dbt:
    """dbt for the docs of a run of two models."""
    found = parse_dsn(uri)
    output = {
        "type": "postgres",
        "host": found["host"],
        "port": int(found.get("port", 5432)),
        "user": found["user"],
        "password": "hush",
        "dbname": found["dbname"],
        "schema": schema,
        "connect_timeout": 2,
        "retries": 0,
        **target,
    }
    made = write_project(
        {
            "dbt/profiles.yml": json.dumps({"tiny": {"target": "dev", "outputs": {"dev": output}}}),
            "dbt/models/fine.sql": "select 1 as id",
            "dbt/models/odd.sql": odd,
        }
    )
    return publishing_dbt(made, TI, RunOptions())


@pytest.fixture
def schema(postgres_uri: str, tmp_path: Path) -> str:
    """A schema with one of the tables."""
    query(postgres_uri, f'create schema "{tmp_path.name}"')
    query(postgres_uri, f'create table "{tmp_path.name}".fine (id integer)')
    return tmp_path.name


def test_docs_leave_the_results_of_a_run_alone(
    write_project: WriteProject, postgres_uri: str, schema: str
) -> None:
    dbt = project(write_project, postgres_uri, schema, "select 2 as id")
    folder = folder_of(dbt.project, "shop", "manual__1")
    (folder / "run_results.json").write_text("of the build")
    keep_results(folder, folder)
    html = write_docs(dbt, NODES).read_text()
    assert '"model.tiny.odd"' in html
    assert (
        "select 2 as id"
        in json.loads((dbt.target_dir / "manifest.json").read_bytes())["nodes"][NODES[1]]["compiled_code"]
    )
    catalog = json.loads((dbt.target_dir / "catalog.json").read_bytes())
    assert catalog["nodes"][NODES[0]]["columns"]["id"]["type"] == "integer"
    assert (folder / "run_results.json").read_text() == "of the build"
    assert "hush" not in html


def test_a_node_that_does_not_compile(write_project: WriteProject, postgres_uri: str, schema: str) -> None:
    odd = "{% if execute %}{{ exceptions.raise_compiler_error('this is odd') }}{% endif %}"
    dbt = project(write_project, postgres_uri, schema, odd)
    assert "raise_compiler_error" in write_docs(dbt, NODES).read_text()
    catalog = json.loads((dbt.target_dir / "catalog.json").read_bytes())
    assert [*catalog["nodes"]] == [NODES[0]]


def test_a_warehouse_that_does_not_answer(
    write_project: WriteProject, postgres_uri: str, schema: str
) -> None:
    dbt = project(write_project, postgres_uri, schema, "select 2 as id", host="127.0.0.1", port=1)
    # Such a run has failed, and it is documented, too.
    assert '"model.tiny.odd"' in write_docs(dbt, NODES).read_text()
    assert json.loads((dbt.target_dir / "catalog.json").read_bytes())["nodes"] == {}


def test_a_project_that_is_broken(write_project: WriteProject, postgres_uri: str, schema: str) -> None:
    dbt = project(write_project, postgres_uri, schema, "select * from {{ ref('nothing') }}")
    with pytest.raises(DbtError, match="depends on a node named 'nothing'"):
        write_docs(dbt, NODES)
