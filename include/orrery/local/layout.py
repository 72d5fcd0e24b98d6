"""Where the stack keeps things: the state directory's paths, the component names, private writes."""

from __future__ import annotations

import difflib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orrery.local.errors import StackError

POSTGRES: Final = "postgres"
API_SERVER: Final = "api-server"
SCHEDULER: Final = "scheduler"
DAG_PROCESSOR: Final = "dag-processor"
TRIGGERER: Final = "triggerer"
AIRFLOW_COMPONENTS: Final = (API_SERVER, SCHEDULER, DAG_PROCESSOR, TRIGGERER)
COMPONENTS: Final = (POSTGRES, *AIRFLOW_COMPONENTS)
SUPERVISOR: Final = "supervisor"
WATCH: Final = "watch"  # looks whether the others do something
WORKER: Final = "worker"  # of Celery; it is started beside the stack
SETUP: Final = "setup"  # one-off work of `up`: initdb, the migration
HOST: Final = "127.0.0.1"


def loopback_host() -> str:
    """Airflow's `hostname_callable`: everything runs here, and a DNS lookup may take seconds."""
    return HOST


@dataclass(frozen=True)
class Layout:
    """The paths of one stack. `state` is absolute; it is also what marks the stack's processes."""

    root: Path
    state: Path

    @classmethod
    def of(cls, root: Path, state_dir: Path | None = None) -> Layout:
        """Resolve the state directory: argument, else ORRERY_STATE_DIR, else `<root>/.orrery`."""
        root = root.resolve()
        chosen = state_dir or os.environ.get("ORRERY_STATE_DIR") or root / ".orrery"
        return cls(root, Path(chosen).expanduser().resolve())

    @classmethod
    def of_environment(cls) -> Layout:
        """The layout of the stack that this process belongs to. Outside of a stack: KeyError."""
        return cls(Path(os.environ["ORRERY_PROJECT_DIR"]), Path(os.environ["ORRERY_STATE_DIR"]))

    @property
    def marker(self) -> str:
        """The value of ORRERY_STACK in the environment of every process of this stack.

        It is the path and not a random word, so that the processes can still be told after somebody
        deleted the state directory under a running stack.
        """
        return str(self.state)

    @property
    def saved(self) -> Path:
        return self.state / "stack.json"

    @property
    def secrets(self) -> Path:
        return self.state / "secrets.json"

    @property
    def lock(self) -> Path:
        return self.state / "lock"

    @property
    def postgres(self) -> Path:
        return self.state / "postgres"

    @property
    def pgdata(self) -> Path:
        return self.postgres / "data"

    @property
    def postgres_conf(self) -> Path:
        return self.postgres / "postgresql.conf"

    @property
    def airflow_home(self) -> Path:
        return self.state / "airflow"

    @property
    def airflow_cfg(self) -> Path:
        return self.airflow_home / "airflow.cfg"

    @property
    def passwords(self) -> Path:
        return self.airflow_home / "passwords.json"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def run(self) -> Path:
        return self.state / "run"

    @property
    def supervisord_conf(self) -> Path:
        return self.state / "supervisord.conf"

    @property
    def supervisord_pid(self) -> Path:
        return self.run / "supervisord.pid"

    def log(self, component: str) -> Path:
        """The log file of a component, of `supervisor`, `watch` or `setup`. An unknown name: StackError."""
        known = (*COMPONENTS, SUPERVISOR, WATCH, SETUP)
        if component not in known:
            near = difflib.get_close_matches(component, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise StackError(
                f"unknown component {component!r}\n  at: {self.logs}\n"
                f"  fix: {hint}use one of {', '.join(known)}"
            )
        return self.logs / f"{component}.log"


def write_private(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file in one step, never readable by others in between. Raises OSError."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
