"""`orrery run` and `orrery retry`."""

from __future__ import annotations

import json
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from typing import Any, cast

import click
import yaml
from rich.console import Console

from orrery.cli.airflow_api import FINISHED_RUN, FINISHED_TASK, AirflowApi, Json
from orrery.cli.clearing import clear
from orrery.cli.follow import follow, key_of, node_of
from orrery.cli.node_names import advise, find_name
from orrery.cli.session import airflow_of, dag_of, new_console
from orrery.cli.stand_ins import stand_ins
from orrery.cli.summary import show_summary
from orrery.config.errors import OrreryError, suggest
from orrery.config.loader import load_pipelines
from orrery.config.project import Project
from orrery.config.stages import ALERT, SOURCE_FRESHNESS, SOURCE_TESTS, STEPS, TESTS, is_last
from orrery.execute.options import MAX_THREADS

RETRIED = ("failed", "upstream_failed")
CHECKS = (SOURCE_FRESHNESS, SOURCE_TESTS, TESTS)


@click.command()
@click.argument("pipeline")
@click.option("--select", "-s", metavar="NODES", help="Only these nodes, in dbt's selection syntax.")
@click.option("--exclude", metavar="NODES", help="All but these nodes, in dbt's selection syntax.")
@click.option("--full-refresh", is_flag=True, help="Rebuild incremental models and seeds from nothing.")
@click.option("--vars", "variables", metavar="YAML", help="dbt's vars, for example '{day: 2026-01-31}'.")
@click.option("--skip-stages", default="", help="Stages to leave out, separated by commas.")
@click.option("--threads", type=click.IntRange(1, MAX_THREADS), help="How many nodes dbt runs at once.")
@click.option("--uri", help="Bring in this object only, for example s3://bucket/orders/1.csv.")
@click.option("--remote", metavar="URL", help="In the Airflow at this URL, instead of the local one.")
@click.option("--unpause", is_flag=True, help="Unpause the pipeline in Airflow first.")
@click.option("--stand-ins", "with_stand_ins", is_flag=True, help="Try it without the systems it reaches.")
def run(
    pipeline: str,
    *,
    skip_stages: str,
    variables: str | None,
    remote: str | None,
    unpause: bool,
    with_stand_ins: bool,
    **choices: Any,
) -> None:
    """Run PIPELINE and wait for its end."""
    given = {key: value for key, value in choices.items() if value}
    if variables:
        given["vars"] = _variables(variables)
    if remote and with_stand_ins:
        raise click.UsageError("--stand-ins goes with the local Airflow only.")
    console, project = new_console(), Project.find()
    if remote is None:
        pipeline = load_pipelines(project).get(pipeline).name
    with ExitStack() as cleanup:
        api = cleanup.enter_context(airflow_of(project, console, remote))
        dag = dag_of(api, project, pipeline, remote)
        if dag["is_paused"]:
            if not unpause:
                raise OrreryError(
                    f"{pipeline} is paused in Airflow; a run would wait for ever.\n"
                    f"  ./orrery run {pipeline} --unpause{api.options}"
                )
            api.unpause(pipeline)
        if with_stand_ins:
            cleanup.enter_context(stand_ins(pipeline, project, api, console))
        run_id = api.trigger(pipeline, given | _stages_to_skip(dag, skip_stages))
        console.print(f"Run {run_id}: {api.run_url(pipeline, run_id)}", highlight=False, soft_wrap=True)
        _finish(api, pipeline, run_id, console)


@click.command()
@click.argument("pipeline")
@click.option("--failed", is_flag=True, help="Run the failed nodes again, and what could not run for them.")
@click.option("--model", metavar="NAME", help="Run this one node again: a model, seed, snapshot or test.")
@click.option("--downstream", is_flag=True, help="With --model: and everything that descends from it.")
@click.option("--run-id", help="The run to repeat nodes of; by default the latest.")
@click.option("--remote", metavar="URL", help="In the Airflow at this URL, instead of the local one.")
def retry(
    pipeline: str,
    *,
    failed: bool,
    model: str | None,
    downstream: bool,
    run_id: str | None,
    remote: str | None,
) -> None:
    """Run nodes of PIPELINE's latest run again."""
    if failed == (model is not None):
        raise click.UsageError("Give either --failed or --model NAME.")
    if downstream and model is None:
        raise click.UsageError("--downstream goes with --model NAME.")
    console, project = new_console(), Project.find()
    if remote is None:
        pipeline = load_pipelines(project).get(pipeline).name
    with airflow_of(project, console, remote) as api:
        dag_of(api, project, pipeline, remote)
        earlier = api.run(pipeline, run_id) if run_id else api.latest_run(pipeline)
        if earlier is None:
            raise OrreryError(f"{pipeline} has never run.\n  ./orrery run {pipeline}{api.options}")
        run_id = str(earlier["dag_run_id"])
        tasks = api.task_instances(pipeline, run_id)
        choice = _failed(tasks) if model is None else _one(tasks, model, downstream)
        if not choice:
            # The tasks may be those of another command that has just cleared them.
            now = api.run(pipeline, run_id) or earlier
            console.print(
                _nothing_failed(now, api.run_url(pipeline, run_id)), highlight=False, soft_wrap=True
            )
            return
        cleared = clear(api, earlier, tasks, choice, console)
        console.print(f"Run {run_id}: {api.run_url(pipeline, run_id)}", highlight=False, soft_wrap=True)
        again = {key_of(task) for task in cleared}
        ended = {key_of(t) for t in tasks if t["state"] in FINISHED_TASK and key_of(t) not in again}
        _finish(api, pipeline, run_id, console, ended)


def _variables(text: str) -> dict[str, Any]:
    """dbt's vars as its command line takes them: a mapping in YAML, so JSON too."""
    try:
        variables = yaml.safe_load(text)
    except yaml.YAMLError:
        variables = None
    if not isinstance(variables, dict):
        raise click.UsageError("--vars needs a mapping, for example: '{day: 2026-01-31}'")
    # Dates travel as text, which is what dbt itself makes of them.
    return cast("dict[str, Any]", json.loads(json.dumps(variables, default=str)))


def _stages_to_skip(dag: Json, text: str) -> dict[str, Any]:
    """The stages that this run leaves out; without any, the pipeline keeps its own defaults."""
    stages = [stage.strip() for stage in text.split(",") if stage.strip()]
    known = dag["params"]["skip_stages"]["schema"]["items"]["enum"]
    for stage in stages:
        if stage not in known:
            raise click.UsageError(f"Unknown stage {stage!r}. {suggest(stage, known, 'stage')}")
    return {"skip_stages": stages} if stages else {}


def _nothing_failed(run: Json, url: str) -> str:
    if run["state"] in FINISHED_RUN:
        return f"Nothing failed in {run['dag_run_id']}."
    return (
        f"Nothing has failed in {run['dag_run_id']} so far; it is {run['state']}. Another command may have "
        f"retried it already: {url}"
    )


def _failed(tasks: list[Json]) -> dict[str, Any]:
    ids: list[Any] = []
    for task in tasks:
        if task["state"] == "failed":
            # A file that was corrected since is cut anew.
            ids += _steps_before(task["task_id"], tasks)
        if task["state"] in RETRIED:
            task_id, index = key_of(task)
            ids.append([task_id, index] if index >= 0 else task_id)
    if ids:
        # What has become of the run is published and told anew.
        ids += [t["task_id"] for t in tasks if is_last(t["task_id"]) and t["task_id"] not in ids]
    return {"task_ids": ids} if ids else {}


def _one(tasks: list[Json], name: str, downstream: bool) -> dict[str, Any]:
    """The task called `name`, with or without its stage.

    Of those that share a name, what brings the rows comes before what only looks at them.
    """
    known = {node_of(task) for task in tasks}
    exact = [task["task_id"] for task in tasks if task["task_id"] == name]
    called = find_name(name, known)
    found = exact or [task["task_id"] for task in tasks if node_of(task) == called]
    found.sort(key=lambda task_id: (task_id.partition(".")[0] in CHECKS, task_id))
    if not found:
        raise OrreryError(f"No node is called {name!r} in this run.\n  {advise(name, known)}")
    # A step of an ingestion has no meaning without the others.
    whole = [found[0].removesuffix(step) for step in STEPS if found[0].endswith(step)]
    main = next((each for each in whole if found[0] in _steps_before(each, tasks)), found[0])
    alert = [ALERT] if not downstream and ALERT in {task["task_id"] for task in tasks} else []
    return {"task_ids": [*_steps_before(main, tasks), main, *alert], "include_downstream": downstream}


def _steps_before(task_id: str, tasks: list[Json]) -> list[str]:
    """The tasks in which an ingestion in chunks begins."""
    steps = [f"{task_id}{step}" for step in STEPS]
    return steps if {task_id, *steps} <= {task["task_id"] for task in tasks} else []


def _finish(
    api: AirflowApi,
    pipeline: str,
    run_id: str,
    console: Console,
    ended: AbstractSet[tuple[str, int]] = frozenset(),
) -> None:
    try:
        dag_run, tasks = follow(api, pipeline, run_id, console, ended)
    except KeyboardInterrupt:
        console.print(f"\nThe run goes on: {api.run_url(pipeline, run_id)}", highlight=False, soft_wrap=True)
        raise SystemExit(130) from None
    shown = [task for task in tasks if key_of(task) not in ended]
    if not show_summary(api, dag_run, shown, console):
        raise SystemExit(1)
