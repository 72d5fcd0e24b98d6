"""The `job` and `spark` blocks: what they may say, and the message of every mistake in them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from orrery.config.block import Block
from orrery.config.document import read_document
from orrery.config.errors import ConfigError
from orrery.config.kubernetes import Job, JobIngest, Spark, SparkIngest
from orrery.config.loader import validate


def read(folder: Path, text: str) -> Block:
    """The block that `text` describes; raises what is wrong with it."""
    file = folder / "sources.yml"
    file.write_text(text)
    document = read_document(file, file.name)
    return validate(JobIngest if "job" in document.data else SparkIngest, document)


def test_the_least_of_a_job(tmp_path: Path) -> None:
    made = read(tmp_path, "job: {image: example/loader}")
    assert isinstance(made, JobIngest)
    assert made.job == Job(image="example/loader")
    assert made.job.connection == "kubernetes_default"
    assert made.job.template == "job.yaml.j2"
    assert made.job.timeout == timedelta(hours=1)


def test_values_as_people_write_them(tmp_path: Path) -> None:
    text = """
job:
  image: example/loader
  args: --all
  env_from: {secrets: warehouse}
  resources: {requests: {cpu: 0.5, memory: 512Mi}, limits: {cpu: 2}}
  git_sync: {repo: "git@example.com:team/project.git", path: /git}
  timeout: 6h
"""
    made = read(tmp_path, text)
    assert isinstance(made, JobIngest)
    job = made.job
    assert (job.args, job.env_from.secrets) == (("--all",), ("warehouse",))
    assert (job.resources.requests, job.resources.limits) == ({"cpu": "0.5", "memory": "512Mi"}, {"cpu": "2"})
    assert job.git_sync is not None
    assert (job.git_sync.branch, job.timeout) == ("main", timedelta(hours=6))


@pytest.mark.parametrize(
    ("application", "language"),
    [("local:///a.py", "Python"), ("local:///a.R", "R"), ("s3a://bucket/a.jar", "Scala")],
)
def test_the_language_of_an_application_follows_from_its_name(application: str, language: str) -> None:
    main_class = "team.Load" if language == "Scala" else None
    assert Spark(image="i", application=application, main_class=main_class).language == language


JOB = "job:\n  image: i\n  "
SPARK = "spark:\n  image: i\n  "
MISTAKES = {
    "job: {}": "sources.yml:1:1: the key 'image' is missing",
    JOB + "comand: [ls]": (
        "sources.yml:3:3: unknown key 'comand'\n"
        "    3 |   comand: [ls]\n"
        "      |   ^^^^^^\n"
        "  Did you mean 'command'?"
    ),
    JOB + "env: {ROWS: 5}": "'ROWS' has the wrong type: 5\n    3 |   env: {ROWS: 5}",
    JOB + "env: {MAX-ROWS: '5'}": "sources.yml:3:9: 'MAX-ROWS' is no name of a variable",
    JOB + "env: {ORRERY_URI: x}": "sources.yml:3:9: ORRERY_URI is set by Orrery",
    JOB + "env_from: {secrets: [My_Secret]}": "'My_Secret' is no name of a Kubernetes object",
    JOB + "env_from: {config_map: [a]}": "Did you mean 'config_maps'?",
    JOB + "volumes: [{name: v, mount_path: /v}]": "the volume 'v' holds nothing",
    JOB
    + "volumes: [{name: v, mount_path: /v, secret: s, claim: c}]": "the volume 'v' holds secret and claim",
    JOB + "volumes: [{name: v, mount_path: v, secret: s}]": "'v' is no path inside of a container",
    JOB + "volumes: [{name: v, mount_path: /a/../b, secret: s}]": "'/a/../b' is no path inside",
    JOB + "volumes: [{name: a_b, mount_path: /v, secret: s}]": "'a_b' cannot be the name",
    JOB + "volumes: [{name: v, path: /v, secret: s}]": "unknown key 'path'",
    JOB + "volumes: [{name: v, mount_path: /v, secret: s}, {name: v, mount_path: /w, secret: s}]": (
        "'v' stands for two volumes"
    ),
    JOB + "git_sync: {repo: https://example.com/a, path: /v}\n  "
    "volumes: [{name: v, mount_path: /v, secret: s}]": "'/v' stands for two volumes",
    JOB + "git_sync: {repo: https://me:secret@example.com/a, path: /git}": (
        "the address of the repository holds a password"
    ),
    JOB + "git_sync: {repo: example, path: /git}": "'example' is no repository",
    JOB + "git_sync: {repo: https://example.com/a, path: /git, branch: -x}": "'-x' is no branch",
    JOB + "resources: {requests: {cpu: many}}": "'many' is no quantity",
    JOB + "resources: {request: {cpu: 1}}": "Did you mean 'requests'?",
    JOB + "template: ../job.yaml.j2": "'../job.yaml.j2' is no name of a template",
    JOB + "timeout: 0": "the timeout is shorter than a second",
    JOB + "timeout: long": "'long' is no duration",
    JOB + "namespace: Data": "'Data' cannot be the name",
    SPARK + "driver: {cores: 1}": "the key 'application' is missing",
    SPARK + "application: local:///a.jar": "'local:///a.jar' needs a main_class",
    SPARK + "application: a.py\n  main_class: x.Y": "sources.yml:4:3: only a .jar file has a main_class",
    SPARK + "application: a.py\n  driver: {memory: 2Gi}": "'2Gi' is no size of memory",
    SPARK + "application: a.py\n  executor: {instances: 0}": "'instances': 0 is not possible",
    SPARK + "application: a.py\n  driver: {instances: 2}": "unknown key 'instances'",
    SPARK + "application: a.py\n  command: [ls]": "unknown key 'command'",
}


@pytest.mark.parametrize("text", MISTAKES, ids=lambda text: text.splitlines()[-1].strip())
def test_a_mistake_is_shown_with_its_place(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert MISTAKES[text] in str(caught.value)
    assert len(caught.value.problems) == 1
