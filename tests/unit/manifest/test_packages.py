"""dbt packages: installed when they can be, and no obstacle when they cannot."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator

import pytest

from conftest import WriteProject
from orrery.config.project import Project
from orrery.manifest import packages
from orrery.manifest.packages import install_packages, packages_folder

INSTALLER = {
    "dbt/packages/dbt_project.yml": (
        "name: installer\nversion: '1.0'\nprofile: tiny\n"
        "packages-install-path: \"{{ env_var('ORRERY_DBT_PACKAGES', 'dbt_packages') }}\"\n"
    )
}
HUB_PACKAGE = "packages: [{package: dbt-labs/dbt_utils, version: 1.3.0}]"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A hub on this machine that anybody may call; nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        monkeypatch.setenv("DBT_PACKAGE_HUB_URL", f"http://127.0.0.1:{server.getsockname()[1]}/")
        yield server


def called(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize("listed", ["", "packages: []", "packages:", "# nothing\n"])
def test_nothing_listed_calls_nobody(write_project: WriteProject, hub: socket.socket, listed: str) -> None:
    project = write_project({**INSTALLER, "dbt/packages/packages.yml": listed})
    assert install_packages(project) is None
    assert not called(hub)
    assert not packages_folder(project).exists()


def test_no_installer(write_project: WriteProject, hub: socket.socket) -> None:
    assert install_packages(write_project({})) is None
    assert not called(hub)


def test_an_unreachable_hub_is_a_reason_and_no_delay(write_project: WriteProject, hub: socket.socket) -> None:
    project = write_project({**INSTALLER, "dbt/packages/packages.yml": HUB_PACKAGE})
    hub.close()
    started = time.monotonic()
    assert install_packages(project) == "the package hub cannot be reached"
    assert time.monotonic() - started < packages.PROBE_SECONDS + 1


def test_a_reachable_hub_is_asked(
    write_project: WriteProject, hub: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(packages, "_run_deps", lambda *folders: asked.append(folders) or "no such package")
    project = write_project({**INSTALLER, "dbt/packages/packages.yml": HUB_PACKAGE})
    assert install_packages(project) == "no such package"
    assert called(hub)
    assert asked == [(project.dbt_dir / "packages", project.dbt_dir / "dbt_packages")]


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
    with_local_package: Project, hub: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = with_local_package
    assert install_packages(project) is None
    assert (project.dbt_dir / "dbt_packages" / "helpers" / "macros" / "one.sql").is_file()
    assert not called(hub)

    # The second time there is nothing to do, until the list changes.
    monkeypatch.setattr(packages, "_run_deps", lambda *_: "called again")
    assert install_packages(project) is None
    listed = project.dbt_dir / "packages" / "packages.yml"
    listed.write_text(listed.read_text() + "\n# another line\n")
    assert install_packages(project) == "called again"


def test_what_dbt_refuses_is_the_reason(with_local_package: Project) -> None:
    listed = with_local_package.dbt_dir / "packages" / "packages.yml"
    listed.write_text("packages: [{local: ../../nowhere}]")
    reason = install_packages(with_local_package)
    assert reason is not None
    assert re.match(r"No dbt_project.yml found at expected path \S+/nowhere/dbt_project.yml Verify", reason)
    assert "\n" not in reason
    # It is tried again next time.
    assert install_packages(with_local_package) == reason


def test_the_folder_can_be_moved(
    write_project: WriteProject, hub: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(packages, "_run_deps", lambda *folders: asked.append(folders[1]) or "refused")
    project = write_project({**INSTALLER, "dbt/packages/packages.yml": HUB_PACKAGE})
    elsewhere = project.root / "elsewhere"
    monkeypatch.setenv("ORRERY_DBT_PACKAGES", str(elsewhere))
    install_packages(project)
    assert asked == [elsewhere]
