"""Everything that keeps pipelines from becoming DAGs, as one error."""

from __future__ import annotations

from orrery.config.errors import OrreryError
from orrery.config.loader import load_pipelines
from orrery.config.project import Project
from orrery.manifest.profile import ProfileError, read_profile
from orrery.manifest.store import ManifestError, ManifestStore
from orrery.plan.installed import absent, lacking
from orrery.plan.planner import plan_pipeline


def raise_problems(file: str) -> None:
    """Raise OrreryError with the messages of all broken pipelines, as `./orrery build` prints them."""
    messages = find_problems(Project.of_dag_file(file))
    if messages:
        raise OrreryError("\n\n".join(messages.values()))


def find_problems(project: Project) -> dict[str, str]:
    """The message of each broken pipeline by its name; "" stands for the whole project."""
    store = ManifestStore(project)
    pipelines = load_pipelines(project)
    messages = {name: str(error) for name, error in pipelines.broken.items()}
    profile = _problem_of_profile(project)
    try:
        store.check_current()
    except ManifestError as error:
        # A broken file has changed since the last build; mending it comes first, and says enough.
        return messages or {"": profile or str(error)}
    index = store.read_index() or {}
    if index.get("problem"):
        return {**messages, "": index["problem"]}
    if profile:
        return {**messages, "": profile}
    packages = absent()
    for name, pipeline in pipelines.valid.items():
        try:
            store.check(name)
        except ManifestError as error:
            messages[name] = str(error)
            continue
        if packages and (message := lacking(plan_pipeline(pipeline, store.read(name)), packages)):
            messages[name] = message
    return messages


def _problem_of_profile(project: Project) -> str:
    """Why dbt would find no target here, where settings may be missing that the build had; else empty."""
    try:
        read_profile(project)
    except ProfileError as error:
        return str(error)
    return ""
