"""Publishing to buckets: what kind of file an object is, which runs are kept, and what is not set up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowRescheduleException, AirflowSkipException

from conftest import WriteProject
from orrery.config.publish import Publish
from orrery.config.stores import Place
from orrery.execute.results import RESULT_KEY
from orrery.publish.operator import ArtifactsOperator
from orrery.publish.target import PublishTarget, run_name
from services.object_store import GcsServer, S3Server
from support.stores import (  # the fixtures are used by their names
    BUCKET,
    Remote,
    Task,
    context,
    gcs_server,
    known,
    s3_server,
)

__all__ = ["gcs_server", "known", "s3_server"]
pytestmark = pytest.mark.integration

HTML, JSON = "text/html", "application/json"
DAY = datetime(2026, 1, 31, 6, tzinfo=UTC)


@pytest.fixture(params=["s3", "gs"])
def remote(
    request: pytest.FixtureRequest, s3_server: S3Server, gcs_server: GcsServer, known: None, tmp_path: Path
) -> Remote:
    """An empty prefix of a bucket."""
    if request.param == "s3":
        return Remote(s3_server, "s3://aws_events", tmp_path.name)
    return Remote(gcs_server, "gs://google_events", tmp_path.name)


def content_type(remote: Remote, name: str) -> str:
    """What the store tells a browser of an object."""
    key = f"{remote.prefix}/{name}"
    url = f"{remote.server.url}/{BUCKET}/{key}"
    if isinstance(remote.server, S3Server):
        # A link that a page may show.
        asked = {"Bucket": BUCKET, "Key": key}
        url = remote.server.client.generate_presigned_url("get_object", Params=asked)
    return httpx.get(url, trust_env=False).raise_for_status().headers["Content-Type"]


def test_content_types_and_retention(remote: Remote) -> None:
    names = [run_name(f"manual__{number}", DAY + timedelta(hours=number)) for number in range(3)]
    remote.put(f"runs/{names[0]}/mine.txt", "mine")
    remote.put("runs/notes.txt", "mine")
    remote.put(f"elsewhere/{names[0]}/index.html", "mine")
    for name in names:
        target = PublishTarget(Place.parse(remote.uri), name, {})
        uri = target.publish({"index.html": name.encode(), "manifest.json": b"{}"})
        deleted = target.forget(2)
    assert uri == f"{remote.uri}/latest"
    assert deleted == names[:1]
    assert sorted(remote.names()) == sorted(
        [
            *(
                f"{folder}/{file}"
                for folder in (f"runs/{names[1]}", f"runs/{names[2]}", "latest")
                for file in ("index.html", "manifest.json", "run.json")
                if (folder, file) != ("latest", "run.json")
            ),
            f"runs/{names[0]}/mine.txt",
            "runs/notes.txt",
            f"elsewhere/{names[0]}/index.html",
        ]
    )
    assert remote.get("latest/index.html") == names[2].encode()
    for folder in (f"runs/{names[2]}", "latest"):
        assert content_type(remote, f"{folder}/index.html") == HTML
        assert content_type(remote, f"{folder}/manifest.json") == JSON


class Publishing(ArtifactsOperator):
    """Has something to publish."""

    def _files(self, context: Any, options: Any) -> dict[str, bytes]:
        return {"run_results.json": b"{}"}


class Run(Task):
    """A task of a run with other tasks."""

    dag_id = "shop"

    def __init__(self, **states: str | None) -> None:
        super().__init__()
        self.states = states

    def get_task_states(self, dag_id: str, run_ids: list[str]) -> dict[str, dict[str, str | None]]:
        assert (dag_id, run_ids) == ("shop", ["test"])
        return {"test": {"publish.artifacts": "running", **self.states}}


def publish(task: Run, to: str, operator: type[ArtifactsOperator] = Publishing, **params: Any) -> Any:
    """Run the task; returns its XCom."""
    told = context(task, **params)
    told["dag_run"] = SimpleNamespace(conf={}, dag_id="shop", run_id="test", run_after=DAY)
    made = operator(stage="publish", publish=Publish(to=to), documented=(), task_id="artifacts")
    made.execute(told)
    return task.xcoms[RESULT_KEY]


def test_the_task_says_where_it_has_published(remote: Remote) -> None:
    told = publish(Run(core="failed", tests="upstream_failed"), remote.uri)
    assert (told["status"], told["message"]) == ("success", f"{remote.uri}/latest/run_results.json")
    assert "latest/run_results.json" in remote.names()


@pytest.mark.parametrize("state", [None, "running", "up_for_retry", "deferred"])
def test_the_task_waits_for_all_others(remote: Remote, state: str | None) -> None:
    with pytest.raises(AirflowRescheduleException):
        publish(Run(build=state), remote.uri)
    assert remote.names() == []


def test_a_run_may_leave_it_out(remote: Remote) -> None:
    with pytest.raises(AirflowSkipException, match="leaves out the stage 'publish'"):
        publish(Run(), remote.uri, skip_stages=["publish"])
    with pytest.raises(AirflowSkipException, match="The run was refused: select cannot contain the option"):
        publish(Run(), remote.uri, select="--target prod")
    assert remote.names() == []


def test_what_is_not_set_up(remote: Remote) -> None:
    scheme, _, rest = remote.uri.partition("://")
    nobucket = f"{scheme}://{rest.partition('@')[0]}@no-such-bucket"
    for uri, error in (
        (nobucket, "there is no bucket 'no-such-bucket'"),
        (f"{scheme}://nobody@{BUCKET}", "'nobody'"),
    ):
        task = Run()
        with pytest.raises(AirflowException, match=error):
            publish(task, uri)
        assert error in task.xcoms[RESULT_KEY]["message"]
        assert task.xcoms[RESULT_KEY]["status"] == "error"


def test_results_that_are_on_another_machine(remote: Remote, write_project: WriteProject) -> None:
    write_project({})
    with pytest.raises(
        AirflowSkipException, match=r"or it ran on another machine\. Let all workers share dbt/target"
    ):
        publish(Run(), remote.uri, ArtifactsOperator)
    assert remote.names() == []
