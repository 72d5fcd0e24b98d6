"""The command of a pod: `python -m orrery.pods.inside ORDER...`.

It does what its order says with the project and the credentials that the pod has. Exit codes are dbt's:
1 when a node has failed, 2 when nothing could be run.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Any

from orrery.config.errors import OrreryError
from orrery.execute.assignment import Assignment
from orrery.execute.channel import NodeState
from orrery.execute.dbt_run import DbtRun
from orrery.execute.tally import Tally
from orrery.pods.order import Order
from orrery.pods.speech import Speaker

_FAILED, _REFUSED, _STOPPED = 1, 2, 143


def main() -> int:
    """Run dbt; returns the exit code."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s", force=True)
    speaker = Speaker(sys.stdout)
    order = Order.of(sys.argv[1:])
    tally = Tally(speaker, speaker.remember)
    os.environ |= _told_by_airflow(order.assignment)
    run = DbtRun(order.assignment, tally, speaker)

    def stop(*_: Any) -> None:
        run.stop()
        # It ends dbt, as Ctrl-C would, which cancels its queries.
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        run.begin()
        speaker.order(run.graph)
        run.run(order.tries)
        run.end()
    except OrreryError as error:
        speaker.refuse(str(error))
        return _REFUSED
    except KeyboardInterrupt:
        return _STOPPED
    finally:
        run.close()
    speaker.end(run.warnings)
    return _FAILED if NodeState.FAILED in tally.ended.values() else 0


def _told_by_airflow(assignment: Assignment) -> dict[str, str]:
    """What Airflow tells its tasks of their run: the comment on dbt's statements is made of it."""
    return {"AIRFLOW_CTX_DAG_ID": assignment.dag_id, "AIRFLOW_CTX_DAG_RUN_ID": assignment.run_id}


if __name__ == "__main__":
    sys.exit(main())
