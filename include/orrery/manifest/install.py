"""Installs dbt packages, softly: an unreachable hub never stops a pipeline."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.manifest.dbt_environment import without_airflow
from orrery.manifest.packages import installed, packages_folder, variables

HUB = "https://hub.getdbt.com/"
PROBE_SECONDS = 3.0
INSTALL_SECONDS = 120
# For how long a hub that could not be reached is left alone.
AGAIN_SECONDS = 6 * 3600
# The list of packages is copied beside them once they are complete, and to a file of the target folder
# when they could not be fetched.
STAMP = ".installed.yml"
FAILED = "packages_not_installed"


def install_packages(project: Project, *, again: bool = False) -> str | None:
    """Install what dbt/packages/packages.yml lists, unless it is installed already.

    Returns None when everything listed is installed, else why not, in words. Packages that somebody else
    has put into the folder are used as they are. dbt loads whatever lies there, so the main project works
    with and without them. A hub that could not be reached is not tried again for some hours, in which
    nothing is said of it either, but with `again`. Raises OrreryError for a list in the wrong place.
    """
    installer = project.dbt_dir / "packages"
    _check_place(project, installer)
    listed = _listed(installer)
    if not listed:
        return None
    wanted = (installer / "packages.yml").read_bytes()
    if _is_complete(project, wanted, len(listed)):
        return None
    failed = project.target_dir / FAILED
    if not again and _failed_lately(failed, wanted):
        return None
    hub = _from_hub(installer)
    reason = why_unreachable(hub) if hub else None
    reason = reason or _install(project, installer, wanted)
    failed.unlink(missing_ok=True)
    if reason and hub:
        failed.parent.mkdir(parents=True, exist_ok=True)
        failed.write_bytes(_attempt(wanted))
    return reason


def are_installed(project: Project) -> bool:
    """Whether all is there that dbt/packages/packages.yml lists."""
    installer = project.dbt_dir / "packages"
    listed = _listed(installer)
    return not listed or _is_complete(project, (installer / "packages.yml").read_bytes(), len(listed))


def _check_place(project: Project, installer: Path) -> None:
    """dbt refuses a project that lists packages which are not there; only the installer's are installed."""
    for name in ("packages.yml", "dependencies.yml"):
        path = project.dbt_dir / name
        count = len(_listed(project.dbt_dir, name))
        if count > len(installed(project)):
            place = project.relative(installer)
            raise OrreryError(
                f"{project.relative(path)}: it lists packages that are not installed, and Orrery "
                f"installs what {place}/packages.yml lists.\n"
                f"  Move the list there. {place} is a small dbt project of its own, so that yours works "
                "without a network, too: see docs/local.md."
            )


def _listed(folder: Path, name: str = "packages.yml") -> list[dict[str, Any]]:
    try:
        content = yaml.safe_load((folder / name).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return (content or {}).get("packages") or []


def _from_hub(installer: Path) -> str | None:
    """A package that the hub must have: listed, or listed by a local package; dbt waits for it for long."""
    seen: list[Path] = [installer]
    for folder in seen:
        listed: list[Any] = [*_listed(folder), *_listed(folder, "dependencies.yml")]
        # Of anything else dbt says what is wrong with it.
        for entry in (each for each in listed if isinstance(each, dict)):
            if "package" in entry:
                return str(entry["package"])
            # dbt takes all paths from its project.
            nested = (installer / str(entry.get("local", "."))).resolve()
            if nested not in seen:
                seen.append(nested)
    return None


def _is_complete(project: Project, wanted: bytes, count: int) -> bool:
    folder = packages_folder(project)
    stamp = folder / STAMP
    if stamp.is_file():
        return stamp.read_bytes() == wanted or not os.access(folder, os.W_OK)
    return len(installed(project)) >= count


def _attempt(wanted: bytes) -> bytes:
    """What was tried: another list, or another hub, is another attempt."""
    return _hub_url().encode() + b"\n" + wanted


def _failed_lately(failed: Path, wanted: bytes) -> bool:
    try:
        recent = time.time() - failed.stat().st_mtime < AGAIN_SECONDS
        return recent and failed.read_bytes() == _attempt(wanted)
    except FileNotFoundError:
        return False


def _hub_url() -> str:
    return os.environ.get("DBT_PACKAGE_HUB_URL") or HUB


def why_unreachable(package: str) -> str | None:
    """Ask the hub for a package, and do not wait: dbt would, for minutes, for one that swallows packets."""
    answers: list[str | None] = []

    def ask() -> None:
        try:
            httpx.get(f"{_hub_url()}api/v1/{package}.json", timeout=PROBE_SECONDS).raise_for_status()
            answers.append(None)
        except httpx.HTTPStatusError as error:
            answers.append(f"the package hub answers {error.response.status_code} for {package}")
        except (httpx.HTTPError, httpx.InvalidURL):
            answers.append("the package hub cannot be reached")

    # The look-up of a name knows no time limit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(2 * PROBE_SECONDS)
    return answers[0] if answers else "the package hub cannot be reached"


def _install(project: Project, installer: Path, wanted: bytes) -> str | None:
    """Fetch the packages beside their folder, so that there is never a part of them in it."""
    folder = packages_folder(project)
    fetched = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        failure = _run_deps(project, installer, fetched)
        if failure is None:
            (fetched / STAMP).write_bytes(wanted)
            _replace(folder, fetched)
        return failure
    except OSError as error:
        return f"{error.filename or folder}: {error.strerror}"
    finally:
        shutil.rmtree(fetched, ignore_errors=True)


def _replace(folder: Path, fetched: Path) -> None:
    # The folder itself stays: it may be a volume of a container.
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink()
    for new in sorted(fetched.iterdir(), key=lambda path: path.name == STAMP):
        shutil.move(new, folder / new.name)


def _run_deps(project: Project, installer: Path, folder: Path) -> str | None:
    command = [str(Path(sys.executable).parent / "dbt"), "--quiet", "deps", "--project-dir", str(installer)]
    settings = variables(project) | {"ORRERY_DBT_PACKAGES": str(folder.absolute())}
    try:
        done = subprocess.run(
            command,
            env=without_airflow(os.environ) | settings,
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
    # For what it does not expect, dbt adds a traceback.
    told, _, _ = (done.stdout + done.stderr).partition("Traceback (most recent call last)")
    lines = [line.strip() for line in told.splitlines()]
    said = [line for line in lines if line and "Encountered an error" not in line and line != "Runtime Error"]
    return " ".join(said) or "dbt deps failed"
