"""What a failed task means: which node it is, whose it is, and what waits for it in vain."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from airflow.sdk import TriggerRule

from orrery.config.alerts import Alerts, GroupAlerts, Slack
from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.config.resources import NODE_TYPES, owner_name, type_of
from orrery.config.stages import BUILD
from orrery.manifest.store import ManifestStore

log = logging.getLogger(__name__)

Resource = dict[str, Any]

_BUILT = (*NODE_TYPES, "exposure")
_EMPTY: Resource = {"groups": {}, "nodes": {}, "sources": {}, "tests": {}, "exposures": {}, "runs": []}


@dataclass(frozen=True)
class Impact:
    """What a failure holds back: the number of nodes, and the names of the exposures that get no new data."""

    held_back: int
    exposures: tuple[str, ...]


class Scope:
    """The nodes and tasks of one pipeline, as a worker knows them.

    :param dag: the DAG, with Orrery's operators
    """

    def __init__(self, dag: Any, alerts: Alerts, owner: str | None) -> None:
        self.dag, self.alerts, self._owner = dag, alerts, owner

    @cached_property
    def slim(self) -> Resource:
        """The slim manifest; without one, messages say less."""
        try:
            return ManifestStore(Project.find()).read(self.dag.dag_id)
        except (OrreryError, OSError) as error:
            log.info("The manifest cannot be read, so alerts say less: %s", error)
            return _EMPTY

    @cached_property
    def resources(self) -> Mapping[str, Resource]:
        """Nodes, sources, tests and exposures by their unique ids."""
        runs = {entry["unique_id"]: entry for entry in self.slim["runs"]}
        return {**self.slim["nodes"], **self.slim["sources"], **self.slim["tests"], **runs}

    def nodes_of(self, task_id: str) -> list[Resource]:
        """The resources of a task; those that the manifest does not know are left out."""
        return [self.resources[uid] for uid in self._uids_of(task_id) if uid in self.resources]

    def parents_of(self, test: Resource) -> list[Resource]:
        """What a test reads, as far as the pipeline has it."""
        parents = test["depends_on"]["nodes"]
        return [self.resources[uid] for uid in parents if uid in self.resources]

    def group_of(self, task_id: str) -> str | None:
        """The dbt group of a task: that of its node, or of what it tests; else the pipeline's owner."""
        for node in self.nodes_of(task_id):
            related = [node, *(self.parents_of(node) if node["resource_type"] == "test" else ())]
            for each in related:
                group = each.get("config", {}).get("group")
                if group:
                    return str(group)
        return self._owner

    def owner_of(self, task_id: str | None) -> str | None:
        """Who owns a task, or the pipeline, by name."""
        group = self.group_of(task_id) if task_id else self._owner
        return owner_name(self.slim["groups"].get(group, {}).get("owner"), group)

    def route(self, task_id: str | None = None) -> Slack | None:
        """Where in Slack to tell of a task, or of the pipeline."""
        group = self.group_of(task_id) if task_id else None
        said = self.slim["groups"].get(group, {}).get("alerts") if group else None
        if said is None:
            return self.alerts.slack
        return GroupAlerts.model_validate(said).route(self.alerts.slack)

    def impact(self, task_id: str) -> Impact:
        """What the failure of a task holds back, by Airflow's own rules."""
        tasks = self._after(task_id)
        held = {uid for other in tasks for uid in self._uids_of(other) if type_of(uid) in _BUILT}
        touched = held | set(self._uids_of(task_id))
        for node in self.nodes_of(task_id):
            touched |= set(node["depends_on"]["nodes"]) if node["resource_type"] == "test" else set()
        exposures = [
            exposure["name"]
            for exposure in self.slim["exposures"].values()
            if not touched.isdisjoint(exposure["depends_on"]["nodes"])
        ]
        return Impact(len(held), tuple(exposures))

    def _after(self, task_id: str) -> set[str]:
        """The tasks that cannot run when one has failed: not those that run whatever happens."""
        found: set[str] = set()
        waiting = [task_id]
        while waiting:
            for other in self.dag.get_task(waiting.pop()).downstream_task_ids - found:
                if self.dag.get_task(other).trigger_rule not in _WHATEVER:
                    found.add(other)
                    waiting.append(other)
        return found

    def _uids_of(self, task_id: str) -> Iterable[str]:
        """The unique ids of what a task runs."""
        if task_id == BUILD:
            return ()
        task = self.dag.get_task(task_id)
        # A mapped task has not been made into one of its instances here.
        known = getattr(task, "nodes", None) or getattr(task, "partial_kwargs", {}).get("nodes", ())
        return tuple(known)


_WHATEVER = (TriggerRule.ALL_DONE, TriggerRule.ALL_DONE_SETUP_SUCCESS)
