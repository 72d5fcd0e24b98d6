"""Builds the manifests: one dbt parse, one dbt ls per selection, one version per pipeline."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from orrery.config.document import Location
from orrery.config.errors import ConfigError, OrreryError, Problem, causes_of, suggest
from orrery.config.loader import LoadedPipeline, Pipelines, load_pipelines
from orrery.config.project import Project
from orrery.config.resources import NODE_TYPES, type_of
from orrery.manifest import fingerprint
from orrery.manifest.alerts import alert_defaults, check_alerts, group_alerts
from orrery.manifest.blocks import check_template_of
from orrery.manifest.dbt import SYNTAX, Dbt, DbtError
from orrery.manifest.exposures import exposure_runs
from orrery.manifest.freshness import as_checked
from orrery.manifest.hints import similar_selection
from orrery.manifest.index import Index
from orrery.manifest.ingest import ingestions
from orrery.manifest.install import install_packages
from orrery.manifest.packages import ELEMENTARY, has_elementary
from orrery.manifest.parse_cache import ParseCache
from orrery.manifest.parses import Parses
from orrery.manifest.remarks import Remarks
from orrery.manifest.slim import slim_manifest
from orrery.manifest.store import PARTIAL_PARSE, ManifestError, ManifestStore, now
from orrery.manifest.versions import Prove, Versions


@dataclass(frozen=True)
class Built:
    """What a build found: the number of nodes of each good pipeline, and the error of each other one."""

    nodes: Mapping[str, int]
    errors: Mapping[str, OrreryError]


def build_manifests(
    project: Project,
    report: Callable[[str], None],
    *,
    fetch_packages: bool = False,
    only_if_stale: bool = False,
    prove: Prove | None = None,
) -> Built:
    """Build the manifests of all pipelines; those that are broken keep their last good version.

    With `fetch_packages` a hub of dbt packages that could not be reached lately is tried again; with
    `only_if_stale` nothing is done when another process has just built. `report` gets a line of plain text
    per step. Raises ManifestError when dbt cannot parse the project at all: then all pipelines stay as they
    were. What is wrong is stored as well, for Airflow to show.

    :param prove: tries the DAGs before they are used; without it, Airflow does so
    """
    store = ManifestStore(project)
    with store.lock(report):
        if only_if_stale and not store.must_build():
            return Built({}, {})
        started = now()
        # Taken first: a file that is edited during the build makes the result stale, as it should.
        files = fingerprint.take(project)
        try:
            pipelines = load_pipelines(project)
            parsed = _parse(project, store, report, fetch_packages=fetch_packages)
            slims, errors = _slim_manifests(project, pipelines, parsed)
            store.keep_partial_parses(parsed.parses.with_vars(store))
        except OrreryError as error:
            causes = causes_of([error])
            store.write_index(store.index().failed(causes, started, store.built_from(files)))
            raise ManifestError(str(error)) from None
        versions = Versions(store, started, prove)
        for name, slim in slims.items():
            versions.add(pipelines.valid[name], slim)
        errors |= versions.prove()
        built_from = store.built_from(files)
        good = {"at": started, "target": built_from["target"]}
        store.write_index(Index(built_from, good, None, versions.entries(pipelines.names, errors)))
        parsed.parses.tidy()
    for line in parsed.remarks.lines():
        report(line)
    return Built({name: _count(slim) for name, slim in slims.items() if name not in errors}, errors)


@dataclass(frozen=True)
class _Parsed:
    """The dbt project, what is to be told of it, and its alerts: the defaults, and those of groups."""

    parses: Parses
    remarks: Remarks
    alerts: dict[str, Any] | None
    group_alerts: Mapping[str, Any]


def _parse(
    project: Project, store: ManifestStore, report: Callable[[str], None], *, fetch_packages: bool
) -> _Parsed:
    """Parse the dbt project; raises DbtError, ProfileError, ConfigError."""
    missing = install_packages(project, again=fetch_packages)
    if missing:
        report(f"dbt packages are not installed: {missing}; the pipelines run without them.")
    report("Parsing the dbt project.")
    dbt = Dbt(project, target_dir=store.parse_dir)
    manifest = dbt.parse()
    ParseCache(project, base=store.parse_dir / PARTIAL_PARSE).learn()
    groups = manifest.get("groups", {}).values()
    parses = Parses(project, dbt, manifest)
    return _Parsed(parses, Remarks(project), alert_defaults(project), group_alerts(project, groups))


def _slim_manifests(
    project: Project, pipelines: Pipelines, parsed: _Parsed
) -> tuple[dict[str, dict[str, Any]], dict[str, OrreryError]]:
    """The slim manifest of each pipeline, or what is wrong with it; raises DbtError."""
    slims: dict[str, dict[str, Any]] = {}
    errors: dict[str, OrreryError] = dict(pipelines.broken)
    for name, pipeline in pipelines.valid.items():
        try:
            slims[name] = _slim(project, pipeline, parsed, pipelines.names)
        except ConfigError as error:
            errors[name] = error
    return slims, errors


def _slim(
    project: Project, pipeline: LoadedPipeline, parsed: _Parsed, names: Collection[str]
) -> dict[str, Any]:
    """The slim manifest of a pipeline with all that is said beside dbt's graph; raises ConfigError."""
    dbt, manifest = parsed.parses.of(pipeline)
    slim, selected = _resolve(pipeline, dbt, manifest)
    slim["alerts"] = parsed.alerts
    for group in parsed.group_alerts.keys() & slim["groups"].keys():
        slim["groups"][group]["alerts"] = parsed.group_alerts[group]
    check_alerts(pipeline, slim)
    parsed.remarks.check_freshness(pipeline, manifest, slim)
    slim["ingest"] = ingestions(
        project, manifest["sources"], slim["sources"], full_refresh=pipeline.config.full_refresh
    )
    slim[ELEMENTARY] = has_elementary(project)
    slim["runs"] = exposure_runs(project, manifest["exposures"], slim["nodes"], names)
    _check_files(pipeline, slim)
    if pods := pipeline.config.pods:
        check_template_of(project, pods, pipeline.document.problem(("kubernetes",), "", ""))
    parsed.remarks.take(pipeline, selected, manifest, slim)
    return slim


def _count(slim: Mapping[str, Any]) -> int:
    return sum(len(slim[key]) for key in ("nodes", "sources", "tests"))


def _resolve(pipeline: LoadedPipeline, dbt: Dbt, manifest: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The slim manifest of a pipeline, and all that it selects; raises ConfigError."""
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
    sources = as_checked(manifest["sources"], config.freshness, metadata=dbt.tells_changes)
    seen = {**_without_elementary(manifest, tests_too=not elementary), "sources": sources}
    slim = slim_manifest(seen, selected, stages)
    if not slim["nodes"] and not slim["sources"]:
        raise ConfigError([resolver.matches_nothing((key,), config.select or ())])
    return slim, selected


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
            # Not the fault of the selection when dbt accepts none at all.
            self.dbt.select(())
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
