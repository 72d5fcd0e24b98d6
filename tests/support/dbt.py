"""dbt in a process of its own, for tests of warehouses: commands share one parsed project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

# Commands come in as lines of JSON; what became of their nodes goes out so.
_SERVE = """
import json, os, sys
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # whatever else is printed
from orrery.config.project import Project
from orrery.execute.results import read_results
from orrery.manifest.dbt import Dbt

dbt = Dbt(Project.find())
print(json.dumps({"nodes": {
    uid: [f"{node.schema}.{node.alias}", str(node.config.materialized), list(node.columns)]
    for uid, node in dbt.manifest.nodes.items() if node.resource_type in ("model", "seed", "snapshot")
}}), file=answers, flush=True)
for line in sys.stdin:
    command, arguments = json.loads(line)
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    for name in ("run_results.json", "sources.json"):
        (dbt.target_dir / name).unlink(missing_ok=True)
    told = []
    keep = lambda event: event.info.level == "error" and told.append(event.info.msg)
    result = dbt.run(command, keep, **arguments)
    results = {each.unique_id: [each.status, each.message] for each in read_results(dbt.target_dir)}
    told += [str(result.exception)] if result.exception else []
    print(json.dumps({"results": results, "errors": told}), file=answers, flush=True)
"""


class Node(NamedTuple):
    """A model, seed or snapshot: `<schema>.<name>`, how it is materialized, and its declared columns."""

    table: str
    kind: str
    columns: list[str]


class DbtSession:
    """dbt on a project; the commands of one session share its manifest, which has `nodes` by unique id."""

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            env={
                **os.environ,
                **environment,
                "ORRERY_PROJECT_DIR": str(root),
                "PYTHONPATH": str(root / "include"),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.nodes: dict[str, Node] = {}

    def run(self, *command: str, **arguments: Any) -> dict[str, str]:
        """Run a command; the statuses of its nodes by unique id. Fails with what dbt says of errors."""
        if not self.nodes:
            self.nodes = {uid: Node(*node) for uid, node in self._answer()["nodes"].items()}
        assert self._process.stdin
        print(json.dumps([command, arguments]), file=self._process.stdin, flush=True)
        answer = self._answer()
        assert not answer["errors"], "\n".join(answer["errors"])
        return {uid: status for uid, (status, _) in answer["results"].items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "dbt has ended"
        return dict(json.loads(line))
