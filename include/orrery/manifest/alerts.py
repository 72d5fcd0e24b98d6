"""Who is told of what: the project's defaults in dbt_project.yml, and what dbt groups say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orrery.config.alerts import Alerts, GroupAlerts, GroupMeta
from orrery.config.document import read_document
from orrery.config.errors import ConfigError, Problem
from orrery.config.loader import LoadedPipeline, validate
from orrery.config.pipeline import Pipeline
from orrery.config.project import Project
from orrery.manifest.blocks import BlockReader

Resource = dict[str, Any]

# In dbt_project.yml.
_DEFAULTS = ("vars", "orrery", "alerts")


def alert_defaults(project: Project) -> Resource | None:
    """The defaults of all pipelines, `vars: {orrery: {alerts: ...}}`; raises ConfigError.

    They are read from the file itself: dbt reads YAML 1.1, in which the key `on` is true.
    """
    path = project.dbt_dir / "dbt_project.yml"
    document = read_document(path, project.relative(path))
    found: Any = document.data
    for key in _DEFAULTS:
        found = found.get(key) if isinstance(found, dict) else None
    if found is None:
        return None
    validate(Alerts, document, _DEFAULTS, found)
    return dict(found)


def group_alerts(project: Project, groups: Iterable[Resource]) -> dict[str, Resource]:
    """What the groups say of alerts, by their names; raises ConfigError."""
    found: dict[str, Resource] = {}
    problems: list[Problem] = []
    for group in groups:
        config = group.get("config") or {}
        meta = (config.get("meta") or group.get("meta") or {}).get("orrery")
        if meta is None:
            continue
        try:
            alerts = BlockReader.of_group(project, group).meta(GroupMeta, meta).alerts
        except ConfigError as error:
            problems += error.problems
            continue
        if alerts is not None:
            found[group["name"]] = meta["alerts"]
    if problems:
        raise ConfigError(problems)
    return found


def effective_alerts(config: Pipeline, slim: Mapping[str, Any]) -> Alerts | None:
    """The alerts of a pipeline over the project's defaults; None when nobody is to be told of anything."""
    default = Alerts.model_validate(slim["alerts"]) if slim["alerts"] is not None else None
    group = slim["groups"].get(config.owner, {}).get("alerts") if config.owner else None
    alerts = config.alerts.over(default) if config.alerts else default
    if alerts is None or not alerts.on:
        return None
    if group and not (config.alerts and config.alerts.slack):
        # The pipeline's own word counts first, then its owner's, then the project's.
        route = GroupAlerts.model_validate(group).route(alerts.slack)
        alerts = alerts.model_copy(update={"slack": route})
    lead = alerts.slack or alerts.webhook or any(g.get("alerts") for g in slim["groups"].values())
    return alerts if lead else None


def alert_connections(config: Pipeline, slim: Mapping[str, Any]) -> dict[str, str]:
    """The Airflow connections through which a pipeline tells people, each with `slack` or `http`."""
    alerts = effective_alerts(config, slim)
    if alerts is None:
        return {}
    said = [group["alerts"] for group in slim["groups"].values() if group.get("alerts")]
    routes = [GroupAlerts.model_validate(each).slack for each in said]
    found = {route.connection: "slack" for route in (alerts.slack, *routes) if route}
    return found | ({alerts.webhook: "http"} if alerts.webhook else {})


def check_alerts(pipeline: LoadedPipeline, slim: Mapping[str, Any]) -> None:
    """Raise ConfigError for alerts that reach nobody, and for an sla that nobody is told of."""
    config, document = pipeline.config, pipeline.document
    alerts = effective_alerts(config, slim)
    if config.alerts and config.alerts.on and alerts is None:
        what = "nobody is told: there is neither slack nor webhook"
        fix = 'Write for example slack: "#data-alerts", or on: [] for no alerts.'
        raise ConfigError([document.problem(("alerts",), what, fix)])
    if config.sla and (alerts is None or "late" not in alerts.on):
        what = "nobody is told when a run is late"
        fix = "Add alerts with late among what is told (on), or remove sla."
        raise ConfigError([document.problem(("sla",), what, fix)])
