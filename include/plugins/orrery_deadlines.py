"""Makes Orrery's deadlines known to Airflow: the scheduler works out when a run is late."""

from airflow.plugins_manager import AirflowPlugin

from orrery.alert.late import TimeOfDayDeadline


class OrreryDeadlines(AirflowPlugin):
    """The times of day by which runs have to end (`sla` in a pipeline file)."""

    name = "orrery_deadlines"
    deadline_references = [TimeOfDayDeadline]  # noqa: RUF012 - as Airflow declares it
