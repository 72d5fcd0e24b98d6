"""Processes that serve the tests: requests and answers are lines of JSON."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_TESTS = Path(__file__).resolve().parents[1]
_ANSWERS = "DIFFERENTIAL_ANSWERS"
_FOREIGN = ("ORRERY_", "DBT_", "AIRFLOW", "PYTHON")

Json = dict[str, Any]


class ServerError(Exception):
    """A server could not answer: a fault of the tests, or of what they run."""


class Server:
    """A process of Python's that runs a module of this package.

    :param module: its name; it calls `serve`
    :param path: folders of modules beside tests/
    """

    def __init__(self, module: str, path: tuple[Path, ...] = (), environment: Mapping[str, str] = {}) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)}
        self._module = module
        self._log = tempfile.NamedTemporaryFile(prefix=f"{module}-", suffix=".log", mode="w+b")  # noqa: SIM115
        # Not its standard output, to which anything may print.
        reading, writing = os.pipe()
        self._answers = os.fdopen(reading, "rb", buffering=0)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            env={
                **kept,
                "PYTHONPATH": os.pathsep.join(map(str, (_TESTS, *path))),
                "PYTHONHASHSEED": "0",
                _ANSWERS: str(writing),
                **environment,
            },
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            pass_fds=(writing,),
            start_new_session=True,
        )
        os.close(writing)

    def send(self, request: Json) -> None:
        """Send a request; `answer` must follow."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self, seconds: float = 1200) -> Json:
        """The answer to the request; raises ServerError."""
        ready, _, _ = select.select([self._answers], [], [], seconds)
        line = self._answers.readline() if ready else b""
        if not line:
            self._process.kill()
            raise ServerError(f"{self._module} {'has ended' if ready else 'hangs'}:\n{self.tail()}")
        answer: Json = json.loads(line)
        if "error" in answer:
            raise ServerError(f"{self._module}: {answer['error']}")
        return answer

    def ask(self, request: Json, seconds: float = 1200) -> Json:
        """Send a request and wait for the answer."""
        self.send(request)
        return self.answer(seconds)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def tail(self) -> str:
        """The end of what the process printed."""
        return Path(self._log.name).read_text(encoding="utf-8", errors="replace")[-6000:]

    def close(self) -> None:
        """End the process."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()
        self._log.close()


def serve(handle: Callable[[Json], Json]) -> None:
    """Answer requests until there are none any more."""
    answers = os.fdopen(int(os.environ.pop(_ANSWERS)), "w")
    for line in sys.stdin:
        try:
            answer = handle(json.loads(line))
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer, default=str), file=answers, flush=True)
