"""Everything that keeps pipelines from becoming DAGs, or from being those of the files, as one error."""

from __future__ import annotations

from orrery.config.errors import causes_of
from orrery.config.loader import load_pipelines
from orrery.config.project import Project
from orrery.manifest.profile import ProfileError, read_profile
from orrery.manifest.store import ManifestStore


def find_problems(project: Project) -> list[str]:
    """What is wrong with the project and its pipelines, each cause once: as `./orrery build` says it."""
    store = ManifestStore(project)
    index = store.index()
    pipelines = load_pipelines(project)
    causes = [*causes_of(pipelines.broken.values())]
    for name, entry in sorted(store.entries().items()):
        # A file that has been deleted since does not matter any more.
        causes += entry.trouble.causes if entry.trouble and name in pipelines.names else ()
    if index.trouble:
        causes += index.trouble.causes
    elif missing := _problem_of_profile(project):
        causes.append(missing)
    stale = store.why_stale()
    # A file that is broken has changed, too; what is wrong with it says enough.
    if stale and not causes:
        causes.append(stale)
    return list(dict.fromkeys(causes))


def _problem_of_profile(project: Project) -> str:
    """Why dbt would find no target here, where settings may be missing that the build had; else empty."""
    try:
        read_profile(project)
    except ProfileError as error:
        return str(error)
    return ""
