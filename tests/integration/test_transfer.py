"""Objects from one store to another: all of them, as they are, and once."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from orrery.config.stores import Place
from orrery.config.transfer import Transfer
from orrery.execute.results import RESULT_KEY
from orrery.ingest import transfer as module
from orrery.ingest.errors import FileError
from orrery.ingest.stores import BLOCK, Digesting, open_store
from orrery.ingest.transfer import TransferOperator, transfer
from orrery.plan.model import Work
from services.object_store import GcsServer, S3Server
from support.stores import Remote, Task, context, gcs_server, known, s3_server

__all__ = ["gcs_server", "known", "s3_server"]
pytestmark = pytest.mark.integration
LARGE = os.urandom(1 << 20) * 10


class Local:
    """A folder, with what `Remote` has for a bucket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = f"file://{folder}"

    def put(self, name: str, content: bytes | str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def get(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def delete(self, name: str) -> None:
        (self.folder / name).unlink()

    def names(self) -> list[str]:
        files = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.as_posix() for path in files if path.parts[0] != "_orrery")


Side = Remote | Local
Make = Callable[[str, str], Side]


@pytest.fixture
def side(s3_server: S3Server, gcs_server: GcsServer, known: None, tmp_path: Path) -> Make:
    """Makes an empty place of a scheme."""

    def make(scheme: str, name: str) -> Side:
        if scheme == "file":
            (tmp_path / name).mkdir()
            return Local(tmp_path / name)
        server: Any = s3_server if scheme == "s3" else gcs_server
        connection = "s3://aws_events" if scheme == "s3" else "gs://google_events"
        return Remote(server, connection, f"{tmp_path.name}/{name}")

    return make


def block(source: Side, target: Side, pattern: str = "**", **more: Any) -> Transfer:
    return Transfer(transfer=f"{source.uri}/{pattern}", to=target.uri, **more)


def run(spec: Transfer, uri: str | None = None) -> tuple[list[str], int]:
    """What was copied, and how many were there already."""
    done = transfer(spec, spec.name_of(uri) if uri else None, lambda *_: None)
    assert done is not None
    return done.copied, done.skipped


@pytest.mark.parametrize("to", ["s3", "gs", "file"])
@pytest.mark.parametrize("source", ["s3", "gs", "file"])
def test_all_that_is_there_arrives_once(side: Make, source: str, to: str) -> None:
    here, there = side(source, "here"), side(to, "there")
    content = {
        "a b.jsonl": b"1", "ü/ß.jsonl": b"22", "[a]*.jsonl": b"333", "100%25.jsonl": b"4" * 9, "empty": b"",
        "in/a#b?c.jsonl": b"5", "large": LARGE, "block": b"x" * BLOCK, "twice": b"y" * 2 * BLOCK,
    }  # fmt: skip
    for name, data in content.items():
        here.put(name, data)
    spec = block(here, there)
    assert run(spec) == (sorted(content), 0)
    assert {name: there.get(name) for name in there.names()} == content
    assert run(spec) == ([], len(content))
    # Another content under the same name, of the same length; one that is gone; one that somebody changed.
    here.put("a b.jsonl", b"2")
    here.put("large", LARGE[1:] + b"!")
    there.delete("empty")
    there.put("block", b"z" * BLOCK)
    assert run(spec) == (["a b.jsonl", "block", "empty", "large"], len(content) - 4)
    assert there.get("a b.jsonl") == b"2"
    assert there.get("large") == LARGE[1:] + b"!"
    assert there.get("block") == content["block"]


def test_names_follow_the_last_folder_before_the_first_wildcard(side: Make) -> None:
    here, there = side("s3", "here"), side("gs", "there")
    for name in ("in/2026-01/a.jsonl", "in/2026-02/b.jsonl", "in/2026-02/c.csv", "other/d.jsonl"):
        here.put(name, name)
    spec = block(here, there, "in/2026-*/*.jsonl")
    assert run(spec) == (["2026-01/a.jsonl", "2026-02/b.jsonl"], 0)
    assert there.names() == ["2026-01/a.jsonl", "2026-02/b.jsonl"]
    assert spec.copy_of(f"{here.uri}/in/2026-02/b.jsonl") == f"{there.uri}/2026-02/b.jsonl"


def test_one_object(side: Make) -> None:
    here, there = side("s3", "here"), side("gs", "there")
    for name in ("a.jsonl", "b.jsonl", "c.csv"):
        here.put(name, name)
    spec = block(here, there, "*.jsonl")
    # As an event of the store has it.
    plain = re.sub("//.*@", "//", here.uri)
    assert run(spec, f"{plain}/b.jsonl") == (["b.jsonl"], 0)
    assert there.names() == ["b.jsonl"]
    assert run(spec, f"{here.uri}/b.jsonl") == ([], 1)
    with pytest.raises(module.IngestError, match=r"x.jsonl: there is no such object\.\n  Check the uri"):
        run(spec, f"{plain}/x.jsonl")


class Sabotage:
    """Does something when a store is asked for the second block of an object."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
        read = Digesting.read

        def meddled(stream: Digesting, size: int = -1) -> bytes:
            if stream.size >= BLOCK and not self.done:
                self.done = True
                act()
            return read(stream, size)

        self.done = False
        monkeypatch.setattr(Digesting, "read", meddled)


@pytest.mark.parametrize("to", ["s3", "gs", "file"])
@pytest.mark.parametrize("source", ["s3", "gs", "file"])
def test_an_object_that_changes_is_not_copied_in_halves(
    side: Make, source: str, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = side(source, "here"), side(to, "there")
    here.put("a", LARGE)
    there.put("a", b"old")
    sabotage = Sabotage(monkeypatch, lambda: here.put("a", LARGE[::-1]))
    with pytest.raises(FileError, match=r"^a: changed while it was read"):
        run(block(here, there))
    assert sabotage.done
    assert there.get("a") == b"old"
    # One that has vanished is another case.
    here.put("a", LARGE)
    Sabotage(monkeypatch, lambda: here.delete("a"))
    with pytest.raises(FileError, match=r"^a: has vanished"):
        run(block(here, there))
    assert there.get("a") == b"old"


@pytest.mark.parametrize("to", ["s3", "gs", "file"])
def test_what_arrives_as_something_else_is_found(
    side: Make, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = side("s3", "here"), side(to, "there")
    here.put("a", LARGE)
    store = type(open_store(there.uri))
    write = store.write

    def broken(self: Any, name: str, *arguments: Any) -> bool:
        write(self, name, *arguments)
        there.put(name, LARGE[:-1] + b"!")
        return False

    monkeypatch.setattr(store, "write", broken)
    with pytest.raises(FileError, match=r"^a: arrives at .* as something else"):
        run(block(here, there))
    assert there.names() == []
    # A store's own checksum is proof enough, and not taken for granted.
    monkeypatch.setattr(store, "write", write)
    digests: list[str] = []
    monkeypatch.setattr(
        module, "_content", lambda *_: digests.append("") or hashlib.sha256(LARGE).hexdigest()
    )
    assert run(block(here, there)) == (["a"], 0)
    assert len(digests) == (to == "file")


def test_kills_leave_nothing_that_looks_complete(side: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    here = side("gs", "here")
    content = {f"{number}": LARGE[number:] for number in range(4)}
    for name, data in content.items():
        here.put(name, data)
    for scheme in ("s3", "gs", "file"):
        there = side(scheme, f"there-{scheme}")
        spec = block(here, there)
        killed = 0
        for patience in (0.05, 0.15, 0.3):
            process = multiprocessing.get_context("fork").Process(target=run, args=(spec,))
            process.start()
            # There is nothing to wait for: any moment will do.
            process.join(patience)
            os.kill(process.pid, signal.SIGKILL) if process.is_alive() else None
            process.join()
            killed += process.exitcode == -signal.SIGKILL
            assert {name: there.get(name) for name in there.names()}.items() <= content.items()
        assert killed
        before = len(there.names())
        copied, skipped = run(spec)
        assert (len(copied), skipped) == (len(content) - before, before)
        assert {name: there.get(name) for name in there.names()} == content


def test_memory_does_not_grow_with_the_object(side: Make) -> None:
    code = (
        "import sys; from pathlib import Path; from orrery.config.transfer import Transfer\n"
        "from orrery.ingest.transfer import transfer\n"
        "for source in sys.argv[2:]:\n"
        "    transfer(Transfer(transfer=source, to=sys.argv[1]), None, print)\n"
        "    print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    here, there = side("s3", "here"), side("gs", "there")
    large = LARGE * 20
    here.put("small", LARGE)
    here.put("large", large)
    command = [sys.executable, "-c", code, there.uri, f"{here.uri}/small", f"{here.uri}/large"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    peaks = [int(line) / 1000 for line in done.stdout.splitlines() if line.isdigit()]
    print(f"peak memory in MB: {peaks}")
    assert there.get("large") == large
    assert len(large) > 200e6
    assert peaks[1] - peaks[0] < 60


def operator(spec: Transfer) -> TransferOperator:
    return TransferOperator(task_id="shop", stage="ingest", nodes=(), work=Work("transfer", spec, "shop"))


def test_the_task(side: Make) -> None:
    here, there, task = side("s3", "here"), side("gs", "there"), Task()
    spec = block(here, there, "*.jsonl", if_missing="skip")
    with pytest.raises(AirflowSkipException, match="No object matches"):
        operator(spec).execute(context(task))
    with pytest.raises(AirflowException, match="Put one there, or set if_missing: skip"):
        operator(block(here, there, "*.jsonl")).execute(context(task))
    assert task.xcoms[RESULT_KEY]["status"] == "error"
    for number in range(5):
        here.put(f"{number}.jsonl", "1")
    operator(spec).execute(context(task, uri=f"{here.uri}/3.jsonl"))
    assert task.xcoms[RESULT_KEY]["message"] == "1 objects with 1 bytes copied (3.jsonl)"
    operator(spec).execute(context(task, uri=None))
    assert task.xcoms[RESULT_KEY] == {
        "status": "success",
        "seconds": None,
        "rows_affected": None,
        "message": "4 objects with 4 bytes copied (0.jsonl, 1.jsonl, 2.jsonl, ...); 1 were there already",
        "nodes": [],
        "objects": 4,
        "bytes": 4,
        "skipped": 1,
    }
    lost = Transfer(transfer="s3://nobody@orrery-events/in/*", to=there.uri)
    with pytest.raises(AirflowFailException, match="Airflow has no connection 'nobody'"):
        operator(lost).execute(context(task))
    with pytest.raises(AirflowFailException, match="there is no bucket 'no-such-bucket'"):
        operator(Transfer(transfer=f"{here.uri}/*", to="gs://google_events@no-such-bucket")).execute(
            context(task)
        )


def test_two_transfers_at_once(side: Make) -> None:
    here, there = side("gs", "here"), side("file", "there")
    for number in range(10):
        here.put(f"{number}", LARGE[: 1 << 20])
    spec, failed = block(here, there), []

    def attempt() -> None:
        try:
            run(spec)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert {there.get(name) for name in there.names()} == {LARGE[: 1 << 20]}
    assert Place.parse(there.uri).uri == there.uri
