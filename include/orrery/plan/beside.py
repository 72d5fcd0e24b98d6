"""The tasks beside dbt's: what fills the sources of a pipeline, runs after its models, and publishes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from orrery.config.kinds import INGEST_KINDS, RUN_KINDS
from orrery.config.publish import Publish
from orrery.config.resources import owner_name
from orrery.config.stages import EXPOSURES, INGEST, PUBLISH
from orrery.config.transfer import Transfer
from orrery.plan.chunks import steps_before
from orrery.plan.doc import exposure_doc, ingest_doc
from orrery.plan.model import TaskKind, TaskPlan, Work
from orrery.plan.names import digest, safe_name

Resource = dict[str, Any]
Owner = Callable[[Resource], str | None]


def ingest_tasks(
    entries: list[Resource], sources: Mapping[str, Resource], owner: Owner
) -> tuple[list[TaskPlan], dict[str, str]]:
    """The tasks of the ingest blocks, and for each source the id of the one after which it is filled."""
    by_name = {entry["name"]: entry for entry in entries}
    tasks, filled_by = [], {}
    for entry in entries:
        task = _ingest_task(entry, by_name, sources, owner)
        for step in steps_before(task):
            # A table may be called like a step of another one.
            taken = step.task_id.partition(".")[2] in by_name
            task_id = f"{step.task_id}_{digest(entry['name'])}" if taken else step.task_id
            tasks.append(replace(step, task_id=task_id, upstream=task.upstream))
            task = replace(task, upstream=frozenset({task_id}))
        tasks.append(task)
        for uid in entry["sources"]:
            followed = any(uid in other["sources"] and entry["name"] in other["after"] for other in entries)
            if not followed:
                filled_by[uid] = task.task_id
    return tasks, filled_by


def _ingest_task(
    entry: Resource, by_name: Mapping[str, Resource], sources: Mapping[str, Resource], owner: Owner
) -> TaskPlan:
    tables = [sources[uid] for uid in entry["sources"]]
    first = tables[0]
    one_table = len(tables) == 1
    work = Work(
        kind=entry["kind"],
        block=INGEST_KINDS[entry["kind"]].model_validate(entry["block"]),
        of=f"{first['source_name']}.{first['name']}" if one_table else str(first["source_name"]),
        schema=first["schema"],
        table=first["identifier"] if one_table else "",
        columns={name: column.get("data_type", "text") for name, column in first["columns"].items()}
        if one_table
        else {},
        transfers=tuple(
            Transfer.model_validate(by_name[name]["block"])
            for name in _before(entry, by_name)
            if by_name[name]["kind"] == "transfer"
        ),
    )
    return TaskPlan(
        task_id=_id(INGEST, entry["name"]),
        stage=INGEST,
        kind=TaskKind.INGEST,
        nodes=tuple(entry["sources"]),
        upstream=frozenset(_id(INGEST, name) for name in entry["after"]),
        owner=owner(first),
        doc=ingest_doc(tables, entry["kind"], entry["block"]),
        work=work,
    )


def _before(entry: Resource, by_name: Mapping[str, Resource]) -> list[str]:
    """The names of all steps before one, the first of them first."""
    names: list[str] = []
    for name in entry["after"]:
        names += [other for other in (*_before(by_name[name], by_name), name) if other not in names]
    return names


def exposure_tasks(entries: list[Resource], owner: str | None) -> dict[str, TaskPlan]:
    """The task of each exposure that runs something, by unique id; what they wait for is not in it.

    :param owner: the pipeline's, for those that name none
    """
    return {
        entry["unique_id"]: TaskPlan(
            task_id=_id(EXPOSURES, entry["name"]),
            stage=EXPOSURES,
            kind=TaskKind.EXPOSURE,
            nodes=(entry["unique_id"],),
            upstream=frozenset(),
            owner=owner_name(entry["owner"], owner),
            doc=exposure_doc(entry),
            work=Work(
                kind=entry["kind"],
                block=RUN_KINDS[entry["kind"]].model_validate(entry["block"]),
                of=entry["name"],
            ),
        )
        for entry in entries
    }


_PUBLISHED = {
    "docs": "Publishes dbt's documentation of the pipeline as one HTML file.",
    "artifacts": "Publishes manifest.json, run_results.json, sources.json and catalog.json of the run.",
    "elementary": "Publishes Elementary's report on data quality as one HTML file, if it is installed.",
}


def publish_tasks(
    block: Publish, last: Iterable[str], owner: str | None, *, elementary: bool
) -> list[TaskPlan]:
    """The tasks that publish what a run has done, whatever became of it, one after the other.

    :param last: the ids of the tasks that no other one waits for
    :param elementary: whether it is installed; otherwise its task holds nobody up, as it is skipped
    """
    tasks: list[TaskPlan] = []
    last = frozenset(last)
    upstream = last
    for name, doc in _PUBLISHED.items():
        if getattr(block, name):
            task_id = _id(PUBLISH, name)
            tasks.append(
                TaskPlan(
                    task_id=task_id,
                    stage=PUBLISH,
                    kind=TaskKind.PUBLISH,
                    nodes=(),
                    upstream=last if name == "elementary" and not elementary else upstream,
                    owner=owner,
                    doc=doc,
                    always=True,
                )
            )
            upstream = frozenset({task_id})
    return tasks


def _id(stage: str, name: str) -> str:
    return f"{stage}.{safe_name(name)}"
