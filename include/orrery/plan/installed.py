"""What a pipeline needs of packages that an installation may do without."""

from __future__ import annotations

from importlib.util import find_spec

from orrery.plan.model import PipelinePlan

# By package: the module that tells whether it is there, and the kinds of work that need it.
_OPTIONAL = {
    "apache-airflow-providers-airbyte": ("airflow.providers.airbyte", {"airbyte"}),
    "apache-airflow-providers-cncf-kubernetes": (
        "airflow.providers.cncf.kubernetes",
        {"job", "spark", "pods"},
    ),
}


def absent() -> dict[str, set[str]]:
    """The packages that are not installed, with the kinds of work that need them; mostly there are none."""
    return {name: kinds for name, (module, kinds) in _OPTIONAL.items() if not _installed(module)}


def lacking(plan: PipelinePlan, packages: dict[str, set[str]]) -> str | None:
    """What to say of a pipeline that needs one of the absent packages; None when it needs none."""
    kinds = {task.work.kind for task in plan.tasks.values() if task.work}
    if plan.config.pods:
        kinds.add("pods")
    needed = sorted(name for name, those in packages.items() if kinds & those)
    if not needed:
        return None
    return (
        f"{plan.file}: the pipeline {plan.name} needs {', '.join(needed)}, which is not installed here.\n"
        "  Install it; for the image of the Dockerfile, leave it out of WITHOUT."
    )


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        # A package above it is not there either.
        return False
