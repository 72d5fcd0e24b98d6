"""Generate a dbt project of a given size: layers of models, each with one test.

Used by the benchmarks. Half of the nodes are models, the other half their tests; a model
reads one or two models of the layer before it, so that the lineage is wide and deep.
"""

from __future__ import annotations

from pathlib import Path

LAYER_WIDTH = 25


def generate_project(root: Path, nodes: int, name: str = "generated") -> None:
    """Write a dbt project with `nodes` nodes (models plus tests) under `root`."""
    models = root / "models" / "bench"
    models.mkdir(parents=True)
    count = nodes // 2
    (root / "dbt_project.yml").write_text(
        f"name: {name}\nversion: '1.0'\nprofile: orrery\n"
        "models:\n  +materialized: table\n  +tags: [bench]\n"
        "packages-install-path: \"{{ env_var('ORRERY_DBT_PACKAGES', 'dbt_packages') }}\"\n"
    )
    documented: list[str] = ["models:"]
    for i in range(count):
        parents = [p for p in {i - LAYER_WIDTH, i - LAYER_WIDTH - (i % 7)} if p >= 0]
        # One row in every model: the nodes are what is measured, not the warehouse.
        select = " intersect ".join(
            f"select 1 as id, 1.5 as amount from {{{{ ref('model_{p:05d}') }}}}" for p in sorted(parents)
        )
        body = select or "select 1 as id, 1.5 as amount"
        (models / f"model_{i:05d}.sql").write_text(
            f"-- model {i}\nwith source as (\n    {body}\n)\nselect id, amount from source\n"
        )
        documented += [
            f"  - name: model_{i:05d}",
            f"    description: Generated model number {i}; one row per id.",
            "    columns:",
            "      - name: id",
            "        description: The identifier.",
            "        data_tests: [not_null]",
            "      - name: amount",
            "        description: An amount in euros.",
        ]
    (models / "models.yml").write_text("\n".join(documented) + "\n")
