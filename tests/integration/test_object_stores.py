"""Landing zones in object stores: what holds for folders holds there, into a real PostgreSQL."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from botocore.exceptions import ClientError

from orrery.ingest import gcs, trigger
from orrery.ingest.errors import ChangedError, FileError, IngestError, SetupError
from orrery.ingest.landing import LandingFile, LandingZone
from orrery.ingest.stores import BLOCK
from orrery.ingest.trigger import FilesArrivedTrigger, LandingTrigger, digest
from services.object_store import GcsServer, S3Server
from support.hostile import CASES, PAIR, Case
from support.stores import (  # the fixtures are used by their names
    BUCKET,
    Remote,
    RemoteWarehouse,
    connect,
    gcs_server,
    known,
    s3_server,
)

__all__ = ["gcs_server", "known", "s3_server"]
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("resumed_at_once")]

# Long enough for many looks.
SILENCE = 0.3
NAMES = (
    "a b.csv", "ü/ß.csv", "[a]*.csv", "a.csv", "100%.csv", "100%25.csv", "a#b.csv", "a?b.csv", "a+b.csv",
    "a&b=c.csv", "a'b\"c.csv", "deep/er/x.csv", "a;b,c~.csv",
)  # fmt: skip


@pytest.fixture(params=["s3", "gs"])
def remote(
    request: pytest.FixtureRequest, s3_server: S3Server, gcs_server: GcsServer, known: None, tmp_path: Path
) -> Remote:
    """An empty prefix of a bucket."""
    if request.param == "s3":
        return Remote(s3_server, "s3://aws_events", tmp_path.name)
    return Remote(gcs_server, "gs://google_events", tmp_path.name)


@pytest.fixture
def warehouse(postgres_uri: str, tmp_path: Path, remote: Remote) -> Iterator[RemoteWarehouse]:
    """An empty schema, and a landing zone in a store."""
    made = RemoteWarehouse(postgres_uri, f"landing_{tmp_path.name}", tmp_path / "none", remote)
    made.columns = PAIR
    made.query(f'create schema "{made.schema}"')
    yield made
    made.query(f'drop schema "{made.schema}" cascade')


class Meddled(LandingZone):
    """A zone where something happens when a file has just been opened, or when some of it was read."""

    def __init__(self, uri: str, meddle: Callable[[], object], *, after: int | None = None) -> None:
        super().__init__(uri)
        self._meddle, self._after = meddle, after

    def open(self, file: LandingFile) -> Any:
        stream = super().open(file)
        if self._after:
            stream.read(self._after)
            stream.seek(0)
        self._meddle()
        return stream


# What is in the files


# What is in a file does not depend on where it lies: its name may, and whether it is read in order.
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.file != "a.csv" or case in CASES[::8]], ids=lambda case: case.name
)
def test_hostile_file(warehouse: RemoteWarehouse, case: Case) -> None:
    if "\n" in case.file and isinstance(warehouse.remote.server, S3Server):
        pytest.skip("the stand-in takes no name with a line break")
    warehouse.arrange(case)
    if case.error is not None:
        with pytest.raises(IngestError) as caught:
            warehouse.load()
        assert str(caught.value).startswith(case.error)
        return
    warehouse.load()
    assert warehouse.rows() == [*case.rows]
    assert warehouse.rejected() == [*case.rejected]
    warehouse.check_balance()
    assert warehouse.load() == []


def test_names_of_all_sorts(warehouse: RemoteWarehouse) -> None:
    warehouse.block = {"files": "**/*.csv", "after_load": "archive", "done_marker": ".done"}
    for number, name in enumerate(NAMES):
        warehouse.land(name, f"id,name\n{number},a\n")
        warehouse.land(f"{name}.done", "")
    assert sorted(each.file for each in warehouse.load()) == sorted(NAMES)
    assert sorted(row[0] for row in warehouse.rows()) == [*range(len(NAMES))]
    left = warehouse.remote.names()
    assert sorted(name.rpartition(".")[0] for name in left) == sorted(f"_archive/{name}" for name in NAMES)
    assert warehouse.load() == []


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.csv", ["a.csv", "b.csv"]),
        ("a.csv", ["a.csv"]),
        ("?.csv", ["a.csv", "b.csv"]),
        ("[b-z].csv", ["b.csv"]),
        ("in/*", ["in/a.csv"]),
        ("in/**", ["in/a.csv", "in/deep/a.csv"]),
        ("**/*.csv", ["a.csv", "b.csv", "in/a.csv", "in/deep/a.csv"]),
        ("*/*.csv", ["in/a.csv"]),
        ("i*/deep/a.csv", ["in/deep/a.csv"]),
        ("none/*.csv", []),
    ],
)
def test_patterns(remote: Remote, pattern: str, found: list[str], tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "b.txt", "in/a.csv", "in/deep/a.csv", "_archive/a.csv", "x_archive"):
        remote.put(name, name)
        path = tmp_path / "zone" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    # What stands for a folder in a store's own pages.
    remote.put("in/", "")
    assert [file.name for file in LandingZone(remote.uri).find(pattern)] == found
    assert [file.name for file in LandingZone(f"file://{tmp_path}/zone").find(pattern)] == found


# Files that do not stay as they are


def test_an_object_that_is_replaced_while_it_is_read(warehouse: RemoteWarehouse) -> None:
    small = "id,name\n1,a\n"
    # Of the first block, more is asked for when the object is another one already.
    large = "id,name\n" + "".join(f"{number},{number:0200}\n" for number in range(BLOCK // 150))
    for text, after in ((small, None), (large, 10)):
        warehouse.land("a.csv", text)
        meddled = Meddled(warehouse.remote.uri, lambda: warehouse.land("a.csv", small + "2,b\n"), after=after)
        with pytest.raises(FileError, match=r"^a.csv: changed while it was read\n  Write it"):
            warehouse.load(meddled)
        assert warehouse.rows() == []
        assert warehouse.ledger() == []
    warehouse.load()
    assert warehouse.rows() == [(1, "a"), (2, "b")]


def test_an_object_that_vanishes(warehouse: RemoteWarehouse) -> None:
    warehouse.land("a.csv", "id,name\n1,a\n")
    meddled = Meddled(warehouse.remote.uri, lambda: warehouse.remote.delete("a.csv"))
    with pytest.raises(FileError, match=r"^a.csv: has vanished while it was to be loaded"):
        warehouse.load(meddled)
    assert (warehouse.rows(), warehouse.ledger()) == ([], [])


@pytest.mark.parametrize("after_load", ["archive", "delete"])
def test_an_object_that_arrives_meanwhile_is_not_put_away(
    warehouse: RemoteWarehouse, after_load: str
) -> None:
    warehouse.block["after_load"] = after_load
    warehouse.land("a.csv", "id,name\n1,a\n")
    loader = warehouse.loader()
    loader.prepare()
    files = warehouse.zone.find("*.csv")
    assert len([*loader.load(files)]) == 1
    warehouse.land("a.csv", "id,name\n2,b\n")
    loader.put_away(files)
    assert warehouse.remote.get("a.csv") == b"id,name\n2,b\n"
    # Neither when it changes between the check and the move.
    zone = warehouse.zone
    zone.check_unchanged = lambda file: None  # type: ignore[method-assign]
    zone.put_away(files[0], after_load, None)
    assert warehouse.remote.names() == ["a.csv"]


@pytest.mark.parametrize("after_load", ["archive", "delete"])
def test_a_corrected_object_that_arrives_right_before_the_delete_is_loaded_later(
    warehouse: RemoteWarehouse, after_load: str
) -> None:
    """It arrives on the wire, behind the copy and all looks, with a marker that says it is complete."""
    warehouse.block |= {"after_load": after_load, "done_marker": ".done"}
    warehouse.land("a.csv", "id,name\n1,a\n")
    warehouse.land("a.csv.done", "")

    def correct() -> None:
        warehouse.land("a.csv", "id,name\n2,b\n")
        warehouse.land("a.csv.done", "")

    for of in ("a.csv.done", "a.csv"):
        with before_delete(warehouse.remote, of, correct):
            assert len(warehouse.load()) == 1
        left = [name for name in warehouse.remote.names() if not name.startswith("_archive/")]
        assert left == ["a.csv", "a.csv.done"]
        assert warehouse.remote.get("a.csv") == b"id,name\n2,b\n"
        if after_load == "archive" and of == "a.csv":
            # What was loaded is in the archive all the same.
            archived = [name for name in warehouse.remote.names() if name.startswith("_archive/")]
            assert b"id,name\n1,a\n" in [warehouse.remote.get(name) for name in archived]
        assert [each.file for each in warehouse.load()] == ["a.csv"]
        assert warehouse.rows() == [(2, "b")]
        assert [name for name in warehouse.remote.names() if not name.startswith("_archive/")] == []
        warehouse.land("a.csv", "id,name\n1,a\n")
        warehouse.land("a.csv.done", "")


@contextmanager
def before_delete(remote: Remote, name: str, meddle: Callable[[], object]) -> Iterator[None]:
    """Something happens once, when a store is just about to carry out a request to delete an object."""
    path = f"/{remote.prefix}/{name}"
    pending = [meddle]

    def arrived(method: str, url: str) -> None:
        if method == "DELETE" and unquote(url).partition("?")[0].endswith(path) and pending:
            pending.pop()()

    remote.server.on_request = arrived
    yield
    remote.server.on_request = None
    assert not pending, "nobody has deleted it"


@pytest.mark.parametrize("answer", [None, 501])
def test_a_store_that_knows_no_conditional_delete(
    s3_server: S3Server, known: None, tmp_path: Path, answer: int | None
) -> None:
    """It is asked once more right before; what arrives behind that look is all that could get lost."""
    remote = Remote(s3_server, "s3://aws_events", tmp_path.name)
    remote.put("a.csv", "1")
    zone = LandingZone(remote.uri)
    (file,) = zone.find("*.csv")
    client = zone._store._client  # type: ignore[attr-defined]
    remove = client.delete_object

    def without_condition(**request: Any) -> Any:
        if request.pop("IfMatch", None) and answer:
            raise ClientError({"Error": {"Code": "NotImplemented"}}, "DeleteObject")
        return remove(**request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "delete_object", without_condition)
        remote.put("a.csv", "2")
        with pytest.raises(ChangedError):
            zone._store.remove(file)
        assert remote.names() == ["a.csv"]
        zone._store.remove(zone.find("*.csv")[0])
        assert remote.names() == []


def test_a_corrected_and_a_repeated_object(warehouse: RemoteWarehouse) -> None:
    for text, loads in (("1,a", 1), ("1,a", 0), ("1,b", 1)):
        warehouse.land("a.csv", f"id,name\n{text}\n")
        assert len(warehouse.load()) == loads
    assert warehouse.rows() == [(1, "b")]
    assert warehouse.pending() == []


# How much is asked of a store


def test_a_look_at_many_objects_takes_few_requests(remote: Remote) -> None:
    count, complete = 1010, 20
    for number in range(count):
        remote.put(f"{number}.csv", "id\n1\n")
    for number in range(complete):
        remote.put(f"{number}.csv.done", "")
        remote.put(f"_archive/{number}.csv", "")
    zone = LandingZone(remote.uri)
    asked = requests_of(remote, zone)
    look = zone.look("**/*.csv", settle=timedelta(), done_marker=".done")
    assert (len(look.complete), look.unsettled) == (complete, [])
    # A page has 1,000; the archive is not looked at.
    assert 0 < len(asked()) <= 4
    assert all("delimiter" in request for request in asked())
    assert not [request for request in asked() if "_archive" in request]


def requests_of(remote: Remote, zone: LandingZone) -> Callable[[], list[str]]:
    """Tells what a zone has asked its store since now."""
    if isinstance(remote.server, GcsServer):
        seen = len(remote.server.requests)
        return lambda: remote.server.requests[seen:]  # type: ignore[union-attr]
    sent: list[str] = []
    client = zone._store._client  # type: ignore[attr-defined]
    client.meta.events.register("before-send.s3", lambda request, **_: sent.append(request.url))
    return lambda: sent


# Waiting


def test_triggers_see_what_arrives(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigger, "POLL_SECONDS", 0.01)
    remote.put("a.csv", "id\n1\n")

    async def first(events: Any, seconds: float = 60.0) -> bool:
        waiting = asyncio.ensure_future(anext(events))
        done, _ = await asyncio.wait([waiting], timeout=seconds)
        if not done:
            waiting.cancel()
        return bool(done)

    async def scenario() -> None:
        arrivals = FilesArrivedTrigger(remote.uri, "*.csv", 0.0, None).run()
        files = await asyncio.to_thread(lambda: LandingZone(remote.uri).find("*.csv"))
        arguments = LandingTrigger(remote.uri, "*.csv", 0.0, None, known=digest(files)).serialize()[1]
        assert await first(arrivals)
        assert not await first(LandingTrigger(**arguments).run(), SILENCE)
        remote.put("b.csv", "id\n2\n")
        assert await first(arrivals)
        assert await first(LandingTrigger(**arguments).run())
        # What is wrong, the task has to tell.
        assert await first(LandingTrigger(f"{remote.uri.partition('@')[0]}@none/x", "*", 0.0, None).run())
        assert not await first(FilesArrivedTrigger("s3://unknown@none/x", "*", 0.0, None).run(), SILENCE)

    asyncio.run(scenario())


# What is not set up


def test_what_is_missing(remote: Remote, known: None) -> None:
    scheme, _, rest = remote.uri.partition("://")
    connection = rest.partition("@")[0]
    with pytest.raises(SetupError) as caught:
        LandingZone(f"{scheme}://{connection}@no-such-bucket/in").find("*.csv")
    assert str(caught.value) == (
        f"{scheme}://{connection}@no-such-bucket/in: there is no bucket 'no-such-bucket'.\n"
        "  Create it, or correct the URI."
    )
    with pytest.raises(SetupError) as caught:
        LandingZone(f"{scheme}://nobody@{BUCKET}").find("*.csv")
    assert str(caught.value).startswith("Airflow has no connection 'nobody'.\n  Set AIRFLOW_CONN_NOBODY='")
    with pytest.raises(SetupError, match="names no Airflow connection and no bucket") as caught:
        LandingZone(f"{scheme}://key:se/cret@{BUCKET}").find("*.csv")
    assert "cret" not in str(caught.value)


class Refusing(BaseHTTPRequestHandler):
    """A store that lets nobody in."""

    def do_GET(self) -> None:
        s3 = "list-type" in self.path
        body = b"<Error><Code>AccessDenied</Code></Error>" if s3 else b'{"error": {"message": "no"}}'
        self.send_response(403)
        self.send_header("Content-Type", "application/xml" if s3 else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    """The URL of a store that refuses."""
    made = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()


@pytest.mark.parametrize("how", ["refused", "unreachable"])
def test_a_store_that_does_not_answer(
    remote: Remote, how: str, refusing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = refusing if how == "refused" else "http://127.0.0.1:1"
    scheme, server = remote.uri.partition("://")[0], remote.server
    body = dict(next(iter(server.connections().values())))
    body["extra"] = body["extra"].replace(server.url, url)
    connect(monkeypatch, {"lost": body})
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(gcs, "_RETRY", gcs._RETRY.with_timeout(0.1))
    with pytest.raises(IngestError) as caught:
        LandingZone(f"{scheme}://lost@{BUCKET}/in").find("*.csv")
    message = str(caught.value)
    assert message.startswith(f"{scheme}://lost@{BUCKET}/in: the store ")
    assert "asked by the Airflow connection 'lost'" in message
    assert isinstance(caught.value, SetupError) == (how == "refused")
    assert "stand-in" not in message
