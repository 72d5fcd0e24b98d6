"""The documentation of tasks, shown in Airflow as Markdown."""

from __future__ import annotations

import pytest

from orrery.plan import doc
from unit.manifest.resources import resource


def test_a_model() -> None:
    model = resource(
        "model",
        "orders",
        description="  One row per order.\n",
        tags=["core", "daily"],
        config={"materialized": "table", "group": "sales"},
        columns={
            "id": {"data_type": "bigint", "description": "Key of\nthe order."},
            "state": {"description": "paid | open"},
            "noted": {},
        },
        raw_code="\nselect 1 | 2\n",
    )
    assert doc.node_doc(model) == (
        "**model** `models/orders.sql` · table · group sales · tags core, daily\n\n"
        "One row per order.\n\n"
        "| column | type | description |\n"
        "| --- | --- | --- |\n"
        "| id | bigint | Key of the order. |\n"
        "| state |  | paid \\| open |\n"
        "| noted |  |  |\n\n"
        "```sql\nselect 1 | 2\n```"
    )


@pytest.mark.parametrize("kind", ["seed", "source", "snapshot"])
def test_a_node_about_which_nothing_is_known(kind: str) -> None:
    assert doc.node_doc(resource(kind, "app.x")) == f"**{kind}** `{kind}s/app.x.sql`"


def test_a_seed_shows_no_sql() -> None:
    assert "```" not in doc.node_doc(resource("seed", "x", raw_code="id,name"))


def test_tests() -> None:
    tests = [
        resource("test", "unique_id"),
        resource("test", "positive", description="Amounts are\n> 0 | null.", config={"severity": "WARN"}),
        resource("test", "strict", config={"severity": "ERROR"}),
    ]
    assert doc.tests_doc(tests) == (
        "* `unique_id`\n* `positive` (warns only): Amounts are > 0 \\| null.\n* `strict`"
    )
