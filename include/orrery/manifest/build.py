"""Builds the manifests: one dbt parse, one dbt ls per selection, one slim manifest per pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orrery.config.document import Location
from orrery.config.errors import ConfigError, OrreryError, Problem, suggest
from orrery.config.loader import LoadedPipeline, load_pipelines
from orrery.config.project import Project
from orrery.config.resources import NODE_TYPES, type_of
from orrery.manifest import fingerprint
from orrery.manifest.alerts import alert_defaults, check_alerts, group_alerts
from orrery.manifest.blocks import check_template_of
from orrery.manifest.dbt import SYNTAX, Dbt, DbtError
from orrery.manifest.exposures import exposure_runs
from orrery.manifest.hints import similar_selection
from orrery.manifest.ingest import ingestions
from orrery.manifest.install import install_packages
from orrery.manifest.packages import ELEMENTARY, has_elementary
from orrery.manifest.profile import ProfileError
from orrery.manifest.slim import slim_manifest
from orrery.manifest.store import ManifestError, ManifestStore


@dataclass(frozen=True)
class Built:
    """What a build found: the number of nodes of each pipeline, or the error of each."""

    nodes: Mapping[str, int]
    errors: Mapping[str, OrreryError]


def build_manifests(
    project: Project, report: Callable[[str], None], *, fetch_packages: bool = False
) -> Built:
    """Build the manifests of all pipelines; a broken pipeline leaves the others built.

    With `fetch_packages` a hub of dbt packages that could not be reached lately is tried again. `report`
    gets a line of plain text per step. Raises ManifestError when dbt cannot parse the project at all; what
    is wrong is then stored as well, for Airflow to show.
    """
    store = ManifestStore(project)
    # Taken first: a file that is edited during the build makes the result stale, as it should.
    files = fingerprint.take(project)
    missing = install_packages(project, again=fetch_packages)
    if missing:
        report(f"dbt packages are not installed: {missing}; the pipelines run without them.")
    report("Parsing the dbt project.")
    dbt = Dbt(project)
    try:
        manifest = dbt.parse()
        store.keep_partial_parse()
    except (DbtError, ProfileError) as error:
        problem = f"dbt cannot parse {project.relative(project.dbt_dir)}:\n{error}"
        store.write_index(files, problem, {})
        raise ManifestError(problem) from None
    try:
        defaults = alert_defaults(project)
        alerts = group_alerts(project, manifest.get("groups", {}).values())
    except ConfigError as error:
        store.write_index(files, str(error), {})
        raise ManifestError(str(error)) from None
    pipelines = load_pipelines(project)
    nodes: dict[str, int] = {}
    errors: dict[str, OrreryError] = dict(pipelines.broken)
    for name, pipeline in pipelines.valid.items():
        try:
            slim = _resolve(pipeline, dbt, manifest)
            slim["alerts"] = defaults
            for group, block in alerts.items():
                slim["groups"][group]["alerts"] = block
            check_alerts(pipeline, slim)
            slim["ingest"] = ingestions(
                project,
                manifest["sources"],
                slim["sources"],
                full_refresh=pipeline.config.full_refresh,
            )
            slim[ELEMENTARY] = has_elementary(project)
            slim["runs"] = exposure_runs(project, manifest["exposures"], slim["nodes"], [*pipelines.names])
            _check_files(pipeline, slim)
            if pods := pipeline.config.pods:
                check_template_of(project, pods, pipeline.document.problem(("kubernetes",), "", ""))
        except ConfigError as error:
            errors[name] = error
            continue
        store.write(name, slim)
        nodes[name] = sum(len(slim[key]) for key in ("nodes", "sources", "tests"))
    texts = {name: str(errors[name]) if name in errors else None for name in pipelines.names}
    store.write_index(files, None, texts)
    return Built(nodes, errors)


def _resolve(pipeline: LoadedPipeline, dbt: Dbt, manifest: dict[str, Any]) -> dict[str, Any]:
    config, document = pipeline.config, pipeline.document
    problems = []
    groups = {group["name"] for group in manifest.get("groups", {}).values()}
    if config.owner is not None and config.owner not in groups:
        problems.append(
            document.problem(
                ("owner",),
                f"unknown dbt group {config.owner!r}",
                suggest(config.owner, groups, "group"),
                at_value=True,
            )
        )
    key = "select" if config.selector is None else "selector"
    resolver = _Resolver(pipeline, dbt, manifest, problems)
    selected = resolver.nodes((key,), config.select or (), exclude=config.exclude, selector=config.selector)
    stages = {
        stage: resolver.nodes(("stages", stage), selection) for stage, selection in config.stages.items()
    }
    problems += _overlaps(pipeline, stages)
    if problems:
        raise ConfigError(problems)
    elementary = config.publish is not None and config.publish.elementary
    slim = slim_manifest(_without_elementary(manifest, tests_too=not elementary), selected, stages)
    if not slim["nodes"] and not slim["sources"]:
        raise ConfigError([resolver.matches_nothing((key,), config.select or ())])
    return slim


def _without_elementary(manifest: dict[str, Any], *, tests_too: bool) -> dict[str, Any]:
    """The manifest without Elementary's models, which its hooks fill, and without its kinds of tests."""

    def is_left_out(node: Mapping[str, Any]) -> bool:
        is_test = (node.get("test_metadata") or {}).get("namespace") == ELEMENTARY
        return node["package_name"] == ELEMENTARY or (tests_too and is_test)

    nodes = {uid: node for uid, node in manifest["nodes"].items() if not is_left_out(node)}
    return {**manifest, "nodes": nodes}


def _check_files(pipeline: LoadedPipeline, slim: Mapping[str, Any]) -> None:
    """Raise ConfigError when files should start a pipeline that reads none."""
    if pipeline.config.on_files and not any(entry["kind"] == "files" for entry in slim["ingest"]):
        what = "no source of this pipeline says which files fill it"
        fix = "Add config.meta.orrery.ingest to a source, or choose another schedule."
        raise ConfigError([pipeline.document.problem(("schedule", "on"), what, fix)])


@dataclass(frozen=True)
class _Resolver:
    """Resolves the selections of one pipeline with dbt itself."""

    pipeline: LoadedPipeline
    dbt: Dbt
    manifest: Mapping[str, Any]
    problems: list[Problem]

    def nodes(
        self,
        location: Location,
        select: tuple[str, ...],
        *,
        exclude: tuple[str, ...] = (),
        selector: str | None = None,
    ) -> set[str]:
        """The nodes that dbt selects; what dbt refuses or finds empty is added to the problems."""
        try:
            found = self.dbt.select(select, exclude, selector)
        except DbtError as error:
            self.problems.append(
                self.pipeline.document.problem(
                    location, f"dbt does not accept this selection: {error}", SYNTAX, at_value=True
                )
            )
            return set()
        if not found:
            self.problems.append(self.matches_nothing(location, select))
        return found

    def matches_nothing(self, location: Location, select: tuple[str, ...]) -> Problem:
        """The problem of a selection that leaves nothing to run."""
        near = similar_selection(select, self.manifest)
        return self.pipeline.document.problem(
            location,
            "the selection matches no node of the dbt project",
            f"Did you mean {near!r}?" if near else "./orrery dbt ls --select shows what a selection matches.",
            at_value=True,
        )


def _overlaps(pipeline: LoadedPipeline, stages: Mapping[str, set[str]]) -> list[Problem]:
    owner: dict[str, str] = {}
    problems = []
    for stage, members in stages.items():
        # A path selects the tests of its nodes, too; they have stages of their own.
        for uid in sorted(uid for uid in members if type_of(uid) in NODE_TYPES):
            first = owner.setdefault(uid, stage)
            if first != stage:
                problems.append(
                    pipeline.document.problem(
                        ("stages", stage),
                        f"{uid} is in the stages {first!r} and {stage!r}",
                        "Make the selections of the stages disjoint.",
                    )
                )
                break
    return problems
