"""Tries a DAG as Airflow's DAG processor and scheduler use it, up to the columns of the database."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from airflow.models.dag import DagModel, DagTag
from airflow.models.log import Log
from airflow.serialization.serialized_objects import DagSerialization, LazyDeserializedDAG

from orrery.config.errors import OrreryError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.sdk import DAG

# PostgreSQL's JSON cannot hold it. An even number of backslashes before it are of themselves.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def check_dag(dag: DAG) -> None:
    """Raise what Airflow would when it loads the DAG, stores it and reads it again.

    It handles the DAGs of a file together: an error of one makes all of them vanish.
    """
    dag.validate()  # type: ignore[no-untyped-call]
    dag.check_cycle()
    data = DagSerialization.to_dict(dag)
    text = json.dumps(data, ensure_ascii=False)
    if _NUL.search(text):
        raise OrreryError(f"{dag.dag_id}: a text of this pipeline holds the character U+0000.\n  Remove it.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = f"U+{ord(error.object[error.start]):04X}"
        raise OrreryError(f"{dag.dag_id}: a text of this pipeline holds half a character, {found}.") from None
    _check_lengths(dag.dag_id, "the owners", [LazyDeserializedDAG(data=data).owner], DagModel.owners)
    _check_lengths(dag.dag_id, "an owner", (task.owner for task in dag.tasks), Log.owner)
    _check_lengths(dag.dag_id, "a tag", dag.tags, DagTag.name)
    DagSerialization.from_dict(json.loads(text))


def _check_lengths(dag_id: str, what: str, values: Iterable[str], column: object) -> None:
    most: int = column.type.length  # type: ignore[attr-defined]
    for value in values:
        if len(value) > most:
            raise OrreryError(
                f"{dag_id}: {what} of this pipeline has {len(value)} characters, Airflow stores {most}:\n"
                f"  {value[:100]} ..."
            )
