"""The templates of Kubernetes objects: valid with any block and any values, clear when broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conftest import WriteProject
from orrery.config.dbt_pods import DbtPods
from orrery.config.errors import ConfigError
from orrery.config.kubernetes import Job, Spark
from orrery.config.project import Project
from orrery.config.templates import SHIPPED, check_template, render_template
from services.kubernetes_checks import InvalidError, check_pod, check_spark_application

SHARED: dict[str, Any] = {
    "image": "example/loader:1",
    "args": ["--uri", "$(ORRERY_URI)"],
    "env": {"TARGET": "prod"},
    "env_from": {"config_maps": ["pipeline-env", "more"], "secrets": ["warehouse"]},
    "volumes": [
        {"name": "settings", "mount_path": "/etc/settings", "config_map": "settings"},
        {"name": "keys", "mount_path": "/etc/keys", "secret": "keys"},
        {"name": "models", "mount_path": "/models", "claim": "models"},
        {"name": "scratch", "mount_path": "/scratch", "empty_dir": True},
    ],
    "git_sync": {"repo": "https://example.com/a.git", "branch": "v1", "path": "/git", "secret": "git"},
    "namespace": "data",
    "service_account": "loader",
    "timeout": "30m",
}
FULL_JOB = {
    **SHARED,
    "command": ["python", "-m", "load"],
    "resources": {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
}
FULL_SPARK = {
    **SHARED,
    "application": "local:///git/repo/load.py",
    "driver": {"cores": 2, "memory": "2g"},
    "executor": {"cores": 4, "memory": "8g", "instances": 3},
    "spark_version": "4.0.1",
}
LABELS = {"orrery/pipeline": "events"}
# What would end a quoted text, a mapping, a line, a document or a Jinja expression; what YAML takes for
# something else than text; and characters that it does not write as they are.
NASTY = [
    '"',
    "'",
    "\\",
    '"\n  privileged: true\n',
    "}, {name: X, value: y",
    "{{ 1 + 1 }}",
    "{% raw %}",
    "# comment",
    "- item",
    "key: value",
    "&anchor",
    "*env",
    "!!python/object:x",
    "---",
    "...",
    "%YAML 1.2",
    "yes",
    "null",
    "0x1F",
    "1e3",
    "2026-01-31",
    "",
    " ",
    "\t",
    "\r\n",
    "\x00\x07\x7f\x85\u2028\ufeff",
    "日本 😀 ü",
    "x" * 5000,
]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project without templates of its own."""
    return Project(tmp_path)


def job(block: dict[str, Any]) -> Job:
    return Job.model_validate(block)


def spark(block: dict[str, Any]) -> Spark:
    return Spark.model_validate(block)


def pod_of(project: Project, block: dict[str, Any], uri: str = "") -> Any:
    made = render_template(project, job(block), name="load", labels=LABELS, uri=uri)
    check_pod(made)
    return made


def application_of(project: Project, block: dict[str, Any], uri: str = "") -> Any:
    made = render_template(project, spark(block), name="load", labels=LABELS, uri=uri)
    check_spark_application({**made, "metadata": {**made["metadata"], "namespace": "data"}})
    return made


def dbt_pod_of(project: Project, block: dict[str, Any]) -> Any:
    given = {"image": "example/orrery:1", "command": ("python",), "args": ("a", "b")}
    pods = DbtPods.model_validate(block)
    made = render_template(project, pods, name="load", labels=LABELS, uri=None, given=given)
    check_pod(made)
    return made


def test_the_pod_of_dbt(project: Project) -> None:
    volumes = [{"name": "runs", "mount_path": "/opt/orrery/dbt/target/runs", "claim": "runs"}]
    block = {"env": {"A": "b: {c}"}, "labels": {"team": "data"}, "volumes": volumes, "service_account": "dbt"}
    made = dbt_pod_of(project, block)
    spec = made["spec"]
    [container] = spec["containers"]
    assert made["metadata"] == {"name": "load", "labels": {**LABELS, "team": "data"}}
    assert (container["image"], container["command"]) == ("example/orrery:1", ["python"])
    assert (container["args"], container["env"]) == (["a", "b"], [{"name": "A", "value": "b: {c}"}])
    assert container["envFrom"] == [
        {"configMapRef": {"name": "pipeline-env"}},
        {"secretRef": {"name": "warehouse"}},
    ]
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("dbt", True)
    assert spec["activeDeadlineSeconds"] == 6 * 3600 + 60
    # What dbt writes to goes with the pod, but for what has a volume.
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]} == {
        "/opt/orrery/dbt/target/runs": "runs",
        "/var/lib/orrery": "scratch-home",
        "/tmp": "scratch-tmp",
    }
    assert [volume["name"] for volume in spec["volumes"]] == ["runs", "scratch-home", "scratch-tmp"]


def test_the_least_of_a_pod_of_dbt(project: Project) -> None:
    spec = dbt_pod_of(project, {"env_from": {}})["spec"]
    [container] = spec["containers"]
    assert "env" not in container
    assert "envFrom" not in container
    assert spec["automountServiceAccountToken"] is False
    # What the cluster's policy "restricted" asks for.
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    context = container["securityContext"]
    assert (context["allowPrivilegeEscalation"], context["capabilities"]) == (False, {"drop": ["ALL"]})


def test_the_pod_of_a_full_job(project: Project) -> None:
    made = pod_of(project, FULL_JOB, "s3://bucket/a.json")
    spec = made["spec"]
    (container,), (git,) = spec["containers"], spec["initContainers"]
    assert made["metadata"] == {"name": "load", "labels": LABELS}
    assert (spec["restartPolicy"], spec["serviceAccountName"]) == ("Never", "loader")
    assert spec["activeDeadlineSeconds"] == 1860
    assert (container["command"], container["args"]) == (["python", "-m", "load"], SHARED["args"])
    assert container["env"] == [
        {"name": "TARGET", "value": "prod"},
        {"name": "ORRERY_URI", "value": "s3://bucket/a.json"},
    ]
    assert container["envFrom"] == [
        {"configMapRef": {"name": "pipeline-env"}},
        {"configMapRef": {"name": "more"}},
        {"secretRef": {"name": "warehouse"}},
    ]
    assert container["resources"] == {
        "requests": {"cpu": "1", "memory": "1Gi"},
        "limits": {"memory": "2Gi"},
    }
    assert container["volumeMounts"] == [
        {"name": "settings", "mountPath": "/etc/settings"},
        {"name": "keys", "mountPath": "/etc/keys"},
        {"name": "models", "mountPath": "/models"},
        {"name": "scratch", "mountPath": "/scratch"},
        {"name": "git-sync", "mountPath": "/git"},
    ]
    assert spec["volumes"] == [
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "keys", "secret": {"secretName": "keys"}},
        {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "git-sync", "emptyDir": {}},
    ]
    assert "--repo=https://example.com/a.git" in git["args"]
    assert "--ref=v1" in git["args"]
    assert "--link=/git/repo" in git["args"]
    assert git["envFrom"] == [{"secretRef": {"name": "git"}}]


def test_the_pod_of_the_least_job(project: Project) -> None:
    made = pod_of(project, {"image": "example/loader"})
    (container,) = made["spec"]["containers"]
    assert container["env"] == [{"name": "ORRERY_URI", "value": ""}]
    assert "command" not in container
    assert "volumes" not in made["spec"]


def test_the_application_of_a_full_block(project: Project) -> None:
    made = application_of(project, FULL_SPARK, "s3://bucket/a.json")
    spec = made["spec"]
    assert (spec["type"], spec["mode"], spec["sparkVersion"]) == ("Python", "cluster", "4.0.1")
    assert spec["restartPolicy"] == {"type": "Never"}
    assert (spec["driver"]["cores"], spec["driver"]["memory"]) == (2, "2g")
    assert (spec["executor"]["instances"], spec["executor"]["memory"]) == (3, "8g")
    pod = pod_of(project, FULL_JOB, "s3://bucket/a.json")["spec"]
    for role in ("driver", "executor"):
        for key in ("env", "envFrom", "volumeMounts"):
            assert spec[role][key] == pod["containers"][0][key], (role, key)
        assert spec[role]["initContainers"] == pod["initContainers"]
        assert spec[role]["serviceAccount"] == "loader"
    assert spec["volumes"] == pod["volumes"]
    # Airflow's provider adds to one and to the other.
    assert spec["driver"]["env"] is not spec["executor"]["env"]


def test_the_application_of_the_least_block(project: Project) -> None:
    made = application_of(project, {"image": "i", "application": "local:///a.jar", "main_class": "a.B"})
    assert (made["spec"]["type"], made["spec"]["mainClass"]) == ("Scala", "a.B")
    assert "arguments" not in made["spec"]


@pytest.mark.parametrize("value", NASTY, ids=lambda value: repr(value)[:20])
def test_a_value_stays_a_value(project: Project, value: str) -> None:
    block = {"image": value or "i", "args": [value], "env": {"VALUE": value}}
    made = pod_of(project, {**block, "command": [value]}, value)
    (container,) = made["spec"]["containers"]
    assert container == {
        "name": "base",
        "image": value or "i",
        "command": [value],
        "args": [value],
        # Kubernetes makes one $ of two.
        "env": [{"name": "VALUE", "value": value}, {"name": "ORRERY_URI", "value": value}],
        "resources": {"requests": {}, "limits": {}},
    }
    assert made["spec"].keys() == {"restartPolicy", "activeDeadlineSeconds", "containers"}
    spec = application_of(project, {**block, "application": f"{value}.py"}, value)["spec"]
    assert spec["mainApplicationFile"] == f"{value}.py"
    assert spec["arguments"] == [value]
    assert spec["driver"]["env"] == container["env"]


def test_no_variable_is_put_into_the_uri(project: Project) -> None:
    made = pod_of(project, {"image": "i"}, "s3://bucket/$(PASSWORD)/$x")
    assert made["spec"]["containers"][0]["env"][0]["value"] == "s3://bucket/$$(PASSWORD)/$$x"


def test_a_project_has_its_own_template(write_project: WriteProject) -> None:
    text = (SHIPPED / "job.yaml.j2").read_text().replace("restartPolicy: Never", "restartPolicy: OnFailure")
    own = write_project({"include/templates/job.yaml.j2": text, "include/templates/gpu.yaml.j2": text})
    assert pod_of(own, {"image": "i"})["spec"]["restartPolicy"] == "OnFailure"
    assert pod_of(own, {"image": "i", "template": "gpu.yaml.j2"})["spec"]["restartPolicy"] == "OnFailure"
    check_template(own, job({"image": "i", "template": "gpu.yaml.j2"}))


HEAD = "apiVersion: v1\nkind: Pod\n"
BROKEN = {
    HEAD + "metadata: {name: {{ nam }}}": (
        "include/templates/own.yaml.j2:3:1: 'nam' is undefined\n"
        "    3 | metadata: {name: {{ nam }}}\n"
        "      | ^^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
        "  The template knows: env, job, labels, name, timeout_seconds, and the keys of the block."
    ),
    HEAD + "spec:\n  image: {{ job.imge }}": "own.yaml.j2:4:3: 'orrery.config.kubernetes.Job object' has no",
    HEAD + "{% if job.args %}": "own.yaml.j2:3:1: no valid Jinja: Unexpected end of template",
    HEAD + "spec: {{ name | shout }}": "own.yaml.j2:3:1: no valid Jinja: No filter named 'shout'.",
    HEAD + "spec: {{ 1 / 0 }}": "own.yaml.j2:3:1: division by zero",
    HEAD + "metadata:\n  name: {{ name }}/{{ name }}\n": "own.yaml.j2:4:3: what it makes is no YAML",
    HEAD + "spec: [\n": "own.yaml.j2:3:1: what it makes is no YAML",
    HEAD + "{% include 'other.j2' %}": "own.yaml.j2:3:1: 'other.j2' not found",
    "kind: Job\n": "own.yaml.j2: makes Job\n  Make one object with kind: Pod",
    "": "own.yaml.j2: makes no Kubernetes object",
    HEAD + "---\n" + HEAD: "own.yaml.j2: what it makes is no YAML",
}


@pytest.mark.parametrize("text", BROKEN, ids=lambda text: text.splitlines()[-1] if text else "empty")
def test_a_broken_template_is_shown_with_its_place(write_project: WriteProject, text: str) -> None:
    own = write_project({"include/templates/own.yaml.j2": text})
    with pytest.raises(ConfigError) as caught:
        check_template(own, job({"image": "i", "template": "own.yaml.j2"}))
    assert BROKEN[text] in str(caught.value)


def test_a_missing_template(write_project: WriteProject) -> None:
    own = write_project({"include/templates/gpu_job.yaml.j2": HEAD})
    with pytest.raises(ConfigError) as caught:
        check_template(own, job({"image": "i", "template": "gpu_jobs.yaml.j2"}))
    assert str(caught.value) == (
        "include/templates/gpu_jobs.yaml.j2: no such template\n  Did you mean 'gpu_job.yaml.j2'?"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metadata": {"name": "Load"}}, "Invalid value: 'Load'"),
        ({"metadata": {"name": "load", "labels": {"orrery/run": "a:b"}}}, "orrery/run='a:b'"),
        (
            {"spec": {"containers": [{"name": "base", "image": "i", "comand": ["ls"]}]}},
            "'comand' was unexpected",
        ),
        (
            {
                "spec": {
                    "containers": [
                        {"name": "base", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
                    ]
                }
            },
            "no volume 'v'",
        ),
    ],
)
def test_the_check_of_these_tests_finds_mistakes(project: Project, change: Any, message: str) -> None:
    made = pod_of(project, {"image": "i"})
    with pytest.raises(InvalidError, match=message):
        check_pod({**made, **change})
    application = application_of(project, {"image": "i", "application": "a.py"})
    application["metadata"]["namespace"] = "data"
    application["spec"]["driver"]["command"] = ["ls"]
    with pytest.raises(InvalidError, match="'command' was unexpected"):
        check_spark_application(application)
