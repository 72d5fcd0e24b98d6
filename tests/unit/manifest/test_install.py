"""dbt packages: installed when they can be, and no obstacle when they cannot."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from conftest import WriteProject, write_files
from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.manifest import install
from orrery.manifest.install import install_packages
from orrery.manifest.packages import installed, packages_folder

INSTALLER = {
    "dbt/packages/dbt_project.yml": (
        "name: installer\nversion: '1.0'\nprofile: tiny\n"
        "packages-install-path: \"{{ env_var('ORRERY_DBT_PACKAGES', 'dbt_packages') }}\"\n"
    )
}
HUB_PACKAGE = "packages: [{package: dbt-labs/dbt_utils, version: 1.3.0}]"


class Hub:
    """A hub on this machine, which has no package but knows that there should be."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status = 200
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.asked.append(self.path)
                self.send_response(hub.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    monkeypatch.setenv("DBT_PACKAGE_HUB_URL", f"http://127.0.0.1:{hub.server.server_port}/")
    yield hub
    hub.close()


def refuse(monkeypatch: pytest.MonkeyPatch, reason: str) -> list[tuple[Path, Path]]:
    """Let dbt deps fail for that reason; returns where from and where to it is then asked to install."""
    asked: list[tuple[Path, Path]] = []

    def run_deps(project: Project, installer: Path, folder: Path) -> str:
        asked.append((installer, folder))
        return reason

    monkeypatch.setattr(install, "_run_deps", run_deps)
    return asked


@pytest.mark.parametrize("listed", ["", "packages: []", "packages:", "# nothing\n"])
def test_nothing_listed_calls_nobody(write_project: WriteProject, hub: Hub, listed: str) -> None:
    project = write_project({**INSTALLER, "dbt/packages/packages.yml": listed})
    assert install_packages(project) is None
    assert hub.asked == []
    assert not packages_folder(project).exists()


def test_no_installer(write_project: WriteProject, hub: Hub) -> None:
    assert install_packages(write_project({})) is None
    assert hub.asked == []


def test_an_unreachable_hub_is_a_reason_and_no_delay(
    write_project: WriteProject, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "PROBE_SECONDS", 60.0)
    project = write_project({**INSTALLER, "dbt/packages/packages.yml": HUB_PACKAGE})
    hub.close()
    started = time.monotonic()
    assert install_packages(project) == "the package hub cannot be reached"
    assert time.monotonic() - started < 20

    # It is said once, and left alone for some hours, unless somebody asks for it.
    probed: list[str] = []
    monkeypatch.setattr(install, "why_unreachable", lambda package: probed.append(package) or "still not")
    assert install_packages(project) is None
    assert probed == []
    assert install_packages(project, again=True) == "still not"
    failed = project.target_dir / install.FAILED
    long_ago = time.time() - install.AGAIN_SECONDS - 1
    os.utime(failed, (long_ago, long_ago))
    assert install_packages(project) == "still not"
    # Another hub, or another list, is another attempt.
    monkeypatch.setenv("DBT_PACKAGE_HUB_URL", "http://127.0.0.1:2/")
    assert install_packages(project) == "still not"
    assert install_packages(project) is None
    (project.dbt_dir / "packages" / "packages.yml").write_text(f"{HUB_PACKAGE}\n# more\n")
    assert install_packages(project) == "still not"


def test_a_hub_that_swallows_packets_is_no_delay(
    write_project: WriteProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "PROBE_SECONDS", 0.2)
    # What it waits for when it is not told.
    monkeypatch.setattr(httpx, "get", partial(httpx.get, timeout=60.0))
    project = write_project({**INSTALLER, "dbt/packages/packages.yml": HUB_PACKAGE})
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("DBT_PACKAGE_HUB_URL", f"http://127.0.0.1:{server.getsockname()[1]}/")
        started = time.monotonic()
        assert install_packages(project) == "the package hub cannot be reached"
        assert time.monotonic() - started < 20


def test_a_reachable_hub_is_asked(
    write_project: WriteProject, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = refuse(monkeypatch, "no such package")
    project = write_project({**INSTALLER, "dbt/packages/packages.yml": HUB_PACKAGE})
    assert install_packages(project) == "no such package"
    assert hub.asked == ["/api/v1/dbt-labs/dbt_utils.json"]
    ((installer, folder),) = asked
    assert (installer, folder.parent) == (project.dbt_dir / "packages", project.dbt_dir)
    # Nothing is left of what was fetched.
    assert not packages_folder(project).exists()
    assert [path.name for path in project.dbt_dir.iterdir() if path.name.startswith(".")] == []

    hub.status = 404
    reason = "the package hub answers 404 for dbt-labs/dbt_utils"
    assert install_packages(project, again=True) == reason


def test_packages_that_are_there_are_used_as_they_are(write_project: WriteProject, hub: Hub) -> None:
    there = {"dbt/dbt_packages/dbt_utils/dbt_project.yml": "name: dbt_utils\nversion: '1.0'\n"}
    project = write_project({**INSTALLER, **there, "dbt/packages/packages.yml": HUB_PACKAGE})
    assert install_packages(project) is None
    assert hub.asked == []


@pytest.fixture
def with_local_package(write_project: WriteProject) -> Project:
    return write_project(
        {
            **INSTALLER,
            "dbt/packages/packages.yml": "packages: [{local: ../../helpers}]",
            "helpers/dbt_project.yml": "name: helpers\nversion: '1.0'\n",
            "helpers/macros/one.sql": "{% macro one() %}1{% endmacro %}",
        }
    )


def test_a_local_package_is_installed_once(
    with_local_package: Project, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = with_local_package
    assert install_packages(project) is None
    assert (project.dbt_dir / "dbt_packages" / "helpers" / "macros" / "one.sql").is_file()
    assert hub.asked == []

    # The second time there is nothing to do, until the list changes.
    refuse(monkeypatch, "called again")
    assert install_packages(project) is None
    listed = project.dbt_dir / "packages" / "packages.yml"
    listed.write_text(listed.read_text() + "\n# another line\n")
    assert install_packages(project) == "called again"


def test_a_local_package_that_needs_the_hub_is_no_delay_and_no_traceback(
    with_local_package: Project, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = with_local_package
    write_files(project.root, {"helpers/packages.yml": HUB_PACKAGE})
    # dbt itself says so in a traceback, after minutes: the hub's list of packages is no JSON.
    hub.status = 503
    reason = "the package hub answers 503 for dbt-labs/dbt_utils"
    assert install_packages(project) == reason
    assert install_packages(project) is None, "it is left alone for some hours"

    monkeypatch.setattr(install, "why_unreachable", lambda package: None)
    monkeypatch.setenv("DBT_PACKAGE_HUB_URL", "no address")
    reason = install_packages(project, again=True) or ""
    assert "Traceback" not in reason
    assert "no address" in reason
    assert len(reason) < 300


def test_what_dbt_refuses_is_the_reason(with_local_package: Project) -> None:
    listed = with_local_package.dbt_dir / "packages" / "packages.yml"
    listed.write_text("packages: [{local: ../../nowhere}]")
    reason = install_packages(with_local_package)
    assert reason is not None
    assert re.match(r"No dbt_project.yml found at expected path \S+/nowhere/dbt_project.yml Verify", reason)
    assert "\n" not in reason
    # It is tried again next time.
    assert install_packages(with_local_package) == reason


def test_the_folder_can_be_moved(with_local_package: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = with_local_package.root / "elsewhere"
    monkeypatch.setenv("ORRERY_DBT_PACKAGES", str(elsewhere))
    assert install_packages(with_local_package) is None
    assert (elsewhere / "helpers" / "dbt_project.yml").is_file()
    assert not (with_local_package.dbt_dir / "dbt_packages").exists()


def test_a_new_list_takes_the_place_of_the_old_one(with_local_package: Project) -> None:
    project = with_local_package
    assert install_packages(project) is None
    write_files(project.root, {"others/dbt_project.yml": "name: others\nversion: '1.0'\n"})
    (project.dbt_dir / "packages" / "packages.yml").write_text("packages: [{local: ../../others}]")
    assert install_packages(project) is None
    assert installed(project) == ["others"]


@pytest.mark.parametrize("name", ["packages.yml", "dependencies.yml"])
def test_a_list_of_packages_in_the_project_itself_is_sent_to_its_place(
    write_project: WriteProject, name: str
) -> None:
    project = write_project({**INSTALLER, f"dbt/{name}": HUB_PACKAGE})
    with pytest.raises(OrreryError) as caught:
        install_packages(project)
    assert str(caught.value).startswith(f"dbt/{name}: it lists packages that are not installed")
    assert "Move the list there. dbt/packages is a small dbt project of its own" in str(caught.value)
    # Somebody has installed it: dbt is content.
    (packages_folder(project) / "dbt_utils").mkdir(parents=True)
    assert install_packages(project) is None
