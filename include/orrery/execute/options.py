"""The choices of one run, made in the trigger form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FULL_REFRESH = "full_refresh"
SKIP_STAGES = "skip_stages"


@dataclass(frozen=True)
class RunOptions:
    """Validated values of the trigger form; Airflow checks them against the DAG's Params."""

    full_refresh: bool
    skip_stages: frozenset[str]

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> RunOptions:
        """The options in a run's params, as found in the task's context."""
        return cls(bool(params[FULL_REFRESH]), frozenset(params[SKIP_STAGES]))
