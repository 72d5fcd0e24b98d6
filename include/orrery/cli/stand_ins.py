"""`orrery run --stand-ins`: servers on this machine in place of the systems that a pipeline reaches."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console

from orrery.cli.airflow_api import AirflowApi
from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.local import Stack
from orrery.local.stack import Role

# What marks a connection of Airflow as one of ours, which may be replaced.
MARK = "A stand-in of ./orrery run --stand-ins, only there while it runs."


@contextmanager
def stand_ins(pipeline: str, project: Project, api: AirflowApi, console: Console) -> Iterator[None]:
    """Serve what `pipeline` reaches, with Airflow's connections pointing there; nothing is left behind.

    Raises OrreryError for a pipeline that has none, and when a connection would be replaced that is not
    a stand-in's.
    """
    tests = project.root / "tests"
    if not (tests / "services").is_dir():
        raise OrreryError("The stand-ins are not here: they are in tests/services of Orrery's repository.")
    sys.path.append(str(tests))
    serve = importlib.import_module("services.stand_ins").serve
    stack = Stack(project.root)
    roles: tuple[Role, ...] = ("loader", "transformer")
    warehouse = {role: stack.warehouse_dsn(role) for role in roles}
    with ExitStack() as cleanup:
        connections = cleanup.enter_context(serve(pipeline, project.root, warehouse))
        if connections is None:
            raise OrreryError(f"{pipeline} has no stand-ins: it runs as it is.\n  ./orrery run {pipeline}")
        for name, body in connections.items():
            known = api.connection(name)
            if known is not None and known["description"] != MARK:
                raise OrreryError(
                    f"Airflow has a connection {name!r} already, and a stand-in would replace it.\n"
                    f"  ./orrery run {pipeline} uses it; remove it to try the stand-in."
                )
            if known is not None:
                api.remove_connection(name)
            api.add_connection({**body, "connection_id": name, "description": MARK})
            cleanup.callback(api.remove_connection, name)
        console.print(f"Stand-ins: {', '.join(connections)}", style="dim", highlight=False)
        yield
