"""The embedded local stack: PostgreSQL and Airflow on one machine, without Docker."""

from orrery.local.errors import StackError
from orrery.local.stack import ComponentStatus, Stack, StackInfo

__all__ = ["ComponentStatus", "Stack", "StackError", "StackInfo"]
