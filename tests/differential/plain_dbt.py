"""dbt as anybody has it, in a process of its own: no module of Orrery is on its path.

A request has the folder of the project, a list of commands (lists of arguments), and the journal's path;
the answer has for each command whether it succeeded, what it raised, and for `ls` what it lists.
"""

from __future__ import annotations

import os
from typing import Any

from dbt.cli.main import dbtRunner
from dbt_common.behavior_flags import BehaviorFlagRendered

from differential import recorder
from differential.servers import Json, serve


def handle(request: Json) -> Json:
    """Run the commands."""
    os.environ[recorder.JOURNAL] = request["journal"]
    root = request["root"]
    options = ["--project-dir", root, "--profiles-dir", root, "--log-path", f"{root}/logs"]
    options += ["--log-level", "none", "--quiet", "--no-use-colors", "--no-send-anonymous-usage-stats"]
    done = []
    for arguments in request["commands"]:
        result = dbtRunner().invoke([*arguments, *options])
        listed: Any = result.result if arguments[0] == "ls" else None
        failure = str(result.exception).strip() if result.exception else None
        done.append({"success": result.success, "exception": failure, "listed": listed})
    return {"done": done}


if __name__ == "__main__":
    # dbt would look through the call stack for each flag of each command, for messages nobody reads here.
    BehaviorFlagRendered._default_source = staticmethod(lambda: "dbt")
    recorder.install()
    serve(handle)
