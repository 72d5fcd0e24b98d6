"""What a build and Airflow's api-server say to each other, through Airflow's task state store.

A build task publishes the states of its nodes with `task_state_store.set(PUBLISH, ...)`; the store of
orrery.execute.state_store, which runs in the api-server, writes them to the task instances in the same
transaction. The task instances are the state; beside them the store keeps only the graph of the run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config

from orrery.execute.run_graph import RunGraph

PREFIX = "orrery/"
# By a build: take tasks (a Hold); read which ones it holds ({task: Try as a dict}).
HOLD = PREFIX + "hold"
HELD = PREFIX + "held"
# By a build: the news of tasks (a Publish).
PUBLISH = PREFIX + "publish"
# By a build that has come to its end: what was built before something that it descends from has failed is no
# success any more.
SETTLE = PREFIX + "settle"
# By a build that does not reach its end (a Release): give back what it still holds. When no other try
# follows, what is left ends as upstream_failed.
RELEASE = PREFIX + "release"
# By a node's task: the build has to run (again); read the Answer.
REBUILD = PREFIX + "rebuild"
# By a node's task: nothing has been heard from the build for long; read the Answer.
ORPHANED = PREFIX + "orphaned"
# Where the store keeps the graph of the run, under the build's task.
GRAPH = PREFIX + "graph"
# Where a task keeps what its later tries are to know, in Airflow's own way (orrery.execute.memory).
MEMORY = "orrery-memory"
# The class of the operator of a build's nodes, as Airflow's task instances have it.
NODE_OPERATOR = "BuiltNodeOperator"
# The method of a node's task that ends it as failed; its argument is `failure` of the Update.
FAIL_METHOD = "fail"


_Message = TypeVar("_Message")
_KEYS_OF_AIRFLOW = frozenset({"__classname__", "__id__"})


class MessageError(ValueError):
    """A message that no build sends; the text says what is wrong with it, and repeats nothing of it."""


def _checked(value: Any) -> Any:
    """Values that PostgreSQL stores as JSON and as text, and that Airflow's serializer takes."""
    if isinstance(value, str) and "\0" in value:
        raise ValueError("a text contains a NUL character")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is not finite")
    if isinstance(value, dict):
        if not _KEYS_OF_AIRFLOW.isdisjoint(value):
            raise ValueError("a key is one that Airflow's serializer reserves")
        _checked([*value, *value.values()])
    elif isinstance(value, list):
        for each in value:
            _checked(each)
    return value


def _moment(value: str) -> str:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("a time has no time zone")
    try:
        moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time is out of range") from None
    return value


def _graph(value: str) -> str:
    try:
        RunGraph.of_text(value)
    except ValueError:
        raise ValueError("this is no graph") from None
    return value


_Text = Annotated[str, AfterValidator(_checked)]
_Time = Annotated[str, AfterValidator(_moment)]
_Json = Annotated[dict[str, Any], AfterValidator(_checked)]


class NodeState(StrEnum):
    """What has become of the nodes of one task."""

    RUNNING = "running"
    SUCCESS = "success"
    SKIPPED = "skipped"
    # Ends on a worker, so that retries and callbacks are those of any task.
    FAILED = "failed"
    # Something that it descends from has failed, for good.
    UPSTREAM_FAILED = "upstream_failed"
    # Back to where Airflow's own rules decide: the build did not run it.
    RELEASED = "released"


@dataclass(frozen=True)
class Try:
    """A try of a task that a build holds.

    `last` says that Airflow tries the task no more when this try fails. `since` is when somebody asked for
    this try (ISO 8601 in UTC): the start of the run, the end of the try before, or the moment of a clear.
    """

    number: int
    last: bool = True
    since: str | None = None


class Answer(StrEnum):
    """What a node's task learns when it asks for a build."""

    # A build is at work, or will be.
    COMING = "coming"
    # The build has failed for good, or was stopped by hand: the task has been ended with it.
    OVER = "over"


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Update:
    """The news of one task. Times are ISO 8601 in UTC.

    `result` becomes the XCom `dbt`, `rendered` is shown under Rendered Templates, `note` as the note
    of the task, and `failure` holds the arguments of FAIL_METHOD.
    """

    task_id: _Text
    state: NodeState
    start: _Time | None = None
    end: _Time | None = None
    result: _Json | None = None
    rendered: Annotated[dict[str, str], AfterValidator(_checked)] | None = None
    note: _Text | None = None
    failure: _Json | None = None

    def as_dict(self) -> dict[str, Any]:
        """The update as JSON has it; what is not set is left out.

        Characters that PostgreSQL does not store, which a message of dbt may contain, are replaced.
        """
        return {key: _storable(value) for key, value in asdict(self).items() if value is not None}

    @classmethod
    def of(cls, values: Any) -> Update:
        """The update that `as_dict` has written; raises MessageError."""
        return _read(cls, values)


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Hold:
    """A build asks for tasks; `host` and `pid` are those of its process.

    `again` says that tasks that have ended begin anew. `graph` is the RunGraph as text, when it is new.
    """

    tasks: list[_Text]
    host: Annotated[str, Field(max_length=1000), AfterValidator(_checked)]
    pid: Annotated[int, Field(ge=0, lt=1 << 31)]
    again: bool = False
    graph: Annotated[str, AfterValidator(_graph)] | None = None


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Publish:
    """A build tells the news of tasks; with `alive`, also that it still works on the others."""

    updates: list[Update]
    alive: bool


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Release:
    """A build does not reach its end; `final` says that no other try can help."""

    reason: _Text
    final: bool


def read_message(kind: type[_Message], text: str) -> _Message:
    """A message that has come as JSON; raises MessageError."""
    try:
        message: _Message = _READERS[kind].validate_json(text, strict=True)
    except ValidationError as error:
        raise _wrong(kind, error) from None
    return message


def _read(kind: type[_Message], values: Any) -> _Message:
    try:
        # From Python's objects an enumeration is not taken as its value in the strict mode.
        read: _Message = _READERS[kind].validate_python(values)
    except ValidationError as error:
        raise _wrong(kind, error) from None
    return read


def _wrong(kind: type, error: ValidationError) -> MessageError:
    first = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return MessageError(f"not a valid {kind.__name__}: {f'{place}: ' if place else ''}{first['msg']}")


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, Mapping):
        return {key: _storable(each) for key, each in value.items()}
    return [_storable(each) for each in value] if isinstance(value, list | tuple) else value


_READERS: dict[Any, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (Update, Hold, Publish, Release)}
