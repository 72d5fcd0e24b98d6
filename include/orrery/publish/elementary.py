"""Elementary's report, made by its command-line tool `edr`."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.execute.elementary import make_tables, run_environment
from orrery.execute.options import RunOptions
from orrery.manifest.dbt import Dbt, DbtError
from orrery.manifest.dbt_environment import without_airflow
from orrery.manifest.packages import ELEMENTARY, packages_folder
from orrery.manifest.profile import read_profile
from orrery.manifest.store import PARTIAL_PARSE
from orrery.publish.docs import publishing_dbt

log = logging.getLogger(__name__)

# A macro of the dbt project: tells Elementary which models and tests there are.
UPLOAD = "upload_elementary_artifacts"
DAYS = 14
_TIMEOUT = 1800
_LINES = 20
# No network but the warehouse, and nothing for people at a terminal.
_SETTINGS = {
    "anonymous_usage_tracking": False,
    "disable_elementary_version_check": True,
    "disable_elementary_logo_print": True,
    "run_dbt_deps_if_needed": False,
}
# The report works without them; whoever reads it shall not be told of to anybody.
_FONTS = re.compile(r"<link[^>]*https://fonts\.[^>]*>")
# edr looks for a newer version of itself before it has read its arguments, unless the settings in the home
# folder forbid it; but the home of the machine's user, who may have credentials there, stays.
_START = """\
import os, sys
home = os.environ.get("HOME")
os.environ["HOME"] = os.path.dirname(sys.argv.pop(1))
import elementary.config.config
if home is None:
    del os.environ["HOME"]
else:
    os.environ["HOME"] = home
from elementary.cli.cli import cli
cli(prog_name="edr")
"""


# Airflow shows the report in a sandbox, where a page has no storage; without one the report stays empty.
_HEAD = "<head>"
_STORAGE = """<script>
(() => {
  const memory = () => {
    const kept = new Map();
    return {
      getItem: (key) => kept.get(String(key)) ?? null,
      setItem: (key, value) => void kept.set(String(key), String(value)),
      removeItem: (key) => void kept.delete(String(key)),
      clear: () => kept.clear(),
      key: (index) => [...kept.keys()][index] ?? null,
      get length() { return kept.size; },
    };
  };
  for (const name of ["localStorage", "sessionStorage"]) {
    try {
      window[name].length;
    } catch {
      Object.defineProperty(window, name, { value: memory() });
    }
  }
})();
</script>"""


class ReportError(OrreryError):
    """There is no report."""


def write_report(project: Project, ti: Any, options: RunOptions) -> Path:
    """One HTML file with what Elementary knows of all pipelines; raises DbtError and ReportError."""
    dbt = publishing_dbt(project, ti, options, ELEMENTARY, run_environment(ti, results=True))
    schema = elementary_schema(dbt)
    make_tables(dbt)
    dbt.call(UPLOAD)
    made = dbt.target_dir / "elementary.html"
    made.unlink(missing_ok=True)
    kept = project.target_dir / ELEMENTARY / PARTIAL_PARSE
    with tempfile.TemporaryDirectory(prefix="orrery-edr-") as name:
        folder = Path(name)
        for part in ("internal", ".edr"):
            (folder / part).mkdir()
        (folder / ".edr" / "config.yml").write_text(json.dumps(_SETTINGS), encoding="utf-8")
        write_profile(project, folder, schema)
        # edr's own dbt project takes seconds to parse, and is always the same.
        with suppress(FileNotFoundError):
            shutil.copy(kept, folder / "internal")
        said = _run_edr(project, folder, made)
        if not made.is_file():
            raise ReportError(f"edr report made no report:\n{said}")
        text = made.read_text(encoding="utf-8")
        made.write_text(_FONTS.sub("", text).replace(_HEAD, _HEAD + _STORAGE, 1), encoding="utf-8")
        with suppress(OSError):
            kept.parent.mkdir(exist_ok=True)
            shutil.move(folder / "internal" / PARTIAL_PARSE, kept)
    return made


def elementary_schema(dbt: Dbt) -> str:
    """The schema of Elementary's tables."""
    models: Any = dbt.manifest.nodes.values()
    schema = next((node.schema for node in models if node.package_name == ELEMENTARY), None)
    if schema is None:
        raise DbtError("Elementary is installed, but dbt does not know its models.\n  Run ./orrery build")
    return str(schema)


def write_profile(project: Project, folder: Path, schema: str) -> None:
    """Write the profile that edr wants, the project's own with another name and schema.

    Environment variables in it stay what they are, so no secret is written that is not in profiles.yml.
    """
    profile = read_profile(project)
    profiles = yaml.safe_load(profile.file.read_bytes())
    output = dict(profiles[profile.name]["outputs"][profile.target])
    output.pop("dataset" if "schema" in output else "schema", None)
    output["dataset" if "dataset" in output else "schema"] = schema
    content = {ELEMENTARY: {"target": profile.target, "outputs": {profile.target: output}}}
    path = folder / "profiles.yml"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def _run_edr(project: Project, folder: Path, made: Path) -> str:
    """Run `edr report`; returns the end of what it said."""
    options = {
        "profiles-dir": folder,
        "profile-target": read_profile(project).target,
        "config-dir": folder / ".edr",
        "target-path": folder,
        "file-path": made,
        "open-browser": "false",
        "env": read_profile(project).target,
        "days-back": DAYS,
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    settings = {
        "DBT_PACKAGES_FOLDER": str(packages_folder(project).absolute()),
        "EDR_INTERNAL_TARGET_PATH": str(folder / "internal"),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "0",
        "DO_NOT_TRACK": "1",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _START, str(folder / ".edr"), "report", *arguments],
            env=without_airflow(os.environ) | settings,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ReportError(f"edr report did not end within {_TIMEOUT} seconds.") from None
    log.info("%s", done.stdout)
    said = "\n".join(done.stdout.splitlines()[-_LINES:])
    if done.returncode:
        raise ReportError(f"edr report failed:\n{said}")
    return said
