"""Debian's redis-server on loopback, with a password and nothing on disk."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from redis import Redis, RedisError

from orrery.local.ports import find_free
from services.service import Service

_SECONDS = 60
_SETTINGS = """\
bind 127.0.0.1
port {port}
requirepass {password}
save ""
appendonly no
dir {folder}
"""


class RedisServer(Service):
    """A Redis that forgets everything when it is closed."""

    def __init__(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise FileNotFoundError("There is no redis-server.\n  apt-get install redis-server")
        self._port, self._password = find_free(), secrets.token_hex(16)
        self._folder = Path(tempfile.mkdtemp(prefix="orrery-redis-"))
        self._log = (self._folder / "log").open("wb")
        # Settings from its input: others may read a command line.
        self._process = subprocess.Popen(
            [program, "-"], stdin=subprocess.PIPE, stdout=self._log, stderr=subprocess.STDOUT
        )
        assert self._process.stdin
        settings = _SETTINGS.format(port=self._port, password=self._password, folder=self._folder)
        self._process.stdin.write(settings.encode())
        self._process.stdin.close()
        deadline = time.monotonic() + _SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self._folder / "log").read_text()
                self.close()
                raise RuntimeError(f"redis-server does not answer:\n{said}")
            time.sleep(0.05)

    @property
    def url(self) -> str:
        """Its address, with the password."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
        shutil.rmtree(self._folder)

    def _answers(self) -> bool:
        try:
            with Redis.from_url(self.url) as client:
                return bool(client.ping())
        except RedisError:
            return False
