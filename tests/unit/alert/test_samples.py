"""Which rows of a failed test may be seen."""

from __future__ import annotations

from typing import Any

import pytest

from orrery.alert.samples import Permit, permit, shown, sql_of
from unit.manifest.resources import resource

COLUMNS = {"id": {}, "email": {"pii": True}, "amount": {}}


def model(samples: Any = None, columns: Any = None) -> dict[str, Any]:
    meta = {} if samples is None else {"meta": {"orrery": {"samples": samples}}}
    return resource("model", "m", config=meta, columns=COLUMNS if columns is None else columns)


def checked(name: str | None = None, column: str | None = None, samples: Any = None, **more: Any) -> Any:
    meta = {} if samples is None else {"meta": {"orrery": {"samples": samples}}}
    metadata = {"test_metadata": {"name": name, **more}} if name else {}
    return resource("test", "t", config=meta, column_name=column, **metadata)


OWN = {"unique_field", "value_field", "from_field", "n_records"}


@pytest.mark.parametrize(
    ("test", "parents", "expected"),
    [
        # Nobody allows it.
        (checked(), [model(columns={})], None),
        (checked(), [], None),
        (checked(samples=0), [model(False, columns={})], None),
        (checked(samples="yes"), [model("yes", columns={})], None),
        # The model does, and has nothing that is private.
        (checked(), [model(True, columns={"id": {}})], Permit(5)),
        (checked(), [model(3, columns={"id": {}})], Permit(3)),
        (checked(), [model(99, columns={"id": {}})], Permit(5)),
        # All that is read has to.
        (checked(), [model(True, columns={}), model(columns={})], None),
        # With a private column: dbt's own tests of another column ...
        (checked("unique", "id"), [model(True)], Permit(5, frozenset({"id", "amount"} | OWN))),
        (checked("unique", '"id"'), [model(True)], Permit(5, frozenset({"id", "amount"} | OWN))),
        # ... but not of that one, nor of an expression, nor a test that only has the name ...
        (checked("unique", "email"), [model(True)], None),
        (checked("unique", "EMAIL"), [model(True)], None),
        (checked("unique", "id || email"), [model(True)], None),
        (checked("unique", "id", namespace="other"), [model(True)], None),
        # ... and no SQL of which nobody knows what it calls what, unless it says so itself.
        (checked("my_test", "id"), [model(True)], None),
        (checked(), [model(True)], None),
        (checked(samples=True), [model()], Permit(5, frozenset({"id", "amount"}))),
    ],
)
def test_who_may_see_what(test: Any, parents: list[Any], expected: Permit | None) -> None:
    assert permit(test, parents, 5) == expected


def test_the_pipeline_sets_the_most() -> None:
    assert permit(checked(), [model(True, columns={})], 2) == Permit(2)
    assert permit(checked(), [model(True, columns={})], 0) is None


def test_only_permitted_columns_are_shown() -> None:
    rows = [(1, "a@b.c", None), (2, "d@e.f", 5), (3, "x", 6)]
    found = shown(["ID", "email", "amount"], rows, Permit(2, frozenset({"id", "amount"})))
    assert found is not None
    assert found.columns == ("ID", "amount")
    assert found.rows == (("1", "null"), ("2", "5"))
    assert shown(["email"], rows, Permit(2, frozenset({"id"}))) is None
    assert shown(["id"], [], Permit(2)) is None


def test_the_sql_of_one_test_among_several() -> None:
    assert sql_of("select 1", "a") == "select 1"
    both = "-- a\nselect 1\n-- a comment\n\n-- b\nselect 2"
    assert sql_of(both, "b") == "select 2"
    assert sql_of(both, "c") is None
    cosmos = "-- target/run/shop/a.sql\ncreate x\n\n-- target/compiled/shop/a.sql\nselect 1"
    assert sql_of(cosmos, "a") == "select 1"
    assert sql_of("x" * 20_000, "a") is None
