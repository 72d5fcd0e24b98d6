"""What stands in for the systems that the shipped pipelines reach: `./orrery run <pipeline> --stand-ins`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from orrery.config.loader import load_pipelines
from orrery.config.project import Project
from orrery.manifest.alerts import alert_connections
from orrery.manifest.store import ManifestStore
from services.airbyte import AirbyteServer
from services.kubernetes import KubernetesServer
from services.object_store import GcsServer, S3Server
from services.slack import SlackServer

# Connections of Airflow by their ids, each as the body of a request to its API.
Connections = dict[str, dict[str, Any]]
# By the roles `loader` and `transformer`: libpq URLs of the warehouse.
Warehouse = Mapping[str, str]

INBOX, LAKE, LAKE_FOLDER = "orrery-events", "orrery-lake", "raw"
# What pipelines publish to.
WEBSITE, REPORTS = "orrery-docs", "sales-marketing-dev"
IMAGE = "orrery-events:latest"
DATA = Path("tests/services/data")


class Events:
    """What the pipelines of `events` reach: the inbox of objects, the lake, and a cluster.

    :param inbox: names of the objects that have arrived; by default all. `lake` those that were copied before
    """

    def __init__(
        self,
        root: Path,
        warehouse: Warehouse,
        *,
        inbox: Callable[[str], bool] = lambda name: True,
        lake: Callable[[str], bool] = lambda name: False,
    ) -> None:
        with ExitStack() as started:
            self.s3 = started.enter_context(S3Server("aws_events"))
            self.gcs = started.enter_context(GcsServer("google_events"))
            self._folder = Path(tempfile.mkdtemp(prefix="orrery-cluster-"))
            started.callback(shutil.rmtree, self._folder)
            # What the image has in it.
            shutil.copytree(root / "include" / "jobs", self._folder / "opt" / "orrery" / "jobs")
            self.kubernetes = started.enter_context(
                KubernetesServer(
                    self._folder,
                    {IMAGE: []},
                    environment={"PATH": os.environ.get("PATH", os.defpath)},
                    config_maps={
                        "pipeline-env": {
                            "EVENTS_URI": f"gs://{LAKE}/{LAKE_FOLDER}",
                            "MARTS_SCHEMA": "dev_core",
                            "STORAGE_EMULATOR_HOST": self.gcs.url,
                        }
                    },
                    secrets={
                        "warehouse": {"WAREHOUSE_DSN": warehouse["transformer"]},
                        "warehouse-loader": {"WAREHOUSE_DSN": warehouse["loader"]},
                    },
                )
            )
            self.s3.create(INBOX)
            self.gcs.create(LAKE)
            self.gcs.create(WEBSITE)
            for path in sorted((root / DATA / "events").glob("*.jsonl")):
                if inbox(path.name):
                    self.s3.put(INBOX, f"incoming/{path.name}", path.read_bytes())
                if lake(path.name):
                    self.gcs.put(LAKE, f"{LAKE_FOLDER}/{path.name}", path.read_bytes())
            self._started = started.pop_all()

    def connections(self) -> Connections:
        """The connections that lead to them."""
        return self.s3.connections() | self.gcs.connections() | self.kubernetes.connections()

    def close(self) -> None:
        """Stop them all."""
        self._started.close()

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def serve(pipeline: str, root: Path, warehouse: Warehouse) -> Iterator[Connections | None]:
    """Start what `pipeline` reaches, Slack too; None when it reaches nothing.

    At the end, what it has told Slack is printed.
    """
    project = Project(root)
    config = load_pipelines(project).get(pipeline).config
    told = alert_connections(config, ManifestStore(project).read(pipeline))
    with _serve(pipeline, root, warehouse) as connections:
        if not told:
            yield connections
            return
        with SlackServer() as slack:
            kinds = {
                "slack": slack.connections()["slack_default"],
                "http": slack.connections()["alert_service"],
            }
            alerts = {name: {**kinds[kind], "connection_id": name} for name, kind in told.items()}
            yield (connections or {}) | alerts
            for call in slack.calls:
                where = call.body.get("channel", "")
                print(f"{call.method} {where}: {call.body['text']}")


@contextmanager
def _serve(pipeline: str, root: Path, warehouse: Warehouse) -> Iterator[Connections | None]:
    match pipeline:
        case "sales_marketing":
            folder = root / DATA / "sales_marketing"
            with (
                AirbyteServer({"sales_marketing": folder}, dsn=warehouse["loader"]) as airbyte,
                GcsServer("google_reports") as gcs,
            ):
                gcs.create(REPORTS)
                yield airbyte.connections() | gcs.connections()
        case "events_batch" | "events_integration":
            with Events(root, warehouse) as events:
                yield events.connections()
        case "events_full_refresh":
            with Events(root, warehouse, inbox=lambda name: False, lake=lambda name: True) as events:
                yield events.connections()
        case _:
            yield None
