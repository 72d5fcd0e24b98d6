"""What `run`, `retry` and `up` do about manifests that do not fit."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from orrery.cli import session
from orrery.cli.session import NotReadyError, current_manifests
from orrery.config.project import Project
from support import manifests

STACK: Any = SimpleNamespace(dbt_env=dict)


@pytest.fixture
def built(shop: Project, monkeypatch: pytest.MonkeyPatch) -> list[Project]:
    """The projects whose manifests are built; so far they are current."""
    (shop.pipelines_dir / "broken.yml").unlink()
    manifests.keep(shop, {"shop": {"nodes": {}}})
    projects: list[Project] = []
    monkeypatch.setattr(session, "prover", lambda project, report: nullcontext())
    monkeypatch.setattr(
        session, "build_manifests", lambda project, report, **choices: projects.append(project)
    )
    return projects


def found(*, outdated: bool) -> Any:
    """A stack that runs."""
    return SimpleNamespace(outdated=outdated)


def test_manifests_are_built_for_another_target(
    shop: Project, built: list[Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    current_manifests(shop, STACK, found(outdated=False), print)
    assert built == []
    monkeypatch.setenv("DBT_TARGET", "bigquery")
    current_manifests(shop, STACK, found(outdated=False), print)
    assert built == [shop]


def test_a_stack_that_runs_keeps_the_manifests_of_its_target(
    shop: Project, built: list[Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORRERY_ENVIRONMENT", "prod")
    with pytest.raises(NotReadyError) as caught:
        current_manifests(shop, STACK, found(outdated=True), print)
    assert str(caught.value) == (
        "The manifest is not current: it was built without environment, here it is prod. The stack that runs "
        "keeps the target and the environment that it was started with.\n  Run ./orrery down first"
    )
    assert built == []


def test_an_edit_needs_no_new_stack(shop: Project, built: list[Project]) -> None:
    (shop.pipelines_dir / "shop.yml").write_text("select: b")
    current_manifests(shop, STACK, found(outdated=True), print)
    assert built == [shop]


@pytest.mark.parametrize("whole", [True, False])
def test_an_error_is_never_told_from_memory(shop: Project, built: list[Project], *, whole: bool) -> None:
    # What was wrong may lie beside the files, such as a variable that is set by now.
    if whole:
        manifests.fail(shop, "the environment variable X is not set")
    else:
        manifests.keep(shop, {}, {"shop": "the selection matches no node"})
    current_manifests(shop, STACK, found(outdated=False), print)
    assert built == [shop]
