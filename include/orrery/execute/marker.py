"""Tasks that do nothing."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator


class MarkerOperator(EmptyOperator):
    """A point in the graph; the scheduler marks it as done without running anything."""

    custom_operator_name = "marker"
