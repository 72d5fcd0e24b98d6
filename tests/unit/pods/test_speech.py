"""What a pod tells in its log: whole, once, and apart from what is for people."""

from __future__ import annotations

import io
from typing import Any

import pytest

from orrery.execute.channel import NodeState, Update
from orrery.execute.collector import Line
from orrery.pods.speech import Listener, Speaker, for_people

DONE = Update("core.a", NodeState.SUCCESS, result={"message": "ünïcode \n orrery:1:x"})
LINES = [Line("2026-01-31T00:00:00", "info", "OK created")]


DAYS = [["2026-01-30T00:00:00+00:00", "2026-01-31T00:00:00+00:00"]]
BATCHES: Any = {"model.shop.a": {"successful": DAYS, "failed": DAYS}}


class Heard:
    """A listener and all that it passes on."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.news: list[Update] = []
        self.logs: list[Any] = []
        self.batches: list[Any] = []
        self.listener = Listener(
            self.told.append, self.news.append, lambda *log: self.logs.append(log), self.batches.append
        )


@pytest.fixture
def heard() -> Heard:
    return Heard()


def spoken(*updates: Update) -> list[str]:
    """The lines of a pod that tells of these."""
    out = io.StringIO()
    speaker = Speaker(out)
    for update in updates:
        speaker.add(update)
    return out.getvalue().splitlines()


def test_everything_arrives(heard: Heard) -> None:
    out = io.StringIO()
    speaker = Speaker(out)
    out.write("Running with dbt\n")
    running = Update("core.a", NodeState.RUNNING, start="2026-01-31T00:00:00+00:00")
    speaker.add(running)
    speaker.add(DONE)
    speaker.write("core.a", 2, LINES)
    speaker.remember(BATCHES)
    speaker.end({"core.a": "Got 1 result"})
    for line in out.getvalue().splitlines():
        heard.listener.hear(line)
    assert heard.told == ["Running with dbt"]
    assert heard.news == [running, DONE]
    assert heard.logs == [("core.a", 2, LINES)]
    listener = heard.listener
    assert (listener.updates, listener.warnings) == ({"core.a": DONE}, {"core.a": "Got 1 result"})
    assert heard.batches == [BATCHES]
    assert (listener.ended, listener.refusal) == (True, None)


def test_a_refusal(heard: Heard) -> None:
    out = io.StringIO()
    Speaker(out).refuse("no such node\n  Known nodes: a")
    heard.listener.hear(out.getvalue().rstrip("\n"))
    assert heard.listener.refusal == "no such node\n  Known nodes: a"
    assert not heard.listener.ended


def test_long_messages_come_in_lines_that_no_runtime_cuts(heard: Heard) -> None:
    long = Update("core.a", NodeState.FAILED, failure={"compiled_sql": "select 'ü' " * 10_000})
    lines = spoken(long, DONE)
    assert max(map(len, lines)) < 16_384
    assert len(lines) > 10
    for line in lines:
        heard.listener.hear(line)
    assert heard.news == [long, DONE]


@pytest.mark.parametrize("again", range(1, 6))
def test_lines_that_come_twice_count_once(heard: Heard, again: int) -> None:
    long = Update("core.a", NodeState.FAILED, failure={"compiled_sql": "x" * 20_000})
    lines = spoken(long, DONE, DONE)
    # The log breaks off, and is read again from an earlier point.
    for line in [*lines[:again], *lines[: again - 1], *lines]:
        heard.listener.hear(line)
    assert heard.news == [long, DONE, DONE]


def test_messages_count_whatever_their_time(heard: Heard) -> None:
    # A log that is read anew begins with lines that have come; the runtime gave one time to all of these.
    heard.listener.hear("Running with dbt", again=True)
    for line in spoken(DONE):
        heard.listener.hear(line, again=True)
    assert (heard.told, heard.news) == ([], [DONE])


def test_a_pod_that_was_killed_while_it_wrote(heard: Heard) -> None:
    [first], [second] = spoken(DONE), spoken(DONE)
    heard.listener.hear(first)
    heard.listener.hear(second.replace("orrery:1:", "orrery:2:")[:40])
    assert heard.news == [DONE]
    [told] = heard.told
    assert told.startswith("A message of the pod is broken: ")


def test_a_log_of_which_a_part_is_lost(heard: Heard) -> None:
    long = Update("core.a", NodeState.FAILED, failure={"compiled_sql": "x" * 20_000})
    lines = spoken(long, DONE)
    for line in (lines[0], *lines[2:]):
        heard.listener.hear(line)
    assert heard.news == [DONE]
    assert not heard.listener.ended


def test_only_what_is_for_people_is_shown() -> None:
    assert for_people("\n".join(["bad input", *spoken(DONE), "orrery: not one of ours"])) == (
        "bad input\norrery: not one of ours"
    )


@pytest.mark.parametrize(
    "content",
    ["1", "[]", '["update", {"task_id": "core.a", "state": "lost"}]', '["log", ["core.a"]]', '["end", 1]'],
)
def test_a_message_of_somebody_else_is_shown_and_changes_nothing(heard: Heard, content: str) -> None:
    heard.listener.hear(f"orrery:1:{content}")
    assert heard.told == [f"A message of the pod is broken: {content}"]
    assert (heard.news, heard.logs, heard.listener.ended) == ([], [], False)
