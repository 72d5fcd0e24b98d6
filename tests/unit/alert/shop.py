"""A pipeline `shop`: a source, orders of it, thirty marts of the orders, and two exposures."""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG as AirflowDag
from airflow.sdk import TaskGroup, TriggerRule

from orrery.execute.node import BuiltNodeOperator
from orrery.manifest.slim import slim_manifest
from orrery.plan.model import TaskKind
from unit.manifest.resources import full_manifest, resource

SOURCE, ORDERS = "source.shop.app.orders", "model.shop.stg_orders"
TEST = "test.shop.assert_orders_are_paid"
# Of another source.
APART = "model.shop.apart"
MARTS = [f"model.shop.mart_{number:02}" for number in range(30)]

_RESOURCES = [
    resource(
        "source",
        "app.orders",
        freshness={"warn_after": {}, "error_after": {"count": 6, "period": "hour"}},
        relation_name="app.orders",
    ),
    resource(
        "model",
        "stg_orders",
        [SOURCE],
        config={"group": "sales", "meta": {"orrery": {"samples": 2}}},
        columns={
            "order_id": {"data_type": "bigint"},
            "email": {"data_type": "text", "tags": ["pii"]},
            "amount": {"data_type": "numeric"},
        },
    ),
    resource(
        "test",
        "assert_orders_are_paid",
        [ORDERS],
        config={"severity": "error", "meta": {"orrery": {"samples": True}}},
    ),
    *(resource("model", uid.split(".")[2], [ORDERS]) for uid in MARTS),
    resource("model", "apart"),
]
_GROUPS = [
    {"name": "analytics", "owner": {"name": "Analytics Team"}},
    {"name": "sales", "owner": {"email": "sales@example.com"}},
]


STAGES = ("ingest", "source_freshness", "staging", "tests", "core")


def slim() -> dict[str, Any]:
    """The slim manifest."""
    manifest = full_manifest(*_RESOURCES, groups=_GROUPS)
    manifest["exposures"] = {
        "exposure.shop.board": {"name": "board", "depends_on": {"nodes": [MARTS[3]]}},
        "exposure.shop.elsewhere": {"name": "elsewhere", "depends_on": {"nodes": ["model.shop.other"]}},
    }
    found = slim_manifest(manifest, {each["unique_id"] for each in _RESOURCES}, {})
    found["groups"]["sales"]["alerts"] = {"slack": "#sales", "mention": "<@U123>"}
    return found


def _dag() -> AirflowDag:
    with AirflowDag("shop", schedule=None) as dag:
        groups = {name: TaskGroup(name) for name in STAGES}

        def task(stage: str, name: str, kind: TaskKind, *nodes: str) -> Any:
            return BuiltNodeOperator(
                task_id=name,
                task_group=groups[stage],
                kind=kind,
                stage=stage,
                nodes=nodes,
                trigger_rule=TriggerRule.NONE_FAILED,
            )

        fresh = task("source_freshness", "app__orders", TaskKind.FRESHNESS, SOURCE)
        orders = task("staging", "stg_orders", TaskKind.MODEL, ORDERS)
        tests = task("tests", "stg_orders", TaskKind.TEST, TEST)
        marts = [task("core", uid.split(".")[2], TaskKind.MODEL, uid) for uid in MARTS]
        ingest = task("ingest", "app__orders", TaskKind.INGEST, SOURCE)
        build = EmptyOperator(task_id="build", trigger_rule=TriggerRule.ALL_DONE)
        ingest >> build >> [fresh, task("core", "apart", TaskKind.MODEL, APART)]
        ingest >> fresh >> orders >> tests >> marts
    return dag


DAG = _dag()
