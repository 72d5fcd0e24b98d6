"""Celery's workers of a stack, as processes that a test may kill."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping

import psutil

from orrery.local import processes
from support.live import Live
from support.waiting import wait_for

# What Celery prints when it has taken a message.
_TAKEN = re.compile(r"Executing workload in Celery: .*?task_id='([^']+)'")


class Worker:
    """`./orrery worker`, with a log of its own."""

    def __init__(self, live: Live, queues: str, environment: Mapping[str, str]) -> None:
        self.queues = queues
        self._live = live
        self.log = live.state / "logs" / f"worker-{queues.replace(',', '-')}-{id(self)}.log"
        with self.log.open("wb") as log:
            self._command = live.start(
                *("worker", "--queues", queues, "--slots", "2"),
                env=live.env | environment,
                stdout=log,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Wait until it takes tasks."""

        def ready() -> bool:
            assert self._command.poll() is None, self.log.read_text()
            return bool(re.search(r"\bready\b", self.log.read_text()))

        wait_for(f"the worker for {self.queues} is ready", ready)

    def tree(self) -> list[psutil.Process]:
        """All its processes: the main one, those of its slots, and tasks."""
        try:
            main = psutil.Process(self._command.pid)
            return [main, *main.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def runs(self, pid: int) -> bool:
        """Whether the process is one of its own."""
        return any(process.pid == pid for process in self.tree())

    def taken(self) -> list[str]:
        """The ids of the tasks that it has taken, in their order."""
        return _TAKEN.findall(self.log.read_text())

    def kill(self) -> None:
        """End it as the loss of its machine would: all of it at once, without a word."""
        tree = self.tree()
        processes.send(tree, signal.SIGKILL)
        self._command.wait()
        assert not processes.wait_gone(tree, 60)

    def leave(self) -> None:
        """Ask it to end when its tasks have, and wait until it takes no more."""
        self._command.terminate()
        wait_for("the worker takes no more tasks", lambda: "Warm shutdown" in self.log.read_text())


class Workers:
    """The workers of a stack; `./orrery down` ends those that are left."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self.alive: list[Worker] = []

    def start(self, *queues: str, **environment: str) -> list[Worker]:
        """Start a worker for each of `queues`, and do not wait for them."""
        started = [Worker(self._live, each, environment) for each in queues]
        self.alive += started
        return started

    def of(self, pid: int) -> Worker:
        """The worker that runs a process."""
        return next(worker for worker in self.alive if worker.runs(pid))

    def kill(self, worker: Worker) -> None:
        """Kill one of them."""
        worker.kill()
        self.alive.remove(worker)
