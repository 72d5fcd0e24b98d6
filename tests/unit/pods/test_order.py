"""What travels to a pod arrives as it was."""

from __future__ import annotations

import re

from orrery.execute.assignment import Assignment
from orrery.execute.channel import Try
from orrery.execute.options import RunOptions
from orrery.plan.model import TaskKind, TaskPlan
from orrery.pods.order import Order


def task(task_id: str, *upstream: str, always: bool = False) -> TaskPlan:
    name = task_id.split(".")[1]
    return TaskPlan(
        task_id=task_id,
        stage="core",
        kind=TaskKind.MODEL,
        nodes=(f"model.shop.{name}",),
        upstream=frozenset(upstream),
        owner=None,
        doc="",
        always=always,
    )


def assignment(*tasks: TaskPlan, options: RunOptions = RunOptions()) -> Assignment:  # noqa: B008 - frozen
    return Assignment(
        dag_id="shop",
        run_id="manual__2026-01-31T00:00:00+00:00",
        log_url="https://airflow.example.com/dags/shop",
        tasks={each.task_id: each for each in tasks},
        options=options,
        tests="gate",
        stale="skip",
        elementary=True,
        keep_results=False,
        max_field_length=4096,
        selection={"select": ["tag:a"], "exclude": [], "selector": None},
    )


def test_an_order_arrives_as_it_was() -> None:
    options = RunOptions(
        select=("tag:a", "b+"),
        exclude=("c",),
        full_refresh=True,
        variables={"day": "2026-01-31", "text": "ünïcode '$(HOME)' \n"},
        skip_stages=frozenset({"seed", "tests"}),
        threads=8,
    )
    tasks = (task("core.a"), task("core.b", "core.a", always=True), task("core.c", "core.a", "core.b"))
    order = Order(assignment(*tasks, options=options), {"core.a": Try(1), "core.b": Try(3, last=False)})
    assert Order.of(order.arguments()) == order


def test_a_big_order_fits_into_arguments() -> None:
    # Names that do not compress well, as the worst case.
    names = [f"core.{hash((n, 'x')) & 0xFFFFFFFFFFFF:x}_{n:05}" for n in range(20_000)]
    order = Order(assignment(*(task(name) for name in names)), dict.fromkeys(names, Try(1)))
    arguments = order.arguments()
    assert len(arguments) > 1
    # Linux's limit for one, and what leaves room in Kubernetes' limit for an object.
    assert max(map(len, arguments)) < 131_072
    assert sum(map(len, arguments)) < 1_200_000
    # Nothing that Kubernetes would put a variable for.
    assert all(re.fullmatch(r"[\w=-]+", argument) for argument in arguments)
    assert Order.of(arguments) == order
