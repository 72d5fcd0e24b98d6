"""A pipeline in which all goes wrong, and a service that tells everybody what it was sent."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIPELINE = "trial_leaks"
_SOURCE = """\
  - name: leak_{name}
    schema: landing
    tables:
      - name: leak_{name}
        config:
          meta: {{orrery: {{ingest: {{{block}}}}}}}
        columns:
          - name: id
            data_type: bigint
"""
_SOURCES = {
    "bucket": 'files: "*.csv", landing_zone: "s3://leak_aws@leaks/in"',
    "sync": "airbyte: trial, connection: leak_airbyte",
    "file": 'files: "leaks/*.csv", settle: 0s',
}
_EXPOSURE = """\
  - name: leak_{name}
    type: dashboard
    owner: {{name: Ann}}
    depends_on: [ref('leak_good')]
    config:
      meta: {{orrery: {{run: {{http: {{connection: leak_{name}, endpoint: /refresh}}}}}}}}
"""
FILES = {
    "models/trial/leaks/leak_good.sql": "select 1 as id\n",
    "models/trial/leaks/leak_bad.sql": "{{ config(materialized='table') }} select 1 / 0 as id\n",
    # Into the rendered template, the manifest and the docs.
    "models/trial/leaks/leak_asked.sql": (
        "{{ config(materialized='table',"
        " meta={'key': env_var('AIRFLOW__CORE__FERNET_KEY', 'not shown')}) }}\n"
        "select 1 as id -- {{ env_var('AIRFLOW_CONN_WAREHOUSE_LOADER', 'not shown') }}\n"
    ),
    # dbt shows what it knows of the warehouse.
    "models/trial/leaks/leak_shown.sql": (
        "{% if execute %}{{ exceptions.raise_compiler_error(target ~ ' ' ~ flags) }}{% endif %}select 1\n"
    ),
    **{
        f"models/trial/leaks/leak_{name}_read.sql": (
            f"select id from {{{{ source('leak_{name}', 'leak_{name}') }}}}\n"
        )
        for name in _SOURCES
    },
    "models/trial/leaks/leaks.yml": (
        "sources:\n"
        + "".join(_SOURCE.format(name=name, block=block) for name, block in _SOURCES.items())
        + "exposures:\n"
        + "".join(_EXPOSURE.format(name=name) for name in ("call", "webhook"))
    ),
    "tests/trial/assert_leak_good_is_empty.sql": (
        "{{ config(severity='warn') }} select id from {{ ref('leak_good') }}\n"
    ),
}
PIPELINES = {PIPELINE: "select: path:models/trial/leaks\npublish: {}\n"}


def _secret() -> str:
    # With what has to be written in another way in URLs and in HTML.
    return f"{secrets.token_hex(12)}/+&{secrets.token_hex(12)}="


class Telltale:
    """Connections with secrets, and the service they lead to, which refuses everything and tells why.

    `secrets` are those of the connections by name.
    """

    def __init__(self, url: str) -> None:
        made = {name: _secret() for name in ("aws", "airbyte", "airbyte_token", "header", "http")}
        # What stands in a URL.
        made |= {name: secrets.token_hex(16) for name in ("host token", "host password", "slack")}
        self.secrets = made
        host, _, port = url.removeprefix("http://").partition(":")
        self.connections: dict[str, dict[str, Any]] = {
            "leak_aws": {
                "conn_type": "aws",
                "login": "key",
                "password": made["aws"],
                "extra": json.dumps({"endpoint_url": url, "region_name": "us-east-1"}),
            },
            "leak_airbyte": {
                "conn_type": "airbyte",
                "host": f"{url}/api/public/v1",
                "login": "client",
                "password": made["airbyte"],
            },
            "leak_call": {
                "conn_type": "http",
                "host": host,
                "port": int(port),
                "login": "me",
                "password": made["http"],
                "extra": json.dumps({"X-Api-Key": made["header"]}),
            },
            # Nobody listens there.
            "leak_webhook": {
                "conn_type": "http",
                "host": f"http://me:{made['host password']}@127.0.0.1:1/services/T0/B0/{made['host token']}",
            },
            "leak_slack": {
                "conn_type": "slackwebhook",
                "host": "https://127.0.0.1:1/services",
                "password": made["slack"],
            },
        }

    def answer(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and content of an answer."""
        if path.endswith("/applications/token"):
            token = {"access_token": self.secrets["airbyte_token"], "token_type": "Bearer", "expires_in": 600}
            return 200, token
        told = f"{path} with {dict(headers)} and {body.decode(errors='replace')} is refused"
        return 400 if "/api/public/" in path else 403, {"status": 400, "title": "refused", "detail": told}


@contextmanager
def telltale() -> Iterator[Telltale]:
    """Serve it."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, told = service.answer(self.path, dict(self.headers), body)
            content = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_HEAD = _answer

        def log_message(self, *_: Any) -> None:
            """It tells those who ask only."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        service = Telltale(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield service
        finally:
            server.shutdown()
