"""How to have dbt select given nodes and no other."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_RESULT: dict[str, Any] = {
    "status": "success",
    "execution_time": 0.0,
    "thread_id": "",
    "timing": [],
    "message": None,
    "failures": None,
    "adapter_response": {},
    "compiled": None,
    "compiled_code": None,
    "relation_name": None,
}


def exactly(unique_ids: Iterable[str], folder: Path) -> dict[str, Any]:
    """Arguments of any of dbt's commands that select these nodes and no other.

    dbt has no selector for unique ids, and names do not tell nodes apart: `fqn:shop.orders` is the model and
    everything in the folder `orders`, and a dot or a `*` in a name means something else again. One selector
    per node would also cost dbt time that grows with the square of their number. But dbt can select by the
    results of an earlier run, in one pass: so here is one, in which these nodes, and only they, succeeded.

    :param folder: where the results are written; commands that run at the same time need different ones
    """
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "metadata": {"dbt_schema_version": "https://schemas.getdbt.com/dbt/run-results/v6.json"},
        "results": [{"unique_id": unique_id, **_RESULT} for unique_id in unique_ids],
        "elapsed_time": 0.0,
        "args": {},
    }
    (folder / "run_results.json").write_text(json.dumps(document), encoding="utf-8")
    return {"select": ("result:success",), "state": str(folder), "indirect_selection": "empty"}
