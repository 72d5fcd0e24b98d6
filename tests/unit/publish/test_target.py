"""Where runs publish to: names, what is latest, and which runs are kept."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from orrery.config.publish import Publish
from orrery.config.stores import Place
from orrery.ingest.errors import IngestError
from orrery.publish.target import ARTIFACTS, PublishTarget, run_name

DAY = datetime(2026, 1, 31, 6, tzinfo=UTC)


def name(number: int) -> str:
    return run_name(f"manual__{number}", DAY + timedelta(hours=number))


def target(root: Path, number: int) -> PublishTarget:
    return PublishTarget(Place.parse(f"file://{root}"), name(number), {"run_id": f"manual__{number}"})


def files(root: Path) -> dict[str, str]:
    """What is in a folder, by name."""
    found = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_text() for path in found}


def test_names_sort_by_time_and_are_safe() -> None:
    east = timezone(timedelta(hours=9))
    assert run_name("scheduled__x", DAY.astimezone(east)) == run_name("scheduled__x", DAY)
    odd = run_name("../../a b/ü", DAY)
    assert odd.startswith("20260131T060000Z_")
    assert odd.isascii()
    assert not set(odd) & set("/ ")
    assert run_name("a b", DAY) != run_name("a_b", DAY)
    assert name(1) < name(2) < name(10)


def test_a_run_is_published_under_its_name_and_as_the_latest(tmp_path: Path) -> None:
    uri = target(tmp_path, 1).publish({"index.html": b"one"})
    assert uri == f"file://{tmp_path}/latest"
    assert files(tmp_path) == {
        f"runs/{name(1)}/index.html": "one",
        f"runs/{name(1)}/run.json": json.dumps({"run_id": "manual__1"}, indent=2),
        "latest/index.html": "one",
    }


def test_what_the_latest_run_has_not_is_not_the_latest(tmp_path: Path) -> None:
    target(tmp_path, 1).publish({"index.html": b"1"})
    target(tmp_path, 1).publish({"sources.json": b"1", "run_results.json": b"1"}, instead_of=ARTIFACTS)
    target(tmp_path, 2).publish({"run_results.json": b"2"}, instead_of=ARTIFACTS)
    latest = {key: text for key, text in files(tmp_path).items() if key.startswith("latest/")}
    assert latest == {"latest/index.html": "1", "latest/run_results.json": "2"}
    assert f"runs/{name(1)}/sources.json" in files(tmp_path)


def test_an_earlier_run_that_is_repeated_is_not_the_latest(tmp_path: Path) -> None:
    target(tmp_path, 2).publish({"index.html": b"2"})
    uri = target(tmp_path, 1).publish({"index.html": b"1"})
    assert uri == f"file://{tmp_path}/runs/{name(1)}"
    assert files(tmp_path)["latest/index.html"] == "2"


def test_the_newest_runs_are_kept_and_nothing_else_is_deleted(tmp_path: Path) -> None:
    strange = {
        "runs/notes.txt": "mine",
        "runs/2025/run.json": "mine",
        f"runs/{name(0)}x/index.html": "mine",
        # Called like a run, but no run has published it.
        f"runs/{run_name('other', DAY - timedelta(days=1))}/index.html": "mine",
        "elsewhere/index.html": "mine",
    }
    for path, text in strange.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    for number in range(4):
        target(tmp_path, number).publish({"index.html": b"x"})
    (tmp_path / "runs" / name(0) / "mine.txt").write_text("mine")
    assert target(tmp_path, 3).forget(2) == [name(1), name(0)]
    left = files(tmp_path)
    runs = {key.split("/")[1] for key, text in left.items() if key.startswith("runs/") and text == "x"}
    assert runs == {name(2), name(3)}
    assert {**strange, f"runs/{name(0)}/mine.txt": "mine"}.items() <= left.items()
    # An empty folder is of no use.
    assert not (tmp_path / "runs" / name(1)).exists()


def test_a_run_does_not_delete_itself(tmp_path: Path) -> None:
    for number in (3, 2, 1):
        target(tmp_path, number).publish({"index.html": b"x"})
    assert target(tmp_path, 1).forget(1) == [name(3), name(2)]
    assert f"runs/{name(1)}/index.html" in files(tmp_path)


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(IngestError, match=f"^file://{tmp_path}/runs/.*run.json: cannot be written: "):
        target(tmp_path, 1).publish({"index.html": b"x"})


def test_by_default_it_is_a_folder_of_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orrery.config.project import Project

    monkeypatch.setenv("ORRERY_TARGET_PATH", "made")
    place = Publish().place(Project(tmp_path), "shop")
    assert place.uri == f"file://{tmp_path}/dbt/made/published/shop"
    assert Publish(to="gs://reports/shop").place(Project(tmp_path), "shop").uri == "gs://reports/shop"


def test_environments_publish_beside_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also into a place of files that were published before the environments had names."""
    from orrery.config.project import Project

    def publish(pipeline: str, number: int) -> PublishTarget:
        place = Publish(to=f"file://{tmp_path}").place(Project(tmp_path / "project"), pipeline)
        made = PublishTarget(place, name(number), {})
        made.publish({"index.html": f"{pipeline} {number}".encode()})
        return made

    publish("shop", 1)
    for environment in ("dev", "prod"):
        monkeypatch.setenv("ORRERY_ENVIRONMENT", environment)
        for number in (2, 3):
            deleted = publish(f"shop_{environment}", number).forget(1)
        assert deleted == [name(2)]
    found = files(tmp_path)
    assert {key: text for key, text in found.items() if key.endswith(".html")} == {
        "latest/index.html": "shop 1",
        f"runs/{name(1)}/index.html": "shop 1",
        **{
            f"{environment}/{folder}/index.html": f"shop_{environment} 3"
            for environment in ("dev", "prod")
            for folder in ("latest", f"runs/{name(3)}")
        },
    }
