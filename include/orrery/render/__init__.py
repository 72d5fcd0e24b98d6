"""Plans as Airflow DAGs, through Cosmos."""

from orrery.render.loader import load_dags

__all__ = ["load_dags"]
