"""S3 and Google Cloud Storage on loopback."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from functools import partial
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

import boto3
from gcp_storage_emulator import server as emulator
from gcp_storage_emulator.exceptions import BadRequest
from gcp_storage_emulator.handlers import buckets, objects
from gcp_storage_emulator.storage import Storage
from moto.server import ThreadedMotoServer

from services.service import Service

_KEYS = {"aws_access_key_id": "stand-in", "aws_secret_access_key": "stand-in-secret"}
REGION = "us-east-1"


class _Server(Service):
    """What both have in common.

    `on_request` is told method and URL of each request before it is carried out.
    """

    def __init__(self, *connections: str) -> None:
        self._connections = connections
        self.on_request: Callable[[str, str], None] | None = None

    @property
    def url(self) -> str:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class S3Server(_Server):
    """An S3 in memory, by moto.

    :param connections: ids of the Airflow connections that lead to it
    """

    def __init__(self, *connections: str) -> None:
        super().__init__(*connections)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        app = self._server._server.app  # type: ignore[union-attr]

        def observed(environ: dict[str, Any], start: Any) -> Any:
            if self.on_request:
                self.on_request(environ["REQUEST_METHOD"], environ.get("RAW_URI") or environ["PATH_INFO"])
            return app(environ, start)

        self._server._server.app = observed  # type: ignore[union-attr]
        self.client: Any = boto3.client("s3", endpoint_url=self.url, region_name=REGION, **_KEYS)

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._server.get_host_and_port()
        return f"http://{host}:{port}"

    def create(self, bucket: str) -> None:
        """Make a bucket, where there is none of this name."""
        self.client.create_bucket(Bucket=bucket)

    def put(self, bucket: str, name: str, content: bytes) -> None:
        """Make an object."""
        self.client.put_object(Bucket=bucket, Key=name, Body=content)

    def get(self, bucket: str, name: str) -> bytes:
        """The content of an object."""
        return bytes(self.client.get_object(Bucket=bucket, Key=name)["Body"].read())

    def names(self, bucket: str) -> list[str]:
        """The names of all objects."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [each["Key"] for page in pages for each in page.get("Contents", ())]

    def delete(self, bucket: str, name: str) -> None:
        """Remove an object."""
        self.client.delete_object(Bucket=bucket, Key=name)

    def connections(self) -> dict[str, dict[str, Any]]:
        """The Airflow connections, as its API takes them."""
        extra = json.dumps({"endpoint_url": self.url, "region_name": REGION})
        body = {
            "conn_type": "aws",
            "login": _KEYS["aws_access_key_id"],
            "password": _KEYS["aws_secret_access_key"],
            "extra": extra,
        }
        return {name: {"connection_id": name, **body} for name in self._connections}

    def close(self) -> None:
        """Stop; what it holds is gone."""
        self._server.stop()


class _Storage(Storage):  # type: ignore[misc]
    """What the emulator holds; it would copy all that there is with every change."""

    def __init__(self, **settings: Any) -> None:
        self._uploads: dict[str, bytearray] = {}
        super().__init__(**settings)

    def _write_config_to_file(self) -> None:
        pass

    def get_resumable_byte_count(self, upload: str) -> int:
        return len(self._uploads.get(upload, b""))

    def add_to_resumable_upload(
        self, upload: str, content: bytes, total_size: int | None = None, expected_start: int | None = None
    ) -> bytes | None:
        held = self._uploads.setdefault(upload, bytearray())
        if expected_start not in (None, len(held)):
            raise BadRequest(f"expected {len(held)}, got {expected_start}")
        held += content or b""
        if total_size is None or len(held) < total_size:
            return None
        return bytes(self._uploads.pop(upload))


class GcsServer(_Server):
    """A Google Cloud Storage in memory, by gcp-storage-emulator.

    Unlike that, it knows generations: what is asked of one that is not there any more fails.

    :param connections: ids of the Airflow connections that lead to it
    """

    def __init__(self, *connections: str) -> None:
        super().__init__(*connections)
        for name in ("gcp_storage_emulator", "api.object"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.storage = _Storage(use_memory_fs=True)
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def create(self, bucket: str) -> None:
        """Make a bucket, where there is none of this name."""
        if bucket not in self.storage.buckets:
            buckets.create_bucket(bucket, self.storage)

    def put(self, bucket: str, name: str, content: bytes) -> None:
        """Make an object."""
        made = objects._make_object_resource(
            self.url, bucket, name, "application/octet-stream", str(len(content))
        )
        self.storage.create_file(bucket, name, content, objects._checksums(content, made))

    def get(self, bucket: str, name: str) -> bytes:
        """The content of an object."""
        return bytes(self.storage.get_file(bucket, name))

    def names(self, bucket: str) -> list[str]:
        """The names of all objects."""
        return sorted(self.storage.objects.get(bucket, {}))

    def delete(self, bucket: str, name: str) -> None:
        """Remove an object."""
        self.storage.delete_file(bucket, name)

    def connections(self) -> dict[str, dict[str, Any]]:
        """The Airflow connections, as its API takes them."""
        extra = json.dumps({"gcs.endpoint": self.url, "is_anonymous": True, "project": "stand-in"})
        body = {"conn_type": "google_cloud_platform", "extra": extra}
        return {name: {"connection_id": name, **body} for name in self._connections}

    def close(self) -> None:
        """Stop; what it holds is gone."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(emulator.RequestHandler):  # type: ignore[misc]
    """Answers a request; the emulator itself reads over generations."""

    protocol_version = "HTTP/1.1"
    # Head and body of an answer in one packet.
    wbufsize = -1

    def __init__(self, service: GcsServer, *arguments: Any) -> None:
        self._service = service
        super().__init__(service.storage, *arguments)

    def _refuse(self) -> bool:
        """Answer a request that asks for another generation than the one that is there."""
        self._service.requests.append(f"{self.command} {self.path}")
        if self._service.on_request:
            self._service.on_request(self.command, self.path)
        for regex, _ in emulator.HANDLERS:
            match = emulator.re.compile(regex).fullmatch(urlparse(self.path).path)
            if match:
                break
        else:
            return False
        names = {key: emulator.unquote(value) for key, value in match.groupdict().items()}
        query = {key: value[0] for key, value in parse_qs(urlparse(self.path).query).items()}
        made = self._service.storage.objects.get(names.get("bucket_name"), {}).get(names.get("object_id"))
        now = made["generation"] if made else None
        if query.get("generation", now) != now:
            return self._answer(404, "No such object")
        if query.get("ifGenerationMatch", query.get("ifSourceGenerationMatch", now)) != now:
            return self._answer(412, "conditionNotMet")
        return False

    def _answer(self, status: int, message: str) -> bool:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.dumps({"error": {"code": status, "message": message}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return True

    def do_GET(self) -> None:
        if not self._refuse():
            super().do_GET()

    def do_POST(self) -> None:
        if not self._refuse():
            super().do_POST()

    def do_DELETE(self) -> None:
        if not self._refuse():
            super().do_DELETE()

    def do_PUT(self) -> None:
        if not self._refuse():
            super().do_PUT()
