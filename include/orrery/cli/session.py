"""A running stack with current manifests: what `run` and `retry` start from."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console

from orrery.cli.airflow_api import REMOTE_ADVICE, AirflowApi, Json
from orrery.cli.prover import prover
from orrery.config.errors import OrreryError, suggest
from orrery.config.loader import load_pipelines
from orrery.config.project import Project
from orrery.local import Stack, StackInfo
from orrery.manifest.build import build_manifests
from orrery.manifest.store import ManifestStore

# The log-in to an Airflow elsewhere; the cloud function of include/functions reads the same.
USERNAME, PASSWORD = "AIRFLOW_USERNAME", "AIRFLOW_PASSWORD"
# How long Airflow may take to read the DAG file after the manifest has changed.
PARSE_SECONDS = 90.0


class NotReadyError(OrreryError):
    """Airflow does not show the pipeline."""


def current_manifests(project: Project, stack: Stack, info: StackInfo, report: Callable[[str], None]) -> None:
    """Build the manifests when they do not fit the project any more, or when the last build found mistakes.

    Raises ManifestError when dbt cannot parse the project: the cause may lie beside its files, so it is never
    told from memory. A broken pipeline raises nothing here: its error is stored and shown where it is used.
    Raises NotReadyError rather than take the manifests of a running stack from it, which has another target.
    """
    store = ManifestStore(project)
    if not store.must_build():
        return
    reasons = store.made_for_another()
    if info.outdated and reasons:
        raise NotReadyError(
            f"The manifest is not current: {'; '.join(reasons)}. The stack that runs keeps the target and "
            "the environment that it was started with.\n  Run ./orrery down first"
        )
    # dbt's partial parsing holds only when the tasks see the same environment.
    os.environ.update(stack.dbt_env())
    with prover(project, report) as prove:
        build_manifests(project, report, only_if_stale=True, prove=prove)


def start(project: Project, console: Console) -> StackInfo:
    """Start the stack unless it runs, and bring the manifests up to date."""
    stack = Stack(project.root)
    report = reporter(console)
    info = stack.up(report)
    if info.first_start:
        console.print(f"Airflow: {info.url}  user {info.username}  password {info.password}", highlight=False)
    current_manifests(project, stack, info, report)
    return info


def new_console() -> Console:
    """The console of a command; in a log or a pipe lines are long rather than folded."""
    console = Console()
    return console if console.is_terminal else Console(width=250)


def reporter(console: Console) -> Callable[[str], None]:
    """A function that prints a line of progress."""

    def report(line: str) -> None:
        console.print(line, style="dim", highlight=False, markup=False)

    return report


def connect(info: StackInfo) -> AirflowApi:
    """A client of the stack's Airflow."""
    return AirflowApi(info.url, info.username, info.password)


@contextmanager
def airflow_of(project: Project, console: Console, remote: str | None) -> Iterator[AirflowApi]:
    """A client of the Airflow at a URL, else of the local one, which is started."""
    if remote is None:
        with connect(start(project, console)) as api:
            yield api
        return
    password = os.environ.get(PASSWORD)
    if not password:
        raise OrreryError(
            f"The log-in to {remote} needs the environment variable {PASSWORD} (and {USERNAME}; by default "
            "admin).\n  docker-compose.yml's is ORRERY_ADMIN_PASSWORD in .env."
        )
    username = os.environ.get(USERNAME, "admin")
    options = f" --remote {remote}"
    with AirflowApi(remote, username, password, advice=REMOTE_ADVICE, options=options) as api:
        yield api


def dag_of(api: AirflowApi, project: Project, name: str, remote: str | None) -> Json:
    """The DAG of a pipeline, ready to run; raises what is wrong with it, or that it is not there."""
    if remote is not None:
        return _dag_elsewhere(api, name)
    pipeline = load_pipelines(project).get(name)
    pool = pipeline.config.pool
    ManifestStore(project).check(name)
    dag = wait_until_parsed(api, project, name)
    if pool and not api.has_pool(pool):
        raise OrreryError(
            f"{pipeline.document.file}: Airflow has no pool {pool!r}; its tasks would wait "
            f"for ever.\n  Create it under {api.url}/pools, or remove pool."
        )
    return dag


def _dag_elsewhere(api: AirflowApi, name: str) -> Json:
    """The DAG of an Airflow that is not ours; a fresh one may take its time to read it."""
    deadline = time.monotonic() + PARSE_SECONDS
    while (dag := api.dag(name)) is None:
        known = api.dag_ids()
        if known:
            raise NotReadyError(
                f"{api.url}: Airflow has no pipeline {name!r}.\n  {suggest(name, known, 'pipeline')}"
            )
        if time.monotonic() > deadline:
            raise NotReadyError(f"{api.url}: Airflow has no pipelines.\n  See the log of its dag-processor.")
        time.sleep(1)
    return dag


def wait_until_parsed(api: AirflowApi, project: Project, name: str) -> Json:
    """The DAG of a pipeline, once Airflow has read it from the manifest as it is now."""
    built = _timestamp(ManifestStore(project).index().entries[name].since)
    deadline = time.monotonic() + PARSE_SECONDS
    asked = False
    while time.monotonic() < deadline:
        dag = api.dag(name)
        if dag is not None and not dag["is_stale"] and _timestamp(dag["last_parsed_time"]) > built:
            return dag
        if dag is not None and not asked:
            api.reparse(dag)
            asked = True
        time.sleep(0.5)
    errors = "\n".join(error["stack_trace"] for error in api.import_errors())
    raise NotReadyError(
        f"{name}: Airflow has not read the pipeline within {PARSE_SECONDS:.0f} s.\n"
        + (errors or "  See ./orrery logs dag-processor")
    )


def _timestamp(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0
