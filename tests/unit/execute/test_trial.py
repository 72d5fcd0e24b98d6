"""Runs that `airflow tasks test` makes."""

from __future__ import annotations

from typing import cast

import pytest
from airflow.cli.commands.task_command import _generate_temporary_run_id
from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowSkipException

from orrery.config.publish import Publish
from orrery.execute.build import DbtBuildOperator
from orrery.execute.node import BuiltNodeOperator, PerModelOperator
from orrery.plan.model import PipelinePlan, TaskKind
from orrery.publish.operator import DocsOperator

OPERATORS: list[BaseOperator] = [
    DbtBuildOperator(task_id="build", plan=cast(PipelinePlan, None)),
    BuiltNodeOperator(task_id="core.a", kind=TaskKind.MODEL, stage="core", nodes=()),
    PerModelOperator(task_id="core.b", kind=TaskKind.MODEL, stage="core", nodes=()),
    DocsOperator(task_id="publish.docs", stage="publish", publish=Publish(), documented=()),
]


@pytest.mark.parametrize("task", OPERATORS, ids=lambda task: task.task_id)
def test_nothing_runs_beside_a_task_that_airflow_tests(task: BaseOperator) -> None:
    """Airflow's scheduler takes the run that `airflow tasks test` makes for one of its own."""
    context = cast(Context, {"run_id": _generate_temporary_run_id()})
    with pytest.raises(AirflowSkipException, match="for another task"):
        task.execute(context)
