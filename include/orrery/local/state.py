"""What the stack remembers between starts: its ports and migration, its secrets, and its lock."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from orrery.local.errors import StackError
from orrery.local.layout import Layout, write_private


@dataclass(frozen=True)
class Saved:
    """The stack's memory without secrets (`stack.json`). Ports are TCP ports on loopback."""

    api_port: int
    postgres_port: int
    control_socket: str
    airflow_version: str | None = None  # the version whose migration finished
    migration: str | None = None  # the revision that it left in the database
    settings: str | None = None  # digest of the configuration files that the processes were started with


@dataclass(frozen=True)
class Secrets:
    """Everything that must not be guessed (`secrets.json`, mode 0600), made once at the first start."""

    admin: str
    postgres: str
    airflow: str
    loader: str
    transformer: str
    fernet_key: str
    api_secret_key: str
    jwt_secret: str

    @classmethod
    def generate(cls) -> Secrets:
        # Hexadecimal, because the values stand in URLs and in files where % and : mean something.
        return cls(
            admin=secrets.token_hex(8),
            postgres=secrets.token_hex(24),
            airflow=secrets.token_hex(24),
            loader=secrets.token_hex(24),
            transformer=secrets.token_hex(24),
            fernet_key=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            api_secret_key=secrets.token_hex(32),
            jwt_secret=secrets.token_hex(64),
        )


def load_saved(layout: Layout) -> Saved | None:
    """Read `stack.json`; None when it is missing or damaged (all of it can be found out again)."""
    try:
        raw = json.loads(layout.saved.read_text(encoding="utf-8"))
        known = {field.name for field in fields(Saved)}
        return Saved(**{key: value for key, value in raw.items() if key in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def save(layout: Layout, saved: Saved) -> None:
    """Write `stack.json` in one step. Raises OSError."""
    write_private(layout.saved, json.dumps(asdict(saved), indent=2) + "\n")


def remember(layout: Layout, saved: Saved, **changes: str | int | None) -> Saved:
    """Save a changed copy and return it. Raises OSError."""
    changed = replace(saved, **changes)  # type: ignore[arg-type]
    save(layout, changed)
    return changed


def load_secrets(layout: Layout) -> Secrets | None:
    """Read `secrets.json`; None when there is none. Damaged or foreign content: StackError."""
    try:
        text = layout.secrets.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return Secrets(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise StackError(
            f"the stack's keys cannot be read: {error}\n  at: {layout.secrets}\n"
            f"  fix: restore the file, or start afresh: ./orrery down, then delete {layout.state}"
        ) from error


def ensure_secrets(layout: Layout) -> Secrets:
    """Return the stack's keys, making them at the first start. Raises OSError, StackError."""
    known = load_secrets(layout)
    if known is not None:
        return known
    if layout.pgdata.exists():
        raise StackError(
            f"the stack's keys are gone, its database is still there\n  at: {layout.secrets}\n"
            f"  fix: restore the file, or start afresh: ./orrery down, then delete {layout.state}"
        )
    made = Secrets.generate()
    write_private(layout.secrets, json.dumps(asdict(made), indent=2) + "\n")
    return made


@contextmanager
def locked(path: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Hold the stack's lock; wait for whoever has it. The kernel frees it when its holder dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another orrery command that is starting or stopping this stack")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
