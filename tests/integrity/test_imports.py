"""Imports run one way, and parsing the DAG file stays light."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import FOREIGN, write_files
from integrity.conftest import ROOT

PACKAGE = ROOT / "include" / "orrery"

# What each part may import of the others. A part that is not listed here has to be thought about.
PARTS = {
    "config": set(),
    "manifest": {"config"},
    "plan": {"config", "manifest"},
    # The operators know the kinds of tasks, and dbt's profile.
    "execute": {"config", "manifest", "plan"},
    # What a run leaves out is decided in one place for all kinds of tasks.
    "ingest": {"config", "manifest", "plan", "execute"},
    # It writes to the same stores as ingestions do.
    "publish": {"config", "manifest", "plan", "execute", "ingest"},
    # It tells what tasks have told in their XComs, through the same connections as ingestions.
    "alert": {"config", "manifest", "execute", "ingest"},
    # dbt in pods: what runs there and who follows it; clusters are reached as ingestions do it.
    "pods": {"config", "plan", "execute", "ingest"},
    "render": {"config", "manifest", "plan", "execute", "ingest", "publish", "alert", "pods"},
    # The stack is a component of its own; its errors are shown as all the others are.
    "local": {"config"},
    # The image takes the local stack's settings and roles; a worker leaves a sign of life.
    "deploy": {"config", "local", "execute"},
    # The summary reads the XCom that the operators write, the report their ledger; `run` passes choices on.
    "cli": {"config", "manifest", "local", "execute"},
    # The pages in Airflow show what all the others know, and what a run has left; they change nothing.
    "pages": {"config", "manifest", "plan", "execute", "publish"},
}
WITH_AIRFLOW = {"render", "execute", "ingest", "publish", "alert", "pods", "pages"}
# Single modules in place of a whole part.
ONLY = {
    ("execute", "manifest"): {
        "orrery.manifest",
        "orrery.manifest.dbt",
        "orrery.manifest.dbt_environment",
        "orrery.manifest.exactly",
        "orrery.manifest.known_secrets",
        "orrery.manifest.makers",
        "orrery.manifest.packages",
        "orrery.manifest.plugins",
        "orrery.manifest.profile",
        "orrery.manifest.store",
    },
    ("execute", "plan"): {"orrery.plan.model", "orrery.plan.objects"},
    ("deploy", "config"): {"orrery.config.project"},
    ("deploy", "execute"): {"orrery.execute"},
    ("deploy", "local"): {"orrery.local.layout", "orrery.local.roles", "orrery.local.settings"},
    ("local", "config"): {"orrery.config.errors"},
    # Files are loaded into the warehouse that dbt's target is.
    ("ingest", "manifest"): {"orrery.manifest.profile"},
    ("ingest", "plan"): {"orrery.plan.model", "orrery.plan.objects"},
    # They get there as dbt does: by the profile of a connection, which lies in the folder of the run.
    ("ingest", "execute"): {
        "orrery.execute.entry",
        "orrery.execute.profile",
        "orrery.execute.results",
        "orrery.execute.run_folder",
    },
    ("publish", "manifest"): {
        "orrery.manifest.dbt",
        "orrery.manifest.dbt_environment",
        "orrery.manifest.known_secrets",
        "orrery.manifest.packages",
        "orrery.manifest.profile",
        "orrery.manifest.store",
    },
    ("alert", "manifest"): {"orrery.manifest.dbt", "orrery.manifest.known_secrets", "orrery.manifest.store"},
    ("alert", "execute"): {
        "orrery.execute.ending",
        "orrery.execute.options",
        "orrery.execute.profile",
        "orrery.execute.results",
        "orrery.execute.run_folder",
        "orrery.execute.trial",
    },
    ("alert", "ingest"): {"orrery.ingest.connections", "orrery.ingest.http"},
    ("publish", "execute"): {
        "orrery.execute",
        "orrery.execute.elementary",
        "orrery.execute.ending",
        "orrery.execute.options",
        "orrery.execute.profile",
        "orrery.execute.results",
        "orrery.execute.run_folder",
        "orrery.execute.trial",
    },
    ("publish", "ingest"): {"orrery.ingest.errors", "orrery.ingest.stores"},
    ("cli", "execute"): {
        "orrery.execute",
        "orrery.execute.history",
        "orrery.execute.node_runs",
        "orrery.execute.options",
        "orrery.execute.results",
    },
    ("pages", "manifest"): {"orrery.manifest.profile", "orrery.manifest.store"},
    ("pages", "plan"): {"orrery.plan.planner"},
    ("pages", "execute"): {
        "orrery.execute",
        "orrery.execute.history",
        "orrery.execute.node_runs",
        "orrery.execute.options",
    },
    ("pages", "publish"): {"orrery.publish.reader", "orrery.publish.target"},
}


def imports(path: Path, *, at_run_time: bool = False) -> Iterator[tuple[int, str]]:
    """Line and name of every module that a file imports, inside functions too; or not for types only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if at_run_time:
        tree.body = [node for node in tree.body if not is_for_types(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            # `from orrery import plan` imports a part, too.
            for name in node.names:
                module = str(node.module)
                yield node.lineno, f"{module}.{name.name}" if module == "orrery" else module


def is_for_types(node: ast.stmt) -> bool:
    """Whether it is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def violations(package: Path) -> list[str]:
    """Every import that runs the wrong way."""
    found = []
    for path in sorted(package.rglob("*.py")):
        part = path.relative_to(package).parts[0]
        if part == "__init__.py":
            continue
        for line, name in imports(path):
            place = f"{path.relative_to(package)}:{line}: {name}"
            top, _, rest = name.partition(".")
            if top in ("airflow", "cosmos"):
                if part not in WITH_AIRFLOW:
                    found.append(place)
            elif top == "orrery" and rest and not rest.startswith("__version__"):
                other = rest.partition(".")[0]
                allowed = ONLY.get((part, other))
                if other != part and (other not in PARTS[part] or (allowed and name not in allowed)):
                    found.append(place)
    return found


def test_imports_run_one_way() -> None:
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == set(PARTS)
    assert violations(PACKAGE) == []


def importers_of_dbt(package: Path) -> set[str]:
    """The files that import dbt when they run."""
    return {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for _, name in imports(path, at_run_time=True)
        if name.partition(".")[0] == "dbt"
    }


def test_few_modules_import_dbt() -> None:
    # One that calls it, and one each for what is no public interface of dbt.
    inside = {
        *(
            "manifest/dbt_environment.py",
            "manifest/last_good.py",
            "manifest/plugins.py",
            "manifest/var_parsing.py",
        ),
        *("execute/dbt_graph.py", "execute/invocation.py"),
    }
    assert importers_of_dbt(PACKAGE) == {"manifest/dbt.py"} | inside


def test_only_what_runs_counts_as_an_import_of_dbt(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        {
            "types.py": "if TYPE_CHECKING:\n    from dbt.contracts.graph.manifest import Manifest",
            "function.py": "def f():\n    from dbt.cli.main import dbtRunner",
            "condition.py": "if sys.version_info > (3,):\n    import dbt.version",
            "other.py": "import dbt_common.events",
        },
    )
    assert importers_of_dbt(tmp_path) == {"function.py", "condition.py"}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config/x.py", "from orrery.manifest.store import ManifestStore"),
        ("config/x.py", "import orrery.plan.planner"),
        ("plan/x.py", "def f():\n    from airflow.sdk import DAG"),
        ("manifest/x.py", "def f():\n    import cosmos"),
        ("plan/x.py", "from orrery import render"),
        ("plan/x.py", "from orrery.execute.options import RunOptions"),
        ("local/x.py", "import airflow"),
        ("local/x.py", "from orrery.config.loader import load_pipelines"),
        ("cli/x.py", "from orrery.execute.node import DbtNodeOperator"),
        ("execute/x.py", "from orrery.render import load_dags"),
        ("execute/x.py", "from orrery.manifest.build import build_manifests"),
        ("execute/x.py", "from orrery.plan.planner import plan_pipeline"),
        ("pages/x.py", "from orrery.manifest.dbt import Dbt"),
    ],
)
def test_an_import_the_wrong_way_is_found(tmp_path: Path, file: str, text: str) -> None:
    write_files(tmp_path, {file: text, "render/fine.py": "import airflow\nfrom orrery.plan import planner"})
    (found,) = violations(tmp_path)
    assert found.startswith(f"{file}:")


# Runs a DAG file as Airflow does, and reports what it imported and where it connected to.
PROBE = """
import json, runpy, sys
import croniter  # asks the command `file` about the interpreter, once per process
calls = []
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        calls.append(event)
    elif event in ("subprocess.Popen", "os.system", "os.posix_spawn", "os.fork"):
        calls.append(event)
sys.addaudithook(hook)
made = runpy.run_path(sys.argv[2])
if sys.argv[1] == "break":
    import socket, dbt.cli.main
    socket.socket().connect_ex(("127.0.0.1", 1))
dags = sorted(name for name, value in made.items() if type(value).__name__ == "DAG")
dbt = sorted(name for name in sys.modules if name == "dbt" or name.startswith("dbt."))
print("\\n" + json.dumps({"dags": dags, "dbt": dbt, "calls": calls}))
"""


def probe(target: Path, mode: str) -> dict[str, list[str]]:
    """Load dags/orrery.py in a process of its own."""
    env = {key: value for key, value in os.environ.items() if key not in FOREIGN}
    env |= {
        "ORRERY_TARGET_PATH": str(target),
        "ORRERY_DBT_PACKAGES": str(target / "no_packages"),
        "PYTHONPATH": str(ROOT / "include"),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROBE, mode, str(ROOT / "dags" / "orrery.py")],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_parsing_imports_no_dbt_and_calls_nobody(shipped_target: Path) -> None:
    pipelines = sorted(path.stem for path in (ROOT / "dbt" / "pipelines").glob("*.yml"))
    assert probe(shipped_target, "keep") == {"dags": pipelines, "dbt": [], "calls": []}


def test_a_call_and_an_import_of_dbt_would_be_noticed(shipped_target: Path) -> None:
    found = probe(shipped_target, "break")
    assert "dbt.cli.main" in found["dbt"]
    assert "socket.connect" in found["calls"]
