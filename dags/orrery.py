"""Makes an Airflow dag of every file in dbt/pipelines; there is nothing to edit here."""

from orrery.render import load_dags

globals().update(load_dags(__file__))
