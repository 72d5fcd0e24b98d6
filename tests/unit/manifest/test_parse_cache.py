"""Which partial parse a command begins from, and which ones are kept."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from conftest import BASE, WriteProject
from orrery.config.project import Project
from orrery.manifest import parse_cache, var_parsing
from orrery.manifest.parse_cache import ParseCache
from orrery.manifest.store import PARTIAL_PARSE, ManifestStore

# A parse is a text here; of `built`, and of all others, only `load` counts for all files.
BUILT = "built"


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The variables that count for all files."""
    names = {"load"}
    monkeypatch.setattr(var_parsing, "read_by_many", lambda path: frozenset(names) if names else None)
    return names


@pytest.fixture
def project(write_project: WriteProject, counting: set[str]) -> Project:
    """A project that is built."""
    made = write_project({f"dbt/target/orrery/{PARTIAL_PARSE}": BUILT})
    ParseCache(made).learn()
    return made


def run(project: Project, folder: Path, parsed: str = "", **variables: object) -> str:
    """What a run with these vars begins from; dbt parses, if `parsed` is given, and leaves that."""
    with ParseCache(project, variables).parsing(folder):
        before = (folder / PARTIAL_PARSE).read_text()
        if parsed:
            leave(folder, parsed)
    return before


def leave(folder: Path, parsed: str) -> None:
    path = folder / PARTIAL_PARSE
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(parsed)
    os.utime(path, ns=(before + 1_000_000_000,) * 2)


def parses(project: Project) -> Path:
    return project.manifest_dir / "parses"


def kept(project: Project) -> list[str]:
    return sorted(path.read_text() for path in parses(project).glob("*.msgpack"))


def test_commands_begin_from_the_build(project: Project, tmp_path: Path) -> None:
    for variables in ({}, {"day": 1}, {"uri": "s3://a"}):
        assert run(project, tmp_path / "run", "mine", **variables) == BUILT
    # What one makes of it is not seen by others.
    assert kept(project) == []
    assert ManifestStore(project).partial_parse.read_text() == BUILT


def test_a_parse_for_vars_that_count_for_all_files_is_shared(project: Project, tmp_path: Path) -> None:
    assert run(project, tmp_path / "a", "loaded", load=True, day=1) == BUILT
    assert run(project, tmp_path / "b", load=True, day=2) == "loaded"
    assert run(project, tmp_path / "c", load=False) == BUILT
    assert run(project, tmp_path / "d") == BUILT
    # Of an edited project, the newest is kept.
    assert run(project, tmp_path / "e", "edited", load=True) == "loaded"
    assert kept(project) == ["edited"]


def test_a_variable_that_turns_out_to_count_for_all_files_is_remembered(
    project: Project, tmp_path: Path, counting: set[str]
) -> None:
    counting.add("enabled")
    assert run(project, tmp_path / "a", "without", enabled=False) == BUILT
    assert run(project, tmp_path / "b", enabled=False, load=1) == BUILT
    assert run(project, tmp_path / "c", enabled=False, day=2) == "without"
    assert run(project, tmp_path / "d", enabled=True) == BUILT
    assert run(project, tmp_path / "e", day=1) == BUILT


def test_when_all_vars_count_each_set_has_a_parse(
    project: Project, tmp_path: Path, counting: set[str]
) -> None:
    counting.clear()
    assert run(project, tmp_path / "a", "one", day=1) == BUILT
    assert run(project, tmp_path / "b", "two", day=2) == BUILT
    assert run(project, tmp_path / "c", day=1) == "one"
    assert run(project, tmp_path / "d", day=2) == "two"
    assert run(project, tmp_path / "e") == BUILT


def test_another_profile_has_parses_of_its_own(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the profile that is made of an Airflow connection."""
    other = tmp_path / "profiles"
    other.mkdir()
    (other / "profiles.yml").write_text(BASE["dbt/profiles.yml"].replace("host: 127.0.0.1", "host: there"))
    monkeypatch.setenv("DBT_PROFILES_DIR", str(other))
    assert run(project, tmp_path / "a", "there") == BUILT
    assert run(project, tmp_path / "b") == "there"
    monkeypatch.delenv("DBT_PROFILES_DIR")
    assert run(project, tmp_path / "c") == BUILT


def test_of_several_that_need_the_same_one_parses_and_the_others_wait(
    project: Project, tmp_path: Path
) -> None:
    begun, go = threading.Event(), threading.Event()
    found: list[str] = []

    def first() -> None:
        with ParseCache(project, {"load": 1}).parsing(tmp_path / "first"):
            begun.set()
            go.wait()
            leave(tmp_path / "first", "loaded")

    one = threading.Thread(target=first)
    one.start()
    begun.wait()
    other = threading.Thread(target=lambda: found.append(run(project, tmp_path / "other", load=1)))
    other.start()
    # Others than these need not wait.
    assert run(project, tmp_path / "b", load=2) == BUILT
    assert run(project, tmp_path / "c") == BUILT
    assert other.is_alive()
    go.set()
    one.join()
    other.join()
    assert found == ["loaded"]


def test_a_parse_that_fails_is_not_kept(project: Project, tmp_path: Path) -> None:
    def fail() -> None:
        with ParseCache(project, {"load": 1}).parsing(tmp_path):
            leave(tmp_path, "half")
            raise ValueError("syntax")

    with pytest.raises(ValueError, match="syntax"):
        fail()
    assert kept(project) == []
    assert run(project, tmp_path / "again", load=1) == BUILT


def test_the_parses_that_are_used_stay(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parse_cache, "KEPT", 2)
    for number in range(3):
        run(project, tmp_path / "run", str(number), load=number)
        for path in parses(project).glob("*.msgpack"):
            age = 100 - int(path.read_text())
            os.utime(path, (path.stat().st_mtime - age,) * 2)
        assert run(project, tmp_path / "run", load=0) == "0"
    assert kept(project) == ["0", "2"]


def test_values_of_which_most_come_once_leave_few_files(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parse_cache, "KEPT", 2)
    for number in range(600):
        run(project, tmp_path / "run", load=number)
    assert kept(project) == []
    assert len(list(parses(project).glob("*.lock"))) <= 256


def test_a_command_can_begin_from_another_parse(project: Project, tmp_path: Path) -> None:
    """As the vars of pipelines do while a build has not ended."""
    (tmp_path / "fresh").write_text("fresh")
    with ParseCache(project, {"day": 1}, tmp_path / "fresh").parsing(tmp_path / "a"):
        assert (tmp_path / "a" / PARTIAL_PARSE).read_text() == "fresh"
    run(project, tmp_path / "b", "loaded", load=1)
    with ParseCache(project, {"load": 1}, tmp_path / "fresh").parsing(tmp_path / "a"):
        assert (tmp_path / "a" / PARTIAL_PARSE).read_text() == "loaded"


def test_folders_with_parses_of_their_own_are_left_alone(project: Project) -> None:
    for folder in (project.target_dir, ManifestStore(project).parse_dir):
        folder.mkdir(exist_ok=True)
        (folder / PARTIAL_PARSE).write_text("own")
        assert run(project, folder, "more", load=1) == "own"
    assert kept(project) == []


@pytest.mark.parametrize("index", [None, b"", b"{"])
def test_without_a_build_dbt_parses(
    write_project: WriteProject, tmp_path: Path, counting: set[str], index: bytes | None
) -> None:
    project = write_project({})
    if index is not None:
        parses(project).mkdir(parents=True)
        (parses(project) / "index.json").write_bytes(index)
    with ParseCache(project, {"load": 1}).parsing(tmp_path):
        assert not (tmp_path / PARTIAL_PARSE).exists()
        leave(tmp_path, "loaded")
    assert kept(project) == []


def test_where_nobody_may_write_everyone_parses(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(parse_cache, "exclusively", refuse)
    monkeypatch.setattr(parse_cache, "write_whole", refuse)
    assert run(project, tmp_path / "a", "loaded", load=1) == BUILT
    assert run(project, tmp_path / "b", load=1) == BUILT
