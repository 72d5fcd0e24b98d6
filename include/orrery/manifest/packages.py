"""dbt packages, installed softly: an unreachable hub never stops a pipeline."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from orrery.config.project import Project

HUB = "https://hub.getdbt.com/"
PROBE_SECONDS = 3.0
INSTALL_SECONDS = 120


def install_packages(project: Project) -> str | None:
    """Install what dbt/packages/packages.yml lists, unless it is installed already.

    Returns None when everything listed is installed, else why not, in words. dbt loads whatever
    lies in the packages folder, so the main project works with and without them.
    """
    installer = project.dbt_dir / "packages"
    listed = _listed(installer)
    if not listed:
        return None
    folder = packages_folder(project)
    # The list is copied beside the packages once they are complete.
    stamp = folder / ".installed.yml"
    wanted = (installer / "packages.yml").read_bytes()
    if stamp.is_file() and stamp.read_bytes() == wanted:
        return None
    if any("package" in entry for entry in listed) and not _reachable(
        os.environ.get("DBT_PACKAGE_HUB_URL", HUB)
    ):
        return "the package hub cannot be reached"
    failure = _run_deps(installer, folder)
    if failure is None:
        stamp.write_bytes(wanted)
    return failure


def packages_folder(project: Project) -> Path:
    """Where dbt packages lie: ORRERY_DBT_PACKAGES, else dbt_packages in the dbt project."""
    configured = os.environ.get("ORRERY_DBT_PACKAGES", "dbt_packages")
    return project.dbt_dir / configured


def _listed(installer: Path) -> list[dict[str, Any]]:
    try:
        content = yaml.safe_load((installer / "packages.yml").read_bytes())
    except FileNotFoundError:
        return []
    return (content or {}).get("packages") or []


def _reachable(url: str) -> bool:
    # A hub that swallows packets would keep dbt waiting for minutes.
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=PROBE_SECONDS).close()
    except OSError:
        return False
    return True


def _run_deps(installer: Path, folder: Path) -> str | None:
    command = [str(Path(sys.executable).parent / "dbt"), "--quiet", "deps", "--project-dir", str(installer)]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "ORRERY_DBT_PACKAGES": str(folder)},
            cwd=installer,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"dbt deps did not end within {INSTALL_SECONDS} seconds"
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    said = [line for line in lines if line and "Encountered an error" not in line and line != "Runtime Error"]
    return " ".join(said) or "dbt deps failed"
