"""dbt's vars note whatever is read of them, by whatever way."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import copy, deepcopy
from typing import Any

import pytest

from orrery.manifest.watched_vars import ALL, OUTSIDE, Reads, WatchedVars, digests

GIVEN = {"day": "today", "load": True}
# What a template, or dbt, can do with a mapping to learn of one variable, or of all of them.
ONE: list[Callable[[Any], Any]] = [
    lambda given: given["day"],
    lambda given: given.get("day"),
    lambda given: "day" in given,
]
EVERY: list[Callable[[Any], Any]] = [
    *(str, repr, list, dict, len, bool, sorted, json.dumps, copy),
    *(lambda given: given.keys(), lambda given: [*given.values()], lambda given: given.items()),
    *(lambda given: given.copy(), lambda given: given | {}, lambda given: {} | given),
    *(lambda given: {**given}, lambda given: f"{given}", lambda given: list(reversed(given))),
    *(lambda given: given == GIVEN, lambda given: given != GIVEN),
    *(
        lambda given: given.setdefault("day", ""),
        lambda given: given.pop("day"),
        lambda given: given.popitem(),
    ),
]
# They change vars and tell nothing of them, or dict's own, which no template reaches.
SILENT = {
    *("__class_getitem__", "__delitem__", "__doc__", "__getattribute__", "__hash__", "__init__", "__ior__"),
    *("__new__", "__setitem__", "__sizeof__", "clear", "fromkeys", "update"),
    # A mapping has no order.
    *("__ge__", "__gt__", "__le__", "__lt__"),
}


@pytest.mark.parametrize("read", ONE)
def test_one_that_is_read_is_noted(read: Callable[[Any], Any]) -> None:
    watched = WatchedVars(GIVEN)
    assert read(watched) == read(GIVEN)
    assert watched.read == {OUTSIDE: {"day"}}


@pytest.mark.parametrize("read", EVERY)
def test_who_reads_all_is_noted(read: Callable[[Any], Any]) -> None:
    watched = WatchedVars(GIVEN)
    assert read(watched) == read(dict(GIVEN))
    assert ALL in watched.read[OUTSIDE]


def test_no_method_of_a_mapping_is_forgotten() -> None:
    assert {name for name in vars(dict) if getattr(WatchedVars, name) is getattr(dict, name)} <= SILENT


def test_what_does_not_count_is_not_noted() -> None:
    watched = WatchedVars(GIVEN)
    # dbt compares all of its settings with a text, and copies them.
    assert watched != "{}"
    assert type(deepcopy(watched)) is dict
    assert deepcopy(watched) == watched.unwatched() == GIVEN
    with watched.parsing(None):
        assert watched["day"]
    watched.stop()
    assert watched["load"]
    assert watched.read == {}


def test_names_are_noted_by_file() -> None:
    watched = WatchedVars(GIVEN)
    with watched.parsing("a.sql"):
        assert "day" in watched
        with watched.parsing("b.yml"):
            assert watched.get("other") is None
        assert watched["load"]
    with watched.parsing("c.sql"):
        pass
    assert watched["load"]
    assert watched.read == {"a.sql": {"day", "load"}, "b.yml": {"other"}, "c.sql": set(), OUTSIDE: {"load"}}


@pytest.mark.parametrize(
    ("now", "readers"),
    [
        (GIVEN, set()),
        ({"load": True, "day": "today"}, set()),
        ({**GIVEN, "new": 1}, {"all.sql"}),
        ({**GIVEN, "day": "then"}, {"all.sql", "a.sql"}),
        ({"day": "today"}, {"all.sql", "b.yml", OUTSIDE}),
        ({**GIVEN, "load": 1}, {"all.sql", "b.yml", OUTSIDE}),
        ({**GIVEN, "unset": None}, {"all.sql", "b.yml"}),
    ],
)
def test_who_has_read_what_has_changed(now: Mapping[str, Any], readers: set[str]) -> None:
    files = {
        "all.sql": {ALL},
        "a.sql": {"day"},
        "b.yml": {"load", "unset"},
        OUTSIDE: {"load"},
        "c.sql": set(),
    }
    reads = Reads("", digests(GIVEN), {file: frozenset(names) for file, names in files.items()})
    assert Reads.load(reads.dump()) == reads
    assert reads.readers(reads.changed(digests(now))) == readers


def test_values_are_the_same_in_any_order_and_of_any_kind() -> None:
    assert digests({"a": {"x": 1, "y": [2]}}) == digests({"a": {"y": [2], "x": 1}})
    values = [1, True, 1.0, "1", None, "None", "", [1], {"1": 1}, "\ud800"]
    assert len({digests({"a": value})["a"] for value in values}) == len(values)
