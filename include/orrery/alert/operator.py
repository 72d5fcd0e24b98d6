"""The operator of the task `alert`: tells how a run has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from orrery.alert.memory import asset_of_alerts
from orrery.config.alerts import Alerts
from orrery.execute.ending import await_others
from orrery.execute.trial import leave_trials_alone

if TYPE_CHECKING:
    from airflow.sdk import Context


class AlertOperator(BaseOperator):
    """Tells people what the tasks of a run have not told yet, once all of them have ended.

    Those are failures of tasks that were killed, or that came after many others; the warnings; and that the
    pipeline succeeds again. It decides nothing about the run, and never fails it.

    :param alerts: who is told of what
    :param owner: the dbt group of the pipeline
    """

    custom_operator_name = "alert"
    ui_color = "#fbe3e4"

    def __init__(self, *, pipeline: str, alerts: Alerts, owner: str | None, **kwargs: Any) -> None:
        super().__init__(inlets=[asset_of_alerts(pipeline)], **kwargs)
        # Not `owner`, which Airflow shows.
        self.alerts, self.group = alerts, owner
        self.as_teardown(on_failure_fail_dagrun=False)

    def execute(self, context: Context) -> None:
        """Tell; raises AirflowRescheduleException while other tasks are at work."""
        leave_trials_alone(context)
        states = await_others(context["ti"])
        try:
            # Slack's client costs time that parsing must not pay.
            from orrery.alert.ending import Ending

            Ending(context, self.alerts, self.group, states).tell()
        except Exception as error:
            self.log.warning("Not everything is told: %s", type(error).__name__, exc_info=error)
