"""The on-run-start and on-run-end hooks of a build that takes several commands of dbt."""

from __future__ import annotations

from typing import Any

from orrery.execute.elementary import is_to_blame
from orrery.manifest.dbt import Dbt
from orrery.manifest.packages import ELEMENTARY, RESULTS


class Hooks:
    """Chooses which hooks run with the next command.

    Those of the project and of its packages run once, before the first and after the last command of a
    build. Those of Elementary belong to each command that builds: they collect its results, which no other
    command knows.

    :param elementary: whether Elementary's run at all
    """

    def __init__(self, dbt: Dbt, *, elementary: bool) -> None:
        self._dbt, self._elementary = dbt, elementary
        self._all: dict[str, Any] | None = None

    def choose(self, *, first: bool = False, last: bool = False, builds: bool = True) -> None:
        """Leave the hooks of the next command in dbt's manifest, and no others."""
        manifest: Any = self._dbt.manifest
        nodes = manifest.nodes
        # Elementary keeps the results of a command in dbt's graph, and expects another one for each command.
        manifest.flat_graph.pop(ELEMENTARY, None)
        if self._all is None:
            self._all = {uid: node for uid, node in nodes.items() if uid.startswith("operation.")}
        for uid, node in self._all.items():
            nodes.pop(uid, None)
            due = (first and "on-run-start" in node.tags) or (last and "on-run-end" in node.tags)
            if self._elementary and builds if node.package_name == ELEMENTARY else due:
                nodes[uid] = node

    def forgive(self, error: BaseException) -> bool:
        """Whether Elementary's hooks have ended a command; then they do not run any more."""
        if not (self._elementary and is_to_blame(error)):
            return False
        self._elementary = False
        # Its way to run tests does not work without its hooks.
        self._dbt.environment[RESULTS] = "0"
        return True
