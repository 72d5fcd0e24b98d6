"""Tries DAGs for a build, in a process of its own: `python -m orrery.render.prove`.

It writes a line of JSON with what DAGs are made with here. Then it reads one, the files of the versions by
pipeline, and writes one, what is wrong by pipeline.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orrery.config.project import Project
from orrery.plan.proof import proof
from orrery.render.check import check_dag
from orrery.render.loader import LackingError, make_dag, why_not

if TYPE_CHECKING:
    from collections.abc import Mapping


def prove(project: Project, files: Mapping[str, Path]) -> dict[str, str]:
    """Make the DAGs of these versions, and check them; returns what is wrong, by pipeline."""
    found = {}
    for name, file in files.items():
        try:
            # With the task that others may wait for: that is the larger DAG.
            check_dag(make_dag(project, name, file, announced=True))
        except LackingError:
            # Airflow's own installation may have it; and if not, it says so.
            continue
        except Exception as error:
            found[name] = why_not(name, error)
    return found


def main() -> None:
    """Answer one request."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed
    print(json.dumps(proof()), file=answers, flush=True)
    request = sys.stdin.readline()
    if request:
        files = {name: Path(file) for name, file in json.loads(request).items()}
        print(json.dumps(prove(Project.find(), files)), file=answers, flush=True)


if __name__ == "__main__":
    main()
