"""Elementary's report: when there is none, and what edr is given."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from airflow.sdk.exceptions import AirflowSkipException

from conftest import WriteProject, write_files
from orrery.config.publish import Publish
from orrery.publish.elementary import _FONTS, write_profile
from orrery.publish.operator import ElementaryOperator

PROFILE = """\
tiny:
  target: "{{ env_var('SOME_TARGET', 'dev') }}"
  outputs:
    dev: &warehouse
      type: postgres
      host: 127.0.0.1
      port: "{{ env_var('SOME_PORT', '5432') | as_number }}"
      user: u
      password: "{{ env_var('DBT_ENV_SECRET_PASSWORD') }}"
      dbname: d
      schema: dev
    prod:
      <<: *warehouse
      schema: prod
    cloud: {type: bigquery, project: p, dataset: dev}
others: {target: x, outputs: {x: {password: hush}}}
"""


class Ti(SimpleNamespace):
    """What a task tells, kept."""

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value


def test_without_the_package_the_task_is_skipped_before_it_waits(write_project: WriteProject) -> None:
    write_project({})
    operator = ElementaryOperator(
        task_id="e", stage="publish", publish=Publish(elementary=True), documented=()
    )
    ti = Ti(xcoms={})
    context: Any = {"ti": ti, "dag_run": SimpleNamespace(conf={}), "params": {}}
    reason = "Elementary is not installed in dbt/dbt_packages: ./orrery build --packages installs it."
    with pytest.raises(AirflowSkipException) as skipped:
        operator.execute(context)
    assert str(skipped.value) == reason
    assert (ti.xcoms["dbt"]["status"], ti.xcoms["dbt"]["message"]) == ("skipped", reason)


@pytest.mark.parametrize(("target", "key"), [("dev", "schema"), ("prod", "schema"), ("cloud", "dataset")])
def test_the_profile_is_the_projects_own_with_another_schema(
    write_project: WriteProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, key: str
) -> None:
    project = write_project({})
    write_files(project.root, {"dbt/profiles.yml": PROFILE})
    monkeypatch.setenv("SOME_TARGET", target)
    monkeypatch.setenv("DBT_ENV_SECRET_PASSWORD", "hush")
    write_profile(project, tmp_path, "dev_elementary")
    path = tmp_path / "profiles.yml"
    assert path.stat().st_mode & 0o777 == 0o600
    # Nothing that is secret, and no other profile.
    assert "hush" not in path.read_text()
    profile = yaml.safe_load(path.read_bytes())
    own = yaml.safe_load(PROFILE)["tiny"]["outputs"][target]
    expected = {"target": target, "outputs": {target: {**own, key: "dev_elementary"}}}
    assert profile == {"elementary": expected}


def test_the_report_loads_no_fonts() -> None:
    page = (
        '<link rel="icon" href="./x.svg" />\n<link\n  href="https://fonts.googleapis.com/css2?family=Geist"\n'
        '  rel="stylesheet"\n/>\n<link rel="preconnect" href="https://fonts.gstatic.com" />\n<body>'
    )
    assert _FONTS.sub("", page).split() == ["<link", 'rel="icon"', 'href="./x.svg"', "/>", "<body>"]
