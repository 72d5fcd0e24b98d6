"""What the import error of dags/orrery_problems.py says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orrery.manifest.store import ManifestStore
from orrery.plan.installed import absent
from orrery.plan.problems import find_problems
from orrery.plan.proof import proof

if TYPE_CHECKING:
    from orrery.config.project import Project


def problems(project: Project) -> list[str]:
    """What is wrong with the project and its pipelines, each cause once."""
    entries = ManifestStore(project).entries().values()
    known = proof()
    found = find_problems(project)
    if absent() or any(entry.manifest and entry.proof != known for entry in entries):
        # No build has tried these DAGs as they are made here.
        from orrery.render.loader import make_dags

        found += make_dags(project).problems.values()
    return list(dict.fromkeys(found))
