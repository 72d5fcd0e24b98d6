"""Whatever the texts of a dbt project say, no DAG keeps another from being stored in Airflow's database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from conftest import BASE, write_files
from differential.lab import Lab

_LONG = "long " * 2_000
_TEXTS = st.one_of(
    st.sampled_from(["", " ", "<b>&amp;</b>", "{{ 1 + 1 }}", "{# #}", "-- ; drop", "é" * 300, _LONG]),
    st.text(max_size=30),
)
_ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), _TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXTS, inner, max_size=3)),
    max_leaves=6,
)
_MODELS = st.fixed_dictionaries(
    {
        "description": _TEXTS,
        "meta": st.dictionaries(st.one_of(_TEXTS, st.sampled_from(["owner", "orrery", "pii"])), _ANYTHING),
        "tags": st.one_of(_TEXTS, st.lists(_TEXTS, max_size=3)),
        "owner": st.fixed_dictionaries(
            {"name": st.one_of(_TEXTS, st.none()), "email": st.one_of(_TEXTS, st.lists(_TEXTS, max_size=3))},
            optional={"slack": _ANYTHING, "orrery": _ANYTHING},
        ),
        "column": _TEXTS.filter(bool),
    }
)


def _project(models: list[dict[str, Any]]) -> dict[str, str]:
    """One pipeline a model, and one that is as it should be."""
    files = {**BASE, "dbt/models/good.sql": "select 1 as id", "dbt/pipelines/good.yml": "select: good\n"}
    documents: dict[str, list[Any]] = {"models": [], "groups": [], "exposures": []}
    for number, model in enumerate(models):
        name, owner = f"m{number}", model["owner"]
        column = {key: model[key] for key in ("description", "meta")}
        documents["models"].append(
            {
                "name": name,
                "description": model["description"],
                "config": {"meta": model["meta"], "tags": model["tags"], "group": f"g{number}"},
                "columns": [{"name": model["column"], **column}],
            }
        )
        documents["groups"].append({"name": f"g{number}", "owner": owner})
        documents["exposures"].append(
            {"name": f"e{number}", "type": "dashboard", "owner": owner, "depends_on": [f"ref('{name}')"]}
        )
        files[f"dbt/models/{name}.sql"] = "select 1 as id"
        files[f"dbt/pipelines/{name}.yml"] = f"select: {name}\n"
    return files | {"dbt/models/all.yml": yaml.safe_dump({"version": 2, **documents}, allow_unicode=True)}


def test_no_text_of_a_project_takes_another_dag_away(where: Lab, tmp_path: Path) -> None:
    stored = set()

    @seed(1)
    @settings(
        max_examples=12,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(_MODELS, min_size=6, max_size=12))
    def each(models: list[dict[str, Any]]) -> None:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        write_files(root, _project(models))
        done = where.world.ask({"op": "store", "root": str(root)})
        # Without any, dbt has refused the project.
        if done["dags"] or done["problems"]:
            assert "good" in done["dags"]
            stored.update(done["dags"])

    each()
    assert len(stored) > 6
