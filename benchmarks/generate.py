"""Generate dbt projects of a given size, for the benchmarks."""

from __future__ import annotations

from pathlib import Path

LAYER_WIDTH = 25


def generate_project(root: Path, nodes: int, name: str = "generated") -> None:
    """Write a dbt project with `nodes` nodes under `root`: layers of models, each with one test.

    Half of the nodes are models, the other half their tests; a model reads one or two models of the layer
    before it, so that the lineage is wide and deep.
    """
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


def generate_landed(root: Path, pipelines: int, files: int, models: int, rows: int) -> list[str]:
    """Write a dbt project under `root` whose pipelines load files and build on them; returns their names.

    Each file, of `rows` rows, is for a table of its own, so that each is a task. Half of the models read
    those tables, all of them at least once; the others read two models each.

    :param files: in each pipeline, as are `models`; at least half as many as models
    """
    (root / "pipelines").mkdir(parents=True)
    (root / "dbt_project.yml").write_text(
        "name: landed\nversion: '1.0'\nprofile: orrery\nmodels:\n  +materialized: table\n"
        "packages-install-path: \"{{ env_var('ORRERY_DBT_PACKAGES', 'dbt_packages') }}\"\n"
    )
    content = "id,amount\n" + "".join(f"{number},1.5\n" for number in range(rows))
    names = [f"landed_{number:02d}" for number in range(pipelines)]
    for name in names:
        (root / "pipelines" / f"{name}.yml").write_text(f"select: path:models/{name}\nschedule: none\n")
        folder = root / "models" / name
        folder.mkdir(parents=True)
        tables = [f"{name}_{number:03d}" for number in range(files)]
        sources = ["sources:", f"  - name: {name}", "    schema: landing", "    tables:"]
        for table in tables:
            sources += [
                f"      - name: {table}",
                "        config:",
                f'          meta: {{orrery: {{ingest: {{files: "{table}/*.csv", key: [id], settle: 0s}}}}}}',
                "        columns: [{name: id, data_type: bigint}, {name: amount, data_type: numeric}]",
            ]
            (root / "landing" / table).mkdir(parents=True)
            (root / "landing" / table / "1.csv").write_text(content)
        (folder / "sources.yml").write_text("\n".join(sources) + "\n")
        half = models // 2
        for number in range(models):
            if number < half:
                read = [f"{{{{ source('{name}', '{table}') }}}}" for table in tables[number::half]]
            else:
                read = [f"{{{{ ref('{name}_model_{(number + step) % half:03d}') }}}}" for step in (0, 1)]
            select = "\nunion all ".join(f"select id, amount from {relation}" for relation in read)
            (folder / f"{name}_model_{number:03d}.sql").write_text(f"{select}\n")
    return names
