"""Connections of type http mean what they mean to Airflow's HttpHook, on real servers."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from orrery.config.exposure import HttpRun
from orrery.execute import entry
from orrery.ingest import exposure
from orrery.ingest.exposure import HttpOperator
from support.stores import Task, context

HUSH = "hush-hush-hush-hush"


class Web:
    """A server that tells what it was asked, and answers with the status that the path begins with."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _handler(web: Web) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                web.asked.append((self.command, self.path, headers, body))
                path = self.path.removeprefix("http://nowhere.invalid")
                if path == "/hang":
                    web.released.wait(60)
                status = int(path[1:4]) if path[1:4].isdigit() else 200
                self.send_response(status)
                if status // 100 == 3:
                    self.send_header("Location", f"/there?token={HUSH}")
                self.end_headers()
                self.wfile.write(f"you sent {headers.get('authorization')}".encode())

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _all_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "check_choices", lambda *_: entry)


def call(
    monkeypatch: pytest.MonkeyPatch,
    port: int,
    extra: dict[str, Any],
    http: dict[str, Any] | None = None,
    **known: Any,
) -> tuple[str, Any]:
    """Run the task of an exposure; its result, and its error."""
    body = {"conn_type": "http", "host": "127.0.0.1", "port": port, "login": "me", "password": HUSH, **known}
    monkeypatch.setenv("AIRFLOW_CONN_SERVICE", json.dumps({**body, "extra": json.dumps(extra)}))
    block = HttpRun.model_validate(
        {"http": {"connection": "service", "endpoint": "/refresh", **(http or {})}}
    )
    work: Any = SimpleNamespace(block=block, of="report")
    task = HttpOperator(task_id="t", stage="exposures", nodes=(), work=work)
    ti = Task()
    try:
        task.execute(context(ti))
    except AirflowException as error:
        return "", error
    return ti.xcoms["dbt"]["message"], None


def test_options_of_the_extra_are_no_headers(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {
        "verify": False, "cert": None, "proxies": {}, "timeout": 5, "allow_redirects": True,
        "max_redirects": 3, "trust_env": False, "check_response": True, "stream": False, "srv_lookup": False,
    }  # fmt: skip
    said, error = call(
        monkeypatch, web.port, {**options, "X-Team": "data", "X-Number": 7}, {"json": {"a": 1}}
    )
    assert (said, error) == ("POST /refresh: 200", None)
    ((method, path, headers, body),) = web.asked
    assert (method, path) == ("POST", "/refresh")
    sent = json.loads(body)
    assert {**sent, "pipeline": ""} == {"a": 1, "pipeline": "", "run_id": "test", "exposure": "report"}
    assert (headers["x-team"], headers["x-number"]) == ("data", "7")
    assert not set(options) & set(headers)
    assert headers["authorization"].startswith("Basic ")


def test_a_password_that_is_not_latin_1(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, web.port, {}, password="пароль")[1] is None
    assert web.asked[0][2]["authorization"] == "Basic bWU60L/QsNGA0L7Qu9GM"


def test_the_proxy_of_a_connection_is_asked(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"proxies": {"http": f"http://127.0.0.1:{web.port}"}}
    said, error = call(monkeypatch, 80, extra, host="nowhere.invalid")
    assert (said, error) == ("POST /refresh: 200", None)
    assert web.asked[0][1] == "http://nowhere.invalid:80/refresh"


def test_the_timeout_is_that_of_the_block_or_else_of_the_connection(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    for extra, http, seconds in (
        ({"timeout": 0.2}, {}, "0.2"),
        ({"timeout": 50}, {"timeout": "0.1s"}, "0.1"),
        ({"timeout": [50, 0.3]}, {}, "[50, 0.3]"),
    ):
        _, error = call(monkeypatch, web.port, extra, {"endpoint": "/hang", **http})
        assert str(error) == (
            f"POST /hang of the connection 'service' fails: no answer within {seconds} s\n"
            "  Check the connection, and the service."
        )


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_get_follows_redirects_and_others_fail(
    web: Web, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A POST would arrive as a GET without its body, and a 200 for that is no success."""
    said, error = call(monkeypatch, web.port, {}, {"endpoint": f"/{status}", "method": "GET"})
    assert (said, error) == (f"GET /{status}: 200", None)
    assert [path for _, path, _, _ in web.asked] == [f"/{status}", f"/there?token={HUSH}"]
    web.asked.clear()
    for http, extra in (
        ({"method": "POST"}, {}),
        ({"method": "PUT"}, {"allow_redirects": True}),
        ({"method": "GET"}, {"allow_redirects": False}),
    ):
        _, error = call(monkeypatch, web.port, extra, {"endpoint": f"/{status}", **http})
        assert str(error) == (
            f"{http['method']} /{status} of the connection 'service' is answered with {status}, a redirect to"
            f" http://127.0.0.1:{web.port}/there that is not followed: Set the host of the connection to that"
            " address."
        )
    assert len(web.asked) == 3


@pytest.mark.parametrize(
    ("status", "fails"), [(200, False), (204, False), (304, True), (404, True), (503, True)]
)
def test_only_2xx_is_a_success(web: Web, status: int, fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    _, error = call(monkeypatch, web.port, {}, {"endpoint": f"/{status}"})
    assert (error is not None) == fails
    if fails:
        assert f" is answered with {status}: " in str(error)
        assert HUSH not in str(error)
    # As HttpHook has it: nobody looks.
    assert call(monkeypatch, web.port, {"check_response": False}, {"endpoint": f"/{status}"})[1] is None


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    _, error = call(monkeypatch, 1, {})
    assert str(error).startswith(
        "POST /refresh of the connection 'service' fails: [Errno 111] Connection refused"
    )
    _, error = call(monkeypatch, 1, {"verify": "/no/such/file"}, host="https://127.0.0.1")
    assert "/no/such/file" in str(error)


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The port of a server with a certificate of its own, and that."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = tmp_path / "public.pem", tmp_path / "private.pem"
    public.write_bytes(made.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    web = Web()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(public, private)
    web._server.socket = tls.wrap_socket(web._server.socket, server_side=True)
    yield web.port, public
    web.close()


def test_certificates_are_verified_as_the_connection_says(
    secure: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, certificate = secure
    where: dict[str, Any] = {"host": "https://127.0.0.1"}
    _, error = call(monkeypatch, port, {}, **where)
    assert "CERTIFICATE_VERIFY_FAILED" in str(error)
    for verify in (False, str(certificate)):
        assert call(monkeypatch, port, {"verify": verify}, **where) == ("POST /refresh: 200", None)
