"""What dbt leaves out of its messages: the place, and what was meant."""

from __future__ import annotations

import pytest

from conftest import WriteProject
from orrery.manifest.explain import could_not_parse

MODEL = "Compilation Error\n  Model 'model.tiny.b' (models/b.sql) depends on a {} which was not found"
SET = (
    "  Set REGION where dbt runs (for the tasks of Airflow: where Airflow is started, and start it anew), "
    "or give it a default: env_var('REGION', '...')."
)


@pytest.mark.parametrize(
    ("said", "place"),
    [
        (
            MODEL.format("node named 'custommers'"),
            "dbt/models/b.sql:2:14: there is no node 'custommers'\n"
            "    2 | from {{ ref('custommers') }}\n"
            "      |              ^^^^^^^^^^\n"
            "  Did you mean 'customers'?",
        ),
        (
            MODEL.format("node named 'custommers' in package or project 'shop'"),
            "dbt/models/b.sql:2:14: there is no node 'custommers'\n",
        ),
        (
            MODEL.format("source named 'app.orders'"),
            "dbt/models/b.sql:3:24: there is no source 'app.orders'\n"
            "    3 | join {{ source('app', 'orders') }}\n"
            "      |                        ^^^^^^\n"
            "  ./orrery dbt ls shows what there is.",
        ),
        (
            "Parsing Error\n  Env var required but not provided: 'REGION'",
            "dbt/profiles.yml:2:24: the environment variable REGION is not set\n"
            f"{SET}\n"
            "dbt/models/b.sql:1:21: the environment variable REGION is not set\n"
            "    1 | select '{{ env_var(\"REGION\") }}' as region\n"
            "      |                     ^^^^^^\n"
            f"{SET}",
        ),
        ("Runtime Error\n  Something else", ""),
    ],
)
def test_the_place_is_told(write_project: WriteProject, said: str, place: str) -> None:
    project = write_project(
        {
            "dbt/models/customers.sql": "select env_var('REGION', 'eu')",
            "dbt/models/b.sql": (
                "select '{{ env_var(\"REGION\") }}' as region\nfrom {{ ref('custommers') }}\n"
                "join {{ source('app', 'orders') }}"
            ),
            # Its lines may hold passwords.
            "dbt/profiles.yml": "tiny:\n  target: \"{{ env_var('REGION') }}\"\n",
        }
    )
    text = could_not_parse(project, said)
    assert text.startswith(f"dbt could not parse the project in dbt/:\n{said}")
    assert place in text
    assert "target" not in text


def test_a_variable_that_a_package_asks_for_is_named(write_project: WriteProject) -> None:
    text = could_not_parse(write_project({}), "Env var required but not provided: 'REGION'")
    assert text.splitlines()[2:] == ["dbt: the environment variable REGION is not set", SET]


def test_packages_that_are_not_installed_are_told_where_one_may_be_missing(
    write_project: WriteProject,
) -> None:
    said = "Compilation Error in model b (models/b.sql)\n  'dbt_expectations' is undefined"
    listed = {
        "dbt/packages/packages.yml": "packages: [{package: metaplane/dbt_expectations, version: 0.10.0}]"
    }
    project = write_project(listed)
    assert could_not_parse(project, said).splitlines()[3:] == [
        "dbt/packages/packages.yml: not all dbt packages that it lists are installed",
        "  If that is why: ./orrery build --packages tries again.",
    ]
    (project.dbt_dir / "dbt_packages" / "dbt_expectations").mkdir(parents=True)
    assert could_not_parse(project, said).splitlines()[3:] == []
