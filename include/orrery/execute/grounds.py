"""What the outcome of a task rests on, when others of its run have been cleared, marked or have failed.

dbt runs with the graph and the data of the moment when its command begins. Somebody may clear or mark tasks
while it runs; then what dbt makes of their descendants rests on data from before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from orrery.execute.channel import NodeState, Update
from orrery.execute.run_graph import FAILED, RunGraph

# Nothing rests on these: the task is done, or has left the DAG.
DONE = frozenset({"success", "skipped", "removed"})
_NOT_COUNTED = "{} has failed or was marked failed, so what dbt made of this task does not count."


class Grounds:
    """Decides what the news of tasks are worth.

    :param states: the states of those tasks of the run that are not done and that this build does not hold
    """

    def __init__(self, graph: RunGraph, states: Mapping[str, str | None]) -> None:
        self._graph = graph
        self._failed = {task_id for task_id, state in states.items() if state in FAILED}
        self._barred = graph.descendants(self._failed)
        self._unsettled = graph.descendants(states.keys() - self._failed)

    def judge(self, news: Update) -> Update:
        """The news as they are to be published; RELEASED means that the task has to run again.

        A success becomes upstream_failed when something that the task descends from has failed. Any end of a
        task is taken back when something that it descends from is going to run (again).
        """
        if news.state in (NodeState.RUNNING, NodeState.RELEASED):
            return news
        if news.task_id in self._barred:
            if news.state in (NodeState.FAILED, NodeState.UPSTREAM_FAILED):
                return news
            return self._upstream_failed(news)
        if news.task_id in self._unsettled:
            return replace(news, state=NodeState.RELEASED)
        return news

    def _upstream_failed(self, news: Update) -> Update:
        cause = min(self._failed & self._graph.ancestors([news.task_id]))
        return Update(
            news.task_id,
            NodeState.UPSTREAM_FAILED,
            start=news.start,
            end=news.end,
            note=_NOT_COUNTED.format(cause),
        )
