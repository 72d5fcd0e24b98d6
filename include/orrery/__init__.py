"""Orrery: dbt projects as Airflow pipelines."""

__version__ = "0.1.0"
