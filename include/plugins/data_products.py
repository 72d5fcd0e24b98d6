"""Adds the page "Data products" to Airflow; there is nothing to edit here."""

from orrery.pages.plugin import DataProducts

__all__ = ["DataProducts"]
