"""The `run` blocks of exposures."""

from __future__ import annotations

import pytest
import yaml

from conftest import WriteProject
from orrery.config.errors import ConfigError
from orrery.manifest.exposures import exposure_runs
from unit.manifest.resources import Resource

FILE = "models/exposures.yml"
TEXT = """\
exposures:
  - name: report
    type: dashboard
    owner: {name: Ann}
    config:
      meta:
        orrery:
          run:
            %s
"""
PARENTS = ("model.shop.a", "source.shop.app.s", "seed.shop.b")


def read(
    write_project: WriteProject, block: str, built: tuple[str, ...] = ("model.shop.a", "seed.shop.b")
) -> list[Resource]:
    text = TEXT % block
    project = write_project({f"dbt/{FILE}": text})
    (exposure,) = yaml.safe_load(text)["exposures"]
    resource = {
        **exposure,
        "unique_id": "exposure.shop.report",
        "package_name": "shop",
        "original_file_path": FILE,
        "depends_on": {"nodes": list(PARENTS)},
    }
    return exposure_runs(project, {resource["unique_id"]: resource}, built, ["nightly"])


def test_an_exposure_runs_after_what_it_depends_on(write_project: WriteProject) -> None:
    (entry,) = read(write_project, "http: {connection: bi, endpoint: /refresh, json: {a: 1}}")
    assert (entry["name"], entry["kind"]) == ("report", "http")
    assert entry["block"] == {"http": {"connection": "bi", "endpoint": "/refresh", "json": {"a": 1}}}
    assert entry["depends_on"] == {"nodes": ["model.shop.a", "seed.shop.b"]}


def test_it_belongs_to_pipelines_that_build_all_of_that(write_project: WriteProject) -> None:
    assert read(write_project, "pipeline: nightly", built=("model.shop.a",)) == []


MISTAKES = {
    "pipeline: nihgtly": "models/exposures.yml:9:23: unknown pipeline 'nihgtly'",
    "htp: {}": "models/exposures.yml:8:11: the run block does not say what it is",
    "http: {connection: bi, endpoint: refresh}": "'refresh' is no path",
    "http: {conection: bi}": "models/exposures.yml:9:20: unknown key 'conection'",
    "http: {connection: bi, method: POKE}": "'POKE' is no value of 'method'",
}


@pytest.mark.parametrize("block", MISTAKES)
def test_a_mistake_is_shown_with_its_place(write_project: WriteProject, block: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(write_project, block)
    assert MISTAKES[block] in str(caught.value)
