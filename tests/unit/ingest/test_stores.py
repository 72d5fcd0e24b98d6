"""A folder as a store: names that objects may have, and files may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from orrery.ingest.errors import FileError
from orrery.ingest.stores import open_store, write_bytes


@pytest.mark.parametrize(
    "name", ["../a.csv", "in/../../a.csv", "/a.csv", "in//a.csv", "./a.csv", "a\0.csv", ""]
)
def test_no_name_leads_out_of_a_folder(tmp_path: Path, name: str) -> None:
    """In a bucket `../a.csv` is a name like any other; as a path it would be somebody else's file."""
    (tmp_path / "a.csv").write_text("mine")
    store = open_store(f"file://{tmp_path}/zone/in")
    write_bytes(store, "b.csv", b"1", "text/csv")
    landed = store.stat("b.csv")
    assert landed is not None
    for attempt in (
        lambda: write_bytes(store, name, b"2", "text/csv"),
        lambda: store.delete(name),
        lambda: store.stat(name),
        lambda: store.move(landed, name),
    ):
        with pytest.raises(
            FileError, match="is no name of a file in a folder\n  Give the object another name"
        ):
            attempt()
    assert (tmp_path / "a.csv").read_text() == "mine"
    assert [file.name for file in store.glob("**")] == ["b.csv"]


def test_a_name_that_no_file_can_have_is_that_of_none(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}")
    assert store.stat("a" * 256) is None
    with pytest.raises(FileError, match="cannot be written: File name too long"):
        write_bytes(store, "a" * 256, b"1", "text/csv")


def test_what_is_between_its_place_and_its_end_is_no_file(tmp_path: Path) -> None:
    """A kill can leave it there: it was loaded, and nobody loads it again."""
    store = open_store(f"file://{tmp_path}")
    (tmp_path / ".orrery-0123").write_text("1")
    (tmp_path / "a.csv").write_text("1")
    assert [file.name for file in store.glob("*")] == ["a.csv"]
