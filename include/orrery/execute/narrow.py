"""Which tasks of a pipeline a run is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from orrery.config.errors import suggest
from orrery.config.project import Project
from orrery.execute.options import EXCLUDE, SELECT, SKIPPED_STAGE, OptionsError, RunOptions
from orrery.manifest.dbt import SYNTAX, Dbt, DbtError

_NOT_SELECTED = "This run leaves it out (select, exclude)."


class NodeTask(Protocol):
    """The task of dbt nodes, as the plan or the DAG has it; `nodes` are unique ids."""

    @property
    def task_id(self) -> str: ...
    @property
    def stage(self) -> str: ...
    @property
    def nodes(self) -> Sequence[str]: ...


def left_out(tasks: Iterable[NodeTask], options: RunOptions, dbt: Dbt) -> dict[str, str]:
    """The tasks that a run leaves out, each with the reason; raises OptionsError and DbtError.

    dbt itself resolves `select` and `exclude`. A selection that dbt refuses, or that matches nothing of
    the pipeline, is an error, and so is one of several selectors that matches no node at all.
    """
    tasks = list(tasks)
    reasons = {
        task.task_id: SKIPPED_STAGE.format(task.stage) for task in tasks if task.stage in options.skip_stages
    }
    if not options.narrowed:
        return reasons
    # A project that dbt cannot parse is no fault of the selection.
    _ = dbt.manifest
    known = _names(tasks)
    for name, tokens in ((SELECT, options.select), (EXCLUDE, options.exclude)):
        for token in tokens:
            if not _resolve(name, (token,), (), dbt):
                raise OptionsError(
                    f"{name}: {token!r} matches no node of the dbt project.\n"
                    f"  {suggest(token.strip('+@'), known, 'node')}"
                )
    selected = _resolve(SELECT, options.select, options.exclude, dbt)
    chosen = [task for task in tasks if not selected.isdisjoint(task.nodes)]
    if not chosen:
        given = " and ".join(
            f"{name} {' '.join(tokens)!r}"
            for name, tokens in ((SELECT, options.select), (EXCLUDE, options.exclude))
            if tokens
        )
        raise OptionsError(
            f"{given} leave nothing of this pipeline to run.\n"
            "  ./orrery dbt ls --select shows what a selection matches."
        )
    ids = {task.task_id for task in chosen}
    return {task.task_id: _NOT_SELECTED for task in tasks if task.task_id not in ids} | reasons


def reason_to_skip(task: Any, options: RunOptions) -> str | None:
    """Why a run leaves a task of a DAG out, if it does; raises OptionsError for a mistaken choice."""
    dag = task.get_dag()
    tasks = [other for other in dag.tasks if hasattr(other, "nodes")] if dag else [task]
    return left_out(tasks, options, Dbt(Project.find(), variables=options.variables)).get(task.task_id)


def _resolve(name: str, select: tuple[str, ...], exclude: tuple[str, ...], dbt: Dbt) -> set[str]:
    try:
        return dbt.select(select, exclude)
    except DbtError as error:
        told = f"{name}: dbt does not accept {' '.join(select)!r}: {error}"
        raise OptionsError(f"{told}\n  {SYNTAX}") from None


def _names(tasks: Iterable[NodeTask]) -> Mapping[str, None]:
    return {uid.split(".")[2]: None for task in tasks for uid in task.nodes if uid.count(".") >= 2}
