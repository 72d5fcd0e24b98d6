"""The names of stages and of tasks, and what a name says."""

from __future__ import annotations

from collections.abc import Container, Iterable

# Stages of tasks. A pipeline may add stages for its models.
INGEST = "ingest"
SOURCE_FRESHNESS = "source_freshness"
SOURCE_TESTS = "source_tests"
TESTS = "tests"
EXPOSURES = "exposures"
PUBLISH = "publish"
SEED = "seed"
FUNCTION = "function"
STAGING = "staging"
SNAPSHOT = "snapshot"
CORE = "core"
# The task outside of all stages that announces the success of a pipeline to those that come after.
FINISHED = "finished"
# The task outside of all stages that runs dbt.
BUILD = "build"
# The task outside of all stages that tells people how a run has ended.
ALERT = "alert"
# The stage of dbt's hooks, and its tasks.
HOOKS = "hooks"
HOOKS_START, HOOKS_END = f"{HOOKS}.on_run_start", f"{HOOKS}.on_run_end"
# What no stage of nodes can be called.
RESERVED = (INGEST, SOURCE_FRESHNESS, SOURCE_TESTS, TESTS, EXPOSURES, PUBLISH, FINISHED, BUILD, ALERT, HOOKS)
# How the names of the tasks end that come before the one that loads big files: they cut them, and stage them.
SPLIT = "__split"
CHUNKS = "__chunks"
STEPS = (SPLIT, CHUNKS)

_FIRST = (INGEST, SEED, FUNCTION, SOURCE_FRESHNESS, SOURCE_TESTS)
_NODES = (STAGING, SNAPSHOT, CORE)
_LAST = (TESTS, HOOKS, EXPOSURES, PUBLISH)


def in_order(own: Iterable[str]) -> tuple[str, ...]:
    """Every stage of a pipeline that may have these of its own, in the order in which they are shown."""
    added = (name for name in own if name not in (SEED, FUNCTION, *_NODES))
    return (*_FIRST, *added, *_NODES, *_LAST)


def is_last(task_id: str) -> bool:
    """Whether a task is about what has become of the run: it publishes it, or tells people."""
    return task_id == ALERT or task_id.startswith(f"{PUBLISH}.")


def publishes(what: str, task_ids: Container[str]) -> bool:
    """Whether a pipeline with these tasks publishes its `docs`, `artifacts` or `elementary`."""
    return f"{PUBLISH}.{what}" in task_ids
