"""Faults put into Orrery, each of which the search must find.

`python -m differential.mutants` tries them one after the other, and prints after how many projects each is
found. Each is what the first version did wrong, named by what was seen of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click

# The environment variable with the name of the fault.
CHOSEN = "DIFFERENTIAL_MUTANT"


def apply(name: str) -> None:
    """Put a fault into the Orrery of this process; none if the name is empty."""
    if name:
        MUTANTS[name]()


def _first_batch_ends_model() -> None:
    from orrery.execute.collector import Collector

    original = Collector._start

    def start(self: Any, uid: str) -> None:
        original(self, uid)
        self._records[uid].nodes[uid].depth = 1

    Collector._start = start  # type: ignore[method-assign]


def _airflow_decides() -> None:
    from orrery.execute import dbt_run
    from orrery.execute.reporter import Reporter
    from orrery.execute.run_graph import RunGraph, stands_apart

    def graph(manifest: Any, tasks: Any, invocation: Any, *, gate: bool) -> RunGraph:
        own = {task_id for task_id, task in tasks.items() if not stands_apart(task)}
        return RunGraph({task_id: own.intersection(tasks[task_id].upstream) for task_id in own})

    original = Reporter.hold_back

    def hold_back(self: Any, task_id: str, reason: str | None = None) -> None:
        if self._failed() & self._graph.ancestors([task_id]):
            original(self, task_id, reason)
        else:
            self._tally.hold_back(task_id, reason or "dbt skipped it.")

    dbt_run.graph_of = graph
    Reporter.hold_back = hold_back  # type: ignore[method-assign]


def _seeds_race_sources() -> None:
    from orrery.manifest import makers

    _put(makers.source_makers, lambda *_: {})


def _functions_are_no_nodes() -> None:
    from orrery.config import resources
    from orrery.manifest import left_out

    left_out._REASONS["function"] = "they are no nodes"
    _put(resources.NODE_TYPES, frozenset(resources.NODE_TYPES) - {"function"})


def _hooks_never_fail() -> None:
    from orrery.config.resources import OPERATION, type_of
    from orrery.execute import commands
    from orrery.execute.collector import Collector

    original = Collector._finish

    def finish(self: Any, uid: str, result: Any) -> None:
        original(self, uid, replace(result, status="success") if type_of(uid) == OPERATION else result)

    Collector._finish = finish  # type: ignore[method-assign]
    commands._check_hooks = lambda results: None


def _marks_count_for_nothing() -> None:
    from orrery.execute.grounds import Grounds

    Grounds.judge = lambda self, news: news  # type: ignore[method-assign]


def _cleared_tasks_are_still_the_builds() -> None:
    from orrery.execute import task_instances

    _marks_count_for_nothing()
    task_instances._HELD = (*task_instances._HELD, None)  # type: ignore[assignment]


MUTANTS: dict[str, Callable[[], None]] = {
    "a microbatch model ends with its first batch": _first_batch_ends_model,
    "Airflow's edges decide what runs next": _airflow_decides,
    "a seed that makes a source races its readers": _seeds_race_sources,
    "functions are no nodes": _functions_are_no_nodes,
    "hooks never fail": _hooks_never_fail,
    "marks by hand count for nothing": _marks_count_for_nothing,
    "a cleared task is still the build's": _cleared_tasks_are_still_the_builds,
}
# Those that only hands bring to light.
BY_HANDS = ("marks by hand count for nothing", "a cleared task is still the build's")


def _put(old: object, new: object) -> None:
    """Put something in the place of an object wherever a module of Orrery's has it."""
    for name, module in list(sys.modules.items()):
        if name.startswith("orrery."):
            for key, value in list(vars(module).items()):
                if value is old:
                    setattr(module, key, new)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--seed", default=1, show_default=True)
@click.option("--most", default=60, help="How many projects are drawn for each.", show_default=True)
def main(names: tuple[str, ...], seed: int, most: int) -> None:
    """Search for each fault, or for those with these NAMES; exit code 1 if one is not found."""
    # What is imported here reads this module, and the processes that a fault is put into need none of it.
    from differential.lab import lab
    from differential.soak import search, searches, told

    missed = 0
    for name in names or MUTANTS:
        with lab(mutant=name) as where:
            attempt, drawn = searches(where, 12)["hands" if name in BY_HANDS else "cases"]
            example = search(attempt, drawn, seed, most=most, shrink=False)
            click.echo(f"{name}: {'found' if example else 'NOT found'} after {told(where.counts)}")
            click.echo(example or "")
            missed += example is None
    raise SystemExit(bool(missed))


if __name__ == "__main__":
    main()
