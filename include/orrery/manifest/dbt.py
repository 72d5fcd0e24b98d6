"""dbt, called in this process."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.manifest import known_secrets, packages, plugins, quick_dbt, var_parsing
from orrery.manifest.dbt_environment import explained, hide_from_dbt
from orrery.manifest.exactly import exactly
from orrery.manifest.explain import could_not_parse, cycle
from orrery.manifest.last_good import last_good
from orrery.manifest.parse_cache import ParseCache
from orrery.manifest.profile import ProfileError, read_profile

if TYPE_CHECKING:
    from dbt.cli.main import dbtRunnerResult
    from dbt.contracts.graph.manifest import Manifest

log = logging.getLogger(__name__)

# What to read of a selection that dbt refuses.
SYNTAX = "See https://docs.getdbt.com/reference/node-selection/syntax"


class DbtError(OrreryError):
    """dbt refused a command; the text is dbt's own."""


class Dbt:
    """A dbt project whose parsed manifest is kept between commands.

    :param target_dir: dbt's target folder; by default the project's own
    :param variables: dbt's `--vars`, for parsing and for every command
    :param environment: environment variables of its commands
    :param base: the partial parse of a build to begin from; by default that of the last good one
    """

    def __init__(
        self,
        project: Project,
        *,
        target_dir: Path | None = None,
        variables: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        base: Path | None = None,
    ) -> None:
        self.project = project
        self.target_dir = target_dir or project.target_dir
        self.environment = dict(environment or {})
        self.variables = dict(variables or {})
        self._parses = ParseCache(project, self.variables, base)
        self._manifest: Manifest | None = None
        self._held: Any = None

    @property
    def manifest(self) -> Manifest:
        """The parsed project, which later commands share; they add the compiled SQL to it.

        Of a project that dbt cannot parse it is that of the last good build. Raises DbtError without one.
        """
        if self._manifest is None:
            try:
                self._manifest = self._parse()
            except DbtError as error:
                self._manifest = self._last_good(error)
        return self._manifest

    def _last_good(self, error: DbtError) -> Manifest:
        found = last_good(self.project, self.variables, self._variables_of_dbt())
        if found is None:
            raise error
        manifest, built_at = found
        log.warning("%s\nThis run goes on with the project as it was built at %s.", error, built_at)
        self.target_dir.mkdir(parents=True, exist_ok=True)
        manifest.writable_manifest().write(str(self.target_dir / "manifest.json"))
        return manifest

    def _variables_of_dbt(self) -> dict[str, str]:
        return packages.variables(self.project) | self.environment

    def parse(self) -> dict[str, Any]:
        """Parse the project and return the manifest as in manifest.json; raises DbtError."""
        written = self.target_dir / "manifest.json"
        # One of before must never be taken for the one of now.
        written.unlink(missing_ok=True)
        self._manifest = self._parse()
        return dict(json.loads(written.read_bytes()))

    def _parse(self) -> Manifest:
        if not (self.project.dbt_dir / "dbt_project.yml").is_file():
            raise DbtError(
                f"{self.project.relative(self.project.dbt_dir)}: there is no dbt_project.yml.\n"
                "  Put the dbt project into this folder."
            )
        try:
            with self._parses.parsing(self.target_dir):
                manifest: Manifest = self._invoke(["parse"])
        except (DbtError, ProfileError) as error:
            raise DbtError(could_not_parse(self.project, error)) from None
        if circle := cycle(self.project, manifest):
            raise DbtError(circle)
        return manifest

    def select(
        self, selection: tuple[str, ...], exclude: tuple[str, ...] = (), selector: str | None = None
    ) -> set[str]:
        """The unique ids of the nodes that dbt selects (`dbt ls`); raises DbtError (see SYNTAX).

        The values travel as keyword arguments: dbt would read options inside an argument list.
        """
        try:
            lines = self._invoke(
                ["ls"],
                select=selection,
                exclude=exclude,
                selector=selector,
                # Analyses, too, which it leaves out by default.
                resource_types=("all",),
                output="json",
                output_keys=("unique_id",),
            )
        except DbtError as error:
            raise DbtError(str(error).removeprefix("Runtime Error").strip()) from None
        return {json.loads(line)["unique_id"] for line in lines}

    def run(
        self, command: Sequence[str], callback: Callable[[Any], None], **arguments: Any
    ) -> dbtRunnerResult:
        """Run a command that may fail; `callback` gets all of dbt's events, from several threads at once."""
        return self._result(command, (callback,), **arguments)

    def call(self, macro: str) -> None:
        """Run a macro of the project (`dbt run-operation`); raises DbtError."""
        self._invoke(["run-operation", macro])

    def docs(self, unique_ids: Iterable[str]) -> Path:
        """Write the documentation as one HTML file, with a catalog of these nodes; raises DbtError.

        With a node that does not compile, it is without the compiled SQL.
        """
        made = self.target_dir / "static_index.html"
        made.unlink(missing_ok=True)
        known: Any = self.manifest
        selection = self.exactly(uid for uid in unique_ids if uid in known.nodes or uid in known.sources)
        failure: BaseException | None = None
        for compiled in (True, False):
            result = self._result(["docs", "generate"], (), static=True, compile=compiled, **selection)
            if made.is_file():
                return made
            failure = result.exception or failure
        raise DbtError(f"dbt docs generate: {str(failure or 'there is no document').strip()}")

    def exactly(self, unique_ids: Iterable[str]) -> dict[str, Any]:
        """Arguments that select these nodes and no other, of one command at a time."""
        return exactly(unique_ids, self.target_dir / "selected")

    def knows(self, unique_id: str) -> bool:
        """Whether there is such a node or source, with these vars."""
        manifest = self.manifest
        kinds = (manifest.nodes, manifest.sources, manifest.functions, manifest.unit_tests)
        return any(unique_id in kind for kind in kinds)

    @property
    def target(self) -> str:
        """The name of dbt's target."""
        return read_profile(self.project).target

    @property
    def adapter_type(self) -> str:
        """The kind of the warehouse as dbt names it (`postgres`, `bigquery`), after a command has run."""
        return str(self._adapter().type())

    @property
    def tells_changes(self) -> bool:
        """Whether the warehouse knows when a table has changed, after a command has run."""
        from dbt.adapters.capability import Capability

        return bool(self._adapter().supports(Capability.TableLastModifiedMetadata))

    def execute(self, sql: str, bindings: Sequence[Any]) -> None:
        """Run SQL in one transaction of its own, with the adapter and the rights of the last command.

        A command closes its connections; this opens one, and closes it. Raises DbtError when no command has
        run, and dbt's own errors; not for use while a command runs.
        """
        adapter = self._adapter()
        with adapter.connection_named("orrery"):
            adapter.add_query(sql, bindings=bindings, abridge_sql_log=True)
            adapter.commit_if_has_connection()

    def missing_tables(self, package: str) -> list[str]:
        """The unique ids of the models of a package that the warehouse has not, after a command has run.

        Raises DbtError and dbt's own errors; not for use while a command runs.
        """
        nodes: Any = self.manifest.nodes
        models = [
            node for uid, node in nodes.items() if uid.startswith("model.") and node.package_name == package
        ]
        adapter = self._adapter()
        there: set[tuple[str, str]] = set()
        with adapter.connection_named("orrery"):
            for database, schema in {(node.database, node.schema) for node in models}:
                relation = adapter.Relation.create(database=database, schema=schema)
                found = adapter.list_relations_without_caching(relation.without_identifier())
                there |= {(schema, each.identifier) for each in found}
        return [node.unique_id for node in models if (node.schema, node.alias) not in there]

    def rows(self, query: str, most: int, *, seconds: float) -> tuple[list[str], list[tuple[Any, ...]]]:
        """The names of the columns of a query, and at most so many rows; parses the project first.

        :param seconds: how long PostgreSQL may take
        Raises DbtError and dbt's own errors.
        """
        _ = self.manifest  # a command has to have run
        adapter = self._adapter()
        with adapter.connection_named("orrery"):
            if self.adapter_type == "postgres":
                adapter.execute(f"set statement_timeout = {int(seconds * 1000)}")
            limited = f"select * from (\n{query}\n) as orrery_sample limit {int(most)}"
            _, table = adapter.execute(limited, fetch=True)
            return [str(name) for name in table.column_names], [tuple(row) for row in table.rows]

    def hold_adapter(self, _event: Any = None) -> None:
        """Keep the adapter that dbt has now, or none; a callback of dbt, for a command that Cosmos runs.

        Cosmos takes the adapter away at the end of a command.
        """
        self._held = _current_adapter()

    def _adapter(self) -> Any:
        adapter = self._held or _current_adapter()
        if adapter is None:
            raise DbtError("dbt has no connection to the warehouse before its first command.")
        return adapter

    def _invoke(self, command: list[str], **arguments: Any) -> Any:
        errors: list[str] = []

        def keep(event: Any) -> None:
            if event.info.level == "error":
                errors.append(event.info.msg)

        result = self._result(command, (keep,), **arguments)
        if not result.success:
            # A macro that fails is no exception of dbt's.
            told = known_secrets.conceal(str(result.exception or "\n".join(errors))).strip()
            raise DbtError(explained(told) or f"dbt {command[0]} failed")
        return result.result

    def _result(
        self, command: Sequence[str], callbacks: Sequence[Callable[[Any], None]], **arguments: Any
    ) -> dbtRunnerResult:
        # dbt costs two seconds of imports; who only reads manifests does not pay them.
        from dbt.cli.main import dbtRunner

        quick_dbt.hurry()
        plugins.only_installed()
        project = self.project
        profile = read_profile(project)
        hide_from_dbt(project)
        var_parsing.watch()
        known_secrets.learn(project)
        options = [
            *("--profile", profile.name, "--target", profile.target),
            *("--project-dir", str(project.dbt_dir)),
            *("--profiles-dir", str(project.profiles_dir)),
            *("--target-path", str(self.target_dir)),
            *("--log-path", str(self.target_dir / "logs")),
            *("--log-level", "none", "--quiet", "--no-use-colors", "--no-send-anonymous-usage-stats"),
            "--partial-parse",
            # Whatever the project's flags say: what is read here is what dbt writes, but for lists.
            "--no-write-json" if command[0] == "ls" else "--write-json",
        ]
        if self.variables:
            arguments["vars"] = self.variables
        runner = dbtRunner(manifest=self._manifest, callbacks=list(callbacks))
        with packages.environment(self._variables_of_dbt()):
            return runner.invoke([*command, *options], **arguments)


def _current_adapter() -> Any:
    # dbt has no public way to it; it drops the adapter not before the next command begins.
    from dbt.adapters.factory import FACTORY

    return next(iter(FACTORY.adapters.values()), None)
