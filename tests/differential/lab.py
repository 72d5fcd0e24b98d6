"""Where cases are tried: a PostgreSQL, plain dbt in one process, Orrery and Airflow in another."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from differential.choices import Case, Choices
from differential.compare import Difference, Seen, compare, compare_tables, compare_warehouse
from differential.files import NAME, SEEN, SWITCH, files
from differential.hands import Hand, Handled
from differential.mutants import CHOSEN
from differential.oracle import Oracle, name_of
from differential.rest import Rest
from differential.servers import Server
from differential.stack_world import StackWorld
from differential.warehouse import contents, hooks, relation
from support.warehouse import postgres, query

_INCLUDE = Path(__file__).resolve().parents[2] / "include"
_AIRFLOW = """\
[core]
load_examples = False
plugins_folder = {plugins}
dags_are_paused_at_creation = False
simple_auth_manager_all_admins = True
[database]
sql_alchemy_conn = {sync}
sql_alchemy_conn_async = {async_}
sql_alchemy_pool_enabled = False
[scheduler]
use_job_schedule = False
[state_store]
backend = orrery.execute.state_store.NodeStateStore
[logging]
logging_level = WARNING
[api_auth]
jwt_secret = nothing secret: nobody can reach an api-server in this process, as there is none
[cosmos]
enable_telemetry = False
enable_dag_versioning = False
"""
# The schemas of the one case that is at work. dbt's memory of a parsed project is for one schema.
OURS, THEIRS = "ours", "dbts"
_REMEMBERED = "target/partial_parse.msgpack"
_NO_HUB = {"DBT_PACKAGE_HUB_URL": "http://127.0.0.1:9/"}


@dataclass
class Counts:
    """What has been compared so far."""

    cases: int = 0
    runs: int = 0
    nodes: int = 0
    hands: int = 0


@dataclass
class Lab:
    """The servers, and the folder of the projects.

    :param mutant: the name of a fault to put into Orrery (differential.mutants)
    :param stack: a running Orrery in place of the one that a server has
    """

    uri: str
    folder: Path
    mutant: str = ""
    stack: StackWorld | None = None
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(os.getpid() * 1000)
        self._home = self.folder / "airflow"
        self._servers: dict[str, Server] = {}
        self._bases: dict[tuple[str, str], Path] = {}
        parts = urlsplit(self.uri)
        self._address = {
            "host": parts.hostname or parse_qs(parts.query)["host"][0],
            "port": parts.port or 5432,
            "user": parts.username,
            "password": parts.password or "none",
            "dbname": parts.path.strip("/"),
        }

    def prepare(self) -> None:
        """Make Airflow's database."""
        name = f"airflow_{self.folder.name.replace('-', '_')}".lower()
        query_alone(self.uri, f"create database {name}")
        address = f"postgresql+{{}}://{self._address['user']}@/{name}?host={self._address['host']}"
        self._home.mkdir()
        (self._home / "airflow.cfg").write_text(
            _AIRFLOW.format(
                plugins=_INCLUDE / "plugins",
                sync=address.format("psycopg2"),
                async_=address.format("asyncpg"),
            ),
            "utf-8",
        )
        subprocess.run(
            [sys.executable, "-c", "from airflow.utils.db import initdb; initdb()"],
            env=self._server_environment() | {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(_INCLUDE)},
            check=True,
            capture_output=True,
        )

    @property
    def dbt(self) -> Server:
        """Plain dbt."""
        return self._server("differential.plain_dbt", (), {})

    @property
    def world(self) -> Server | StackWorld:
        """Orrery."""
        if self.stack:
            return self.stack
        return self._server("differential.orrery_world", (_INCLUDE,), self._server_environment())

    def _server(self, module: str, path: tuple[Path, ...], environment: Mapping[str, str]) -> Server:
        server = self._servers.get(module)
        if server is None or not server.alive:
            if server is not None:
                server.close()
            server = self._servers[module] = Server(module, path, environment)
        return server

    def _server_environment(self) -> dict[str, str]:
        return {"AIRFLOW_HOME": str(self._home), **_NO_HUB, CHOSEN: self.mutant}

    def close(self) -> None:
        """End the servers."""
        for server in self._servers.values():
            server.close()

    def remember(self, texts: Mapping[str, str], schema: str, *folders: Path) -> None:
        """Give copies of a project what dbt remembers of one that has the same settings and macros and no
        nodes.

        dbt would parse all of its own macros each time.
        """
        key = (texts["dbt_project.yml"], schema)
        if key not in self._bases:
            base = self._bases[key] = self.folder / f"base{len(self._bases)}"
            _write(
                base, {name: texts[name] for name in ("dbt_project.yml", "profiles.yml", "macros/all.sql")}
            )
            # What Orrery tells dbt is part of what dbt remembers.
            options = ["--profile", NAME, "--target", "dev"] if schema == OURS else []
            request = {"root": str(base), "journal": str(base / "journal"), "commands": [["parse", *options]]}
            (done,) = self.dbt.ask(request)["done"]
            assert done["success"], done
        for folder in folders:
            (folder / "target").mkdir()
            shutil.copyfile(self._bases[key] / _REMEMBERED, folder / _REMEMBERED)

    def differences(self, case: Case) -> list[Difference]:
        """Try a case: where Orrery shows something else than what plain dbt does."""
        number = next(self._numbers)
        self.counts.cases += 1
        self.counts.nodes += len(case.project.nodes)
        with _Try(self, case, number) as attempt:
            return attempt.differences()

    def after_hands(self, handled: Handled) -> list[Difference]:
        """Try a case on which hands are laid: what is not as it should be in the end."""
        number = next(self._numbers)
        self.counts.cases += 1
        self.counts.nodes += len(handled.case.project.nodes)
        with _Try(self, handled.case, number) as attempt:
            return attempt.after_hands(handled.hands)


class _Try:
    """One case: the copies of the project, the schemas, and the runs."""

    def __init__(self, lab: Lab, case: Case, number: int) -> None:
        self._lab, self._case = lab, case
        self._pipeline = f"p{number}"
        self._folder = lab.folder / f"case{number}"
        self._journal = self._folder / "orrery.jsonl"

    def __enter__(self) -> _Try:
        project = self._case.project
        self._clear()
        for schema in (OURS, THEIRS):
            query(self._lab.uri, _tables(schema, self._case))
        ours = self._folder / "orrery"
        _write(ours / "dbt", files(project, self._profile(OURS)))
        _write(ours / "dbt" / "pipelines", {f"{self._pipeline}.yml": self._case.pipeline.text()})
        (ours / "include").symlink_to(_INCLUDE)
        theirs = files(project, self._profile(THEIRS))
        _write(self._folder / "plain", theirs)
        ordered = files(project, self._profile(THEIRS), ordered=True)
        _write(self._folder / "ordered", ordered)
        self._lab.remember(theirs, THEIRS, self._folder / "plain", self._folder / "ordered")
        if not self._lab.stack:
            self._lab.remember(files(project, self._profile(OURS)), OURS, ours / "dbt")
        same = ordered == theirs
        self._oracle = Oracle(
            self._lab.dbt,
            self._case,
            self._folder / "plain",
            self._folder / ("plain" if same else "ordered"),
        )
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _clear(self) -> None:
        for schema in (OURS, THEIRS):
            for each in (schema, f"{schema}_extra"):
                query(self._lab.uri, f"drop schema if exists {each} cascade")

    def differences(self) -> list[Difference]:
        """What differs, in the first run in which something does."""
        opened = self._open()
        if "refused" in opened:
            return [Difference("refused", opened["refused"])]
        for choices in self._case.runs:
            found = self._run(choices, opened["tasks"])
            if found:
                return found
        return []

    def after_hands(self, hands: tuple[Hand, ...]) -> list[Difference]:
        """What is not as it should be after a run on which hands were laid."""
        opened = self._open()
        if "refused" in opened:
            return [Difference("refused", opened["refused"])]
        (choices,) = self._case.runs
        self._lab.counts.runs += 1
        self._lab.counts.hands += len(hands)
        self._journal.write_text("", encoding="utf-8")
        conf = choices.conf()
        answer = self._lab.world.ask(
            {"op": "run", "conf": conf, "hands": [hand.as_dict() for hand in hands]},
        )
        seen = self._seen(opened["tasks"], answer, swap=choices.swap)
        rest = Rest(seen)
        found = rest.differences()
        if found:
            return found
        query(self._lab.uri, f"update {THEIRS}.{SWITCH} set ok = 1")
        self._oracle.run(replace(choices, threads=4))
        sound = {name_of(uid) for task_id in rest.sound() for uid in seen.plan[task_id]["nodes"]}
        relations = {relation(node) for node in self._case.project.nodes if node.name in sound}
        theirs, ours = (
            {name: rows for name, rows in contents(self._lab.uri, schema).items() if name in relations}
            for schema in (THEIRS, OURS)
        )
        return compare_tables(theirs, ours)

    def _open(self) -> dict[str, Any]:
        """Let Orrery build its manifests, and make the DAG known."""
        return self._lab.world.ask(
            {
                "op": "open",
                "root": str(self._folder / "orrery"),
                "pipeline": self._pipeline,
                "journal": str(self._journal),
                "warehouse": {"address": self._lab._address, "schema": OURS},
            }
        )

    def _seen(self, plan: dict[str, Any], answer: dict[str, Any], *, swap: bool) -> Seen:
        swapped = {node.name for node in self._case.project.nodes if node.swap and swap}
        loose = _loose(plan, swapped)
        entries = [json.loads(line) for line in self._journal.read_text(encoding="utf-8").splitlines()]
        apart = self._case.pipeline.execute == "per_model"
        return Seen(plan, answer["ended"], answer["state"], answer["shown"], entries, loose, apart)

    def _run(self, choices: Choices, plan: dict[str, Any]) -> list[Difference]:
        self._lab.counts.runs += 1
        for schema in (OURS, THEIRS):
            query(self._lab.uri, f"update {schema}.{SWITCH} set ok = {int(choices.fixed)}")
            query(self._lab.uri, f"delete from {schema}.{SEEN}")
        self._journal.write_text("", encoding="utf-8")
        world = self._lab.world
        world.send({"op": "run", "conf": choices.conf(), "hands": []})
        right = self._oracle.run(choices)
        answer = world.answer()
        seen = self._seen(plan, answer, swap=choices.swap)
        found = compare(self._case, right, seen)
        if not right.refused:
            found += Rest(seen).differences()
        if self._case.project.fail_fast:
            # What dbt reaches before the first failure, and what it cancels then, is chance.
            return [each for each in found if each.kind in {"end", "run"}]
        if not seen.ended or right.refused:
            return found
        uri = self._lab.uri
        return found + compare_warehouse(
            right,
            (contents(uri, THEIRS), hooks(uri, THEIRS)),
            (contents(uri, OURS), hooks(uri, OURS)),
        )

    def _profile(self, schema: str) -> dict[str, object]:
        return {**self._lab._address, "schema": schema, "threads": 4}


def _loose(plan: dict[str, Any], swapped: set[str]) -> frozenset[str]:
    """The tasks of nodes that read something else in this run, themselves or through an ephemeral model."""
    loose = {tid for tid, task in plan.items() if {name_of(uid) for uid in task["nodes"]} & swapped}
    while True:
        markers = {tid for tid in loose if plan[tid]["kind"] == "marker"}
        more = {tid for tid, task in plan.items() if markers & set(task["upstream"])} - loose
        if not more:
            return frozenset(loose)
        loose |= more


def _tables(schema: str, case: Case) -> str:
    """What is there before dbt runs."""
    made = "".join(
        f"create table {schema}.{source.name} as select n as id, n::bigint as x, "
        "timestamp '2026-01-01' as at from generate_series(1, 3) as n;"
        for source in case.project.sources
        if not source.made_by
    )
    return (
        f"create schema {schema}; create table {schema}.{SEEN} (hook text, invocation text, seen text);"
        f"create table {schema}.{SWITCH} (ok int); insert into {schema}.{SWITCH} values (0); {made}"
    )


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def query_alone(uri: str, sql: str) -> None:
    """Run a statement that no transaction may hold."""
    import psycopg2

    link = psycopg2.connect(uri)
    try:
        link.autocommit = True
        link.cursor().execute(sql)
    finally:
        link.close()


@contextmanager
def lab(mutant: str = "") -> Iterator[Lab]:
    """A lab, on a PostgreSQL of its own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="differential-")))
        folder.chmod(0o755)
        uri = stack.enter_context(postgres(folder / "postgres"))
        # Nothing here outlives the machine.
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            query_alone(uri, f"alter system set {setting} = off")
        query_alone(uri, "select pg_reload_conf()")
        made = Lab(uri, folder, mutant)
        stack.callback(made.close)
        dbt = threading.Thread(target=lambda: made.dbt)
        dbt.start()
        made.prepare()
        dbt.join()
        yield made
