"""A hub of dbt packages, as a company would run one: what a folder of packages holds, as tarballs."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from services.service import Service


class DbtHub(Service):
    """Serves packages until it is closed; `url` is what DBT_PACKAGE_HUB_URL has to be.

    :param folder: holds the packages, each in a folder called like its project
    :param versions: by `namespace/project`: the version to serve it as; projects do not always tell
    """

    def __init__(self, folder: Path, versions: Mapping[str, str]) -> None:
        self.asked: list[str] = []
        self._tarballs: dict[str, bytes] = {}
        self._documents: dict[str, Any] = {"index": list(versions)}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        for package, version in versions.items():
            self._add(package, version, folder / package.partition("/")[2])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _add(self, package: str, version: str, project: Path) -> None:
        namespace, _, name = package.partition("/")
        content = self._tarballs[f"/{package}/{version}.tar.gz"] = tarball(project, f"{name}-{version}")
        needed = project / "packages.yml"
        self._documents[package] = {
            "name": name,
            "namespace": namespace,
            "versions": {
                version: {
                    "id": f"{package}/{version}",
                    "name": name,
                    "version": version,
                    "packages": yaml.safe_load(needed.read_bytes())["packages"] if needed.is_file() else [],
                    "downloads": {
                        "tarball": f"{self.url}{package}/{version}.tar.gz",
                        "format": "tgz",
                        "sha1": hashlib.sha1(content, usedforsecurity=False).hexdigest(),
                    },
                }
            },
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.asked.append(self.path)
                name = self.path.removeprefix("/api/v1/").removesuffix(".json")
                content = hub._tarballs.get(self.path)
                if content is None and name in hub._documents:
                    content = json.dumps(hub._documents[name]).encode()
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def tarball(project: Path, top: str) -> bytes:
    """A gzipped tar file of a folder, which it calls `top`."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        archive.add(project, arcname=top)
    return content.getvalue()
