"""The commands about the stack, without one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from orrery.cli.__main__ import main
from orrery.config.project import Project
from orrery.local.layout import Layout

# As strict as that of macOS.
TAIL = """#!/bin/sh
case "$*" in *--*) exit 64 ;; esac
printf "%s\\n" "$*" > "$TOLD"
"""


def test_logs_ask_tail_for_what_every_tail_knows(
    shop: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ORRERY_STATE_DIR", raising=False)
    log, told, tail = Layout.of(shop.root).log("scheduler"), tmp_path / "told", tmp_path / "bin" / "tail"
    for path in (log, tail):
        path.parent.mkdir(parents=True)
    log.write_text("a line\n")
    tail.write_text(TAIL)
    tail.chmod(0o755)
    monkeypatch.setenv("TOLD", str(told))
    monkeypatch.setenv("PATH", f"{tail.parent}{os.pathsep}{os.environ['PATH']}")
    for arguments, expected in (([], "-n 50"), (["scheduler", "-f", "-n", "7"], "-n 7 -F")):
        assert CliRunner().invoke(main, ["logs", *arguments]).exit_code == 0
        assert told.read_text() == f"{expected} {log}\n"
