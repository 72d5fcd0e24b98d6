"""Has Airflow tell Orrery when a build fails for good: its nodes end with it."""

from airflow.plugins_manager import AirflowPlugin

from orrery.execute import listener


class OrreryBuilds(AirflowPlugin):
    """The listener for the task `build` of a pipeline."""

    name = "orrery_builds"
    listeners = [listener]  # noqa: RUF012 - as Airflow declares it
