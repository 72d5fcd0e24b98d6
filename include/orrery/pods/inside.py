"""The command of a pod: `python -m orrery.pods.inside ORDER...`.

It does what its order says with the project and the credentials that the pod has. Exit codes are dbt's:
1 when a node has failed, 2 when nothing could be run.
"""

from __future__ import annotations

import logging
import signal
import sys
from typing import Any

from orrery.config.errors import OrreryError
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
    tally = Tally(speaker)
    run = DbtRun(order.assignment, tally, speaker)

    def stop(*_: Any) -> None:
        run.stop()
        # It ends dbt, as Ctrl-C would, which cancels its queries.
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        run.begin()
        run.run(order.tries)
    except OrreryError as error:
        speaker.refuse(str(error))
        return _REFUSED
    except KeyboardInterrupt:
        return _STOPPED
    finally:
        run.close()
    speaker.end(run.warnings)
    return _FAILED if NodeState.FAILED in tally.ended.values() else 0


if __name__ == "__main__":
    sys.exit(main())
