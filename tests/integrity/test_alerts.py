"""Pipelines with alerts: one more task, the same edges, and the same DAG whenever it is parsed."""

from __future__ import annotations

from typing import Any

from airflow.serialization.serialized_objects import DagSerialization

from integrity.conftest import load, silent
from orrery.alert.failure import FailureAlert
from orrery.config.project import Project
from orrery.manifest.build import build_manifests


def edges_of(dag: Any) -> dict[str, set[str]]:
    """What each task waits for."""
    return {task.task_id: set(task.upstream_task_ids) for task in dag.tasks}


def callbacks_of(task: Any) -> list[Any]:
    """What is called when a task fails."""
    found = task.partial_kwargs if hasattr(task, "partial_kwargs") else vars(task)
    return list(found.get("on_failure_callback") or ())


def test_every_pipeline_with_alerts(shipped: Any, copy: Project) -> None:
    settings = copy.dbt_dir / "dbt_project.yml"
    text = settings.read_text(encoding="utf-8")
    # All pipelines get them, and forex, whose big files are cut, publishes, too.
    assert "\nvars:\n" in text
    defaults = 'vars:\n  orrery: {alerts: {slack: "#data-alerts"}}\n'
    settings.write_text(text.replace("\nvars:\n", f"\n{defaults}", 1), encoding="utf-8")
    with (copy.pipelines_dir / "forex.yml").open("a", encoding="utf-8") as file:
        file.write('publish: {artifacts: false}\nsla: "07:00"\n')
    assert build_manifests(copy, silent).errors == {}
    found, again = load(copy.root), load(copy.root)
    assert set(found.dags) == set(shipped.dags)
    for name, dag in found.dags.items():
        edges = edges_of(dag)
        alert = edges.pop("alert")
        assert not any("alert" in upstream for upstream in edges.values())
        if name != "forex":
            assert edges == edges_of(shipped.dags[name])
        published = {task for task in edges if task.startswith("publish.")}
        last = edges.keys() - set().union(*(up for task, up in edges.items() if task not in published))
        assert alert == {*last, "build"} - published
        for task in dag.tasks:
            silent_one = task.task_id in ("alert", "finished", *published)
            silent_one |= getattr(task, "custom_operator_name", "") == "marker"
            assert [type(each) for each in callbacks_of(task)] == ([] if silent_one else [FailureAlert]), task
        assert DagSerialization.to_dict(dag) == DagSerialization.to_dict(again.dags[name])
    assert found.dags["forex"].deadline
    assert not found.dags["booking_analytics"].deadline


def test_nobody_else_pays_for_alerts(shipped: Any) -> None:
    for dag in shipped.dags.values():
        assert not dag.has_task("alert")
        assert not any(callbacks_of(task) for task in dag.tasks)
