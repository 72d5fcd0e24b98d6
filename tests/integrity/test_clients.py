"""The clients of services are imported by the operators that need them, and by nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from integrity.conftest import ROOT

CLIENTS = ("kubernetes", "kubernetes_asyncio")
PROBE = f"""
import importlib, sys
importlib.import_module(sys.argv[1])
print("found:", *sorted({{name.partition(".")[0] for name in sys.modules}} & {set(CLIENTS)!r}))
"""


def clients_of(module: str) -> list[str]:
    """The clients that are loaded when a module is imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, module],
        cwd=ROOT / "include",
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize("module", ["orrery.render.loader", "orrery.pods.operators"])
def test_what_every_parse_imports_has_no_clients(module: str) -> None:
    assert clients_of(module) == []


@pytest.mark.parametrize("module", ["orrery.ingest.kubernetes", "orrery.pods.pod"])
def test_an_operator_has_its_clients(module: str) -> None:
    assert clients_of(module) == ["kubernetes", "kubernetes_asyncio"]
