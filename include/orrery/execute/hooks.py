"""The on-run-start and on-run-end hooks of a build that takes several commands of dbt."""

from __future__ import annotations

import json
from typing import Any

from orrery.config.resources import ON_RUN_END, ON_RUN_START, OPERATION, type_of
from orrery.execute.elementary import is_to_blame, warn
from orrery.manifest.dbt import Dbt
from orrery.manifest.packages import ELEMENTARY, RESULTS


class Hooks:
    """Chooses which hooks run with the next command.

    Those of the project and of its packages run once: before the first command that builds, and, when all
    nodes have ended, in a command of their own. Those of Elementary belong to each command that builds: they
    collect its results, which no other command knows.

    :param elementary: whether Elementary's run at all
    """

    def __init__(self, dbt: Dbt, *, elementary: bool) -> None:
        self._dbt, self._elementary = dbt, elementary
        self._known: dict[str, Any] | None = None

    @property
    def _all(self) -> dict[str, Any]:
        if self._known is None:
            nodes: Any = self._dbt.manifest.nodes
            self._known = {uid: node for uid, node in nodes.items() if type_of(uid) == OPERATION}
        return self._known

    def due(self, when: str) -> tuple[str, ...]:
        """The unique ids of the hooks, but Elementary's, that run ON_RUN_START or ON_RUN_END."""
        return tuple(
            uid for uid, node in self._all.items() if when in node.tags and not _is_elementarys(node)
        )

    def choose(self, *, first: bool = False, last: bool = False, builds: bool = True) -> None:
        """Leave the hooks of the next command in dbt's manifest, and no others."""
        manifest: Any = self._dbt.manifest
        nodes = manifest.nodes
        # Elementary keeps the results of a command in dbt's graph, and expects another one for each command.
        manifest.flat_graph.pop(ELEMENTARY, None)
        hooks = self._all
        if self._elementary:
            # Those of an earlier command.
            (self._dbt.target_dir / "run_results.json").unlink(missing_ok=True)
        for uid, node in hooks.items():
            nodes.pop(uid, None)
            due = (first and ON_RUN_START in node.tags) or (last and ON_RUN_END in node.tags)
            if self._elementary and builds if _is_elementarys(node) else due:
                nodes[uid] = node

    def forgive(self, error: BaseException, *, begun: bool, ended: bool) -> bool:
        """Whether a hook of Elementary has failed and ended a command; then they do not run any more.

        dbt does not always tell which hook it was. But before any node, the command can do without them.

        :param begun: whether dbt has begun with a node
        :param ended: whether it is done with all of them
        """
        nodes: Any = self._dbt.manifest.nodes
        due = [uid for uid in self._all if uid in nodes and ON_RUN_END in nodes[uid].tags]
        forgiven = not begun or (ended and is_to_blame(due, self._results()))
        if not (self._elementary and forgiven) or self.culprit(error):
            return False
        warn(error)
        self._elementary = False
        # Its way to run tests does not work without its hooks.
        self._dbt.environment[RESULTS] = "0"
        return True

    def culprit(self, error: BaseException) -> str | None:
        """The unique id of the hook whose error it is, if that is a hook and none of Elementary's."""
        uid = getattr(getattr(error, "node", None), "unique_id", "")
        return uid if uid in self._all and not _is_elementarys(self._all[uid]) else None

    def _results(self) -> list[str]:
        try:
            results = json.loads((self._dbt.target_dir / "run_results.json").read_bytes())["results"]
        except FileNotFoundError:
            return []
        return [str(result["unique_id"]) for result in results]


def _is_elementarys(hook: Any) -> bool:
    return bool(hook.package_name == ELEMENTARY)
