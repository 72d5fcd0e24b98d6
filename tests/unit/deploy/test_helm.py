"""The values for Airflow's Helm chart: what the chart knows, and Airflow's settings as in the image."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from airflow.cli.cli_parser import get_parser
from airflow.jobs.dag_processor_job_runner import DagProcessorJobRunner
from airflow.jobs.triggerer_job_runner import TriggererJobRunner

from orrery.config.dbt_pods import IMAGE_VARIABLE
from orrery.deploy import health
from orrery.deploy.settings import settings
from orrery.execute import task_instances
from services.kubernetes_checks import VERSION as KUBERNETES_VERSION
from support import chart

FILES = ("values.yaml", "git-sync.yaml")
# The page Data products of the api-server needs it, as do workers that run dbt.
PASSWORD_VARIABLE = "DBT_ENV_SECRET_WAREHOUSE_PASSWORD"
# The keys that we use of the chart's values.yaml, version 1.22.0 (chart/ of github.com/apache/airflow). Below
# those that end with * everything is for Kubernetes or for Airflow.
VERSION = "1.22.0"
PARTS = ("dagProcessor", "scheduler", "triggerer", "workers.celery")
WITHOUT_TOKEN = ("apiServer", "dagProcessor", "migrateDatabaseJob", "redis")
PROBES = (
    *(f"{part}.livenessProbe" for part in PARTS),
    *("apiServer.startupProbe", "scheduler.startupProbe"),
)
KNOWN = {
    *("airflowHome", "airflowVersion", "config.*", "env.*", "executor", "extraEnvFrom"),
    *("allowPodLaunching", "enableBuiltInSecretEnvVars.AIRFLOW_CONN_AIRFLOW_DB"),
    *("apiSecretKeySecretName", "data.metadataSecretName", "fernetKeySecretName", "jwtSecretName"),
    *("fullnameOverride", "gid", "uid"),
    *("apiServer.extraInitContainers.*", "apiServer.extraVolumeMounts.*", "apiServer.extraVolumes.*"),
    *(
        "apiServer.env.*",
        "apiServer.allowPodLogReading",
        "apiServer.replicas",
        "dagProcessor.env.*",
        "triggerer.env.*",
    ),
    *(f"{part}.resources.*" for part in ("apiServer", "dagProcessor", "migrateDatabaseJob", "scheduler")),
    *("triggerer.resources.*", "workers.celery.resources.*"),
    *("createUserJob.enabled", "dagProcessor.enabled", "migrateDatabaseJob.enabled", "triggerer.enabled"),
    *("postgresql.enabled", "redis.enabled", "statsd.enabled", "scheduler.replicas"),
    *("dags.mountPath", "dags.persistence.enabled"),
    *(f"dags.gitSync.{key}" for key in ("branch", "credentialsSecret", "depth", "enabled", "period", "ref")),
    *("dags.gitSync.repo", "dags.gitSync.subPath"),
    *(f"{part}.resources.*" for part in ("dags.gitSync", "redis")),
    *("dags.gitSync.securityContexts.container.*", "redis.securityContexts.*"),
    *(f"{part}.serviceAccount.automountServiceAccountToken" for part in WITHOUT_TOKEN),
    *(f"images.airflow.{key}" for key in ("pullPolicy", "repository", "tag")),
    *("logs.persistence.enabled", "logs.persistence.size", "triggerer.persistence.enabled"),
    *("securityContexts.pod.*", "securityContexts.containers.*"),
    *(
        f"{probe}.{key}"
        for probe in PROBES
        for key in ("command.*", "enabled", "failureThreshold", "initialDelaySeconds", "periodSeconds")
    ),
    *(f"{probe}.timeoutSeconds" for probe in PROBES),
    *(f"{part}.logGroomerSidecar.enabled" for part in PARTS),
    *(f"workers.celery.{key}" for key in ("args.*", "env.*", "replicas", "persistence.enabled")),
    *(
        f"workers.celery.keda.{key}"
        for key in (
            *("cooldownPeriod", "enabled", "maxReplicaCount", "minReplicaCount", "pollingInterval"),
            "query",
        )
    ),
    "workers.celery.terminationGracePeriodSeconds",
}
BOTH = pytest.mark.parametrize("files", [FILES[:1], FILES], ids=["image", "git-sync"])
# What Airflow needs in a cluster beside what the image says.
OF_CLUSTER = {
    ("logging", "base_log_folder"),
    ("core", "auth_manager"),
    ("core", "simple_auth_manager_users"),
    ("core", "simple_auth_manager_passwords_file"),
    ("celery", "worker_concurrency"),
}


def read(name: str) -> Any:
    return yaml.safe_load((chart.HELM / name).read_bytes())


def paths(values: Any, path: str = "") -> Iterator[str]:
    """The paths of all values; items of lists have no name of their own."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from paths(value, f"{path}.{key}".lstrip("."))
    elif isinstance(values, list):
        for value in values:
            yield from paths(value, f"{path}.-")
    else:
        yield path


def unknown(values: Any) -> set[str]:
    """The paths that are not among those of the chart."""
    open_ended = tuple(key.removesuffix("*") for key in KNOWN if key.endswith(".*"))
    return {path for path in paths(values) if path not in KNOWN and not path.startswith(open_ended)}


def merged(values: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Values as Helm merges two files."""
    both = {
        key: merged(values[key], value) if isinstance(value, dict) and key in values else value
        for key, value in over.items()
    }
    return values | both


@pytest.mark.parametrize("name", FILES)
def test_the_chart_knows_all_keys(name: str) -> None:
    assert unknown(read(name)) == set()


def test_every_known_key_is_in_use() -> None:
    used = {path for name in FILES for path in paths(read(name))}
    unused = {key for key in KNOWN if key not in used and not any(p.startswith(key[:-1]) for p in used)}
    # Not every part has every key of a probe.
    assert {key for key in unused if "Probe" not in key} == set()


def test_a_misspelt_key_is_noticed() -> None:
    values = merged(
        read("values.yaml"), {"scheduler": {"replica": 2}, "workers": {"keda": {"enabled": True}}}
    )
    assert unknown(values) == {"scheduler.replica", "workers.keda.enabled"}


def test_airflow_has_the_settings_of_the_image() -> None:
    config = read("values.yaml")["config"]
    expected = settings(Path("/opt/orrery"))
    found = {(section, key): str(value) for section, keys in config.items() for key, value in keys.items()}
    wanted = {(section, key): value for section, keys in expected.items() for key, value in keys.items()}
    for place in OF_CLUSTER:
        wanted.pop(place, None)
    assert {place: value for place, value in found.items() if place not in OF_CLUSTER} == wanted
    assert found.keys() >= OF_CLUSTER


def part(name: str) -> dict[str, Any]:
    """The values of a part, by its path."""
    found = read("values.yaml")
    for key in name.split("."):
        found = found[key]
    return dict(found)


@pytest.mark.parametrize(("name", "component"), [("scheduler", "scheduler"), ("workers.celery", "worker")])
def test_health_checks_are_those_of_the_image(name: str, component: str) -> None:
    command = part(name)["livenessProbe"]["command"]
    assert command == ["python", "-m", "orrery.deploy.health", component]
    # What these two ask is in their own container.
    assert component == "worker" or health._PAGES[component].startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("name", "job"), [("dagProcessor", DagProcessorJobRunner), ("triggerer", TriggererJobRunner)]
)
def test_what_has_no_door_looks_for_its_own_heartbeat(name: str, job: Any) -> None:
    """Not at the api-server, whose absence must not end it, and not at those of other replicas."""
    probe = part(name)["livenessProbe"]
    program, *arguments = probe["command"]
    assert program == "airflow"
    given = get_parser().parse_args(arguments)
    assert (given.subcommand, given.job_type, given.local) == ("check", job.job_type, True)
    # Airflow needs seconds to start, and more on a busy machine.
    assert probe["timeoutSeconds"] >= 20
    assert probe["timeoutSeconds"] < probe["periodSeconds"]


@pytest.mark.parametrize("name", PARTS)
def test_nothing_of_the_official_image_is_called(name: str) -> None:
    assert part(name)["logGroomerSidecar"]["enabled"] is False
    assert part(name)["livenessProbe"]["command"]


def test_workers_have_imported_dbt_before_they_fork() -> None:
    python, module, preloaded, *command = part("workers.celery")["args"]
    assert (python, module, preloaded) == ("python", "-m", "orrery.execute.preloaded")
    given = get_parser().parse_args(command)
    assert (given.subcommand, given.queues) == ("worker", "default")


def test_nodes_of_a_build_ask_for_no_workers() -> None:
    """KEDA's query, on rows like those of Airflow's database."""
    query = part("workers.celery")["keda"]["query"]
    slots = part("config")["celery"]["worker_concurrency"]
    for found, value in (("{{ .Values.config.celery.worker_concurrency }}", slots), ("::decimal", " * 1.0")):
        assert found in query
        query = query.replace(found, str(value))
    rows = [
        *[("running", task_instances.HOLDER, "default")] * 50,
        *[("deferred", task_instances.HOLDER, "default")] * 50,
        *[("running", "airflow", "default")] * slots,
        # Of some tasks the user is not known; and a node that a worker is to end is queued like others.
        *[("running", None, "default"), ("queued", None, "default")],
        ("queued", task_instances.HOLDER, "default"),
        *[("queued", None, "elsewhere"), ("success", "airflow", "default")] * 9,
    ]
    with sqlite3.connect(":memory:") as database:
        database.create_function("ceil", 1, math.ceil)
        database.execute("create table task_instance (state, unixname, queue)")
        database.executemany("insert into task_instance values (?, ?, ?)", rows)
        assert database.execute(query).fetchone() == (2,)
    database.close()


def all_of(files: tuple[str, ...]) -> dict[str, Any]:
    """The values of several files."""
    values: dict[str, Any] = {}
    for name in files:
        values = merged(values, read(name))
    return values


@BOTH
def test_what_parts_find_in_their_environment(files: tuple[str, ...]) -> None:
    values = all_of(files)
    env = {each["name"]: each["value"] for each in values["env"]}
    image = values["images"]["airflow"]
    assert env[IMAGE_VARIABLE] == f"{image['repository']}:{image['tag']}"
    # The image's own airflow.cfg is another one.
    assert env["AIRFLOW_CONFIG"] == f"{values['airflowHome']}/airflow.cfg"
    assert "namespace=orrery" in env["AIRFLOW_CONN_KUBERNETES_DEFAULT"]
    assert values["fullnameOverride"] in env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    # No password in plain text.
    for part in (values["apiServer"], values["workers"]["celery"]):
        given = [each for each in part["env"] if each["name"] != "ORRERY_PROJECT_DIR"]
        secrets = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in given}
        assert PASSWORD_VARIABLE in secrets
        # The chart leaves out anything else, such as `optional`.
        assert all(secret.keys() == {"name", "key"} for secret in secrets.values())


def test_only_parts_that_have_the_folder_of_git_look_for_the_project_there() -> None:
    values, image = all_of(FILES), all_of(FILES[:1])
    folder = f"{values['dags']['mountPath']}/repo"
    assert values["config"]["core"]["dags_folder"] == f"{folder}/{values['dags']['gitSync']['subPath']}"
    # With a DAG processor the chart mounts it there, and not in the scheduler or the api-server.
    assert values["dagProcessor"]["enabled"]
    for part in (values["dagProcessor"], values["triggerer"], values["workers"]["celery"]):
        assert {"name": "ORRERY_PROJECT_DIR", "value": folder} in part["env"]
    for part in (values, values["apiServer"], values["scheduler"]):
        assert "ORRERY_PROJECT_DIR" not in [each["name"] for each in part.get("env", [])]
    # Plugins are the api-server's first of all.
    assert values["config"]["core"]["plugins_folder"] == "/opt/orrery/include/plugins"
    # A list takes the place of another one; nothing is missing in it.
    kept = [each for each in values["workers"]["celery"]["env"] if each["name"] != "ORRERY_PROJECT_DIR"]
    assert kept == image["workers"]["celery"]["env"]


def test_the_api_server_may_write_its_passwords(tmp_path: Path) -> None:
    values = read("values.yaml")
    file = Path(values["config"]["core"]["simple_auth_manager_passwords_file"])
    server, image = values["apiServer"], values["images"]["airflow"]
    [at_work] = server["extraVolumeMounts"]
    assert (at_work["mountPath"], at_work.get("readOnly", False)) == (str(file.parent), False)
    volumes = {volume.pop("name"): volume for volume in server["extraVolumes"]}
    assert list(volumes[at_work["name"]]) == ["emptyDir"]

    [copier] = server["extraInitContainers"]
    assert copier["image"] == f"{image['repository']}:{image['tag']}"
    assert copier["securityContext"].items() >= values["securityContexts"]["containers"].items()
    mounts = {mount["mountPath"]: mount for mount in copier["volumeMounts"]}
    [source] = (path for path, mount in mounts.items() if "secret" in volumes[mount["name"]])
    assert mounts[str(file.parent)]["name"] == at_work["name"]

    # The folders of the container, here; files of a secret are links to what may only be read.
    for path in mounts:
        (tmp_path / path.lstrip("/")).mkdir(parents=True)
    secret, copy = tmp_path / source.lstrip("/") / file.name, tmp_path / str(file).lstrip("/")
    secret.with_name("data").write_text('{"admin": "known"}')
    secret.with_name("data").chmod(0o440)
    secret.symlink_to("data")
    subprocess.run(
        [
            part.replace("/", f"{tmp_path}/", 1) if part.startswith("/") else part
            for part in copier["command"]
        ],
        check=True,
    )
    assert (copy.is_symlink(), copy.stat().st_mode & 0o777, copy.read_text()) == (
        False,
        0o600,
        '{"admin": "known"}',
    )


def test_git_sync_takes_one_branch() -> None:
    """The chart gives it `branch` and `ref`; it takes the branch, which is one of Airflow's by default."""
    git = read("git-sync.yaml")["dags"]["gitSync"]
    assert git["branch"] == git["ref"]


@pytest.fixture
def folder() -> Path:
    """The folder of the chart."""
    found = os.environ.get(chart.FOLDER)
    if not found:
        pytest.skip(chart.missing())
    return Path(found)


@BOTH
def test_the_whole_schema_of_the_chart(files: tuple[str, ...], folder: Path) -> None:
    about = yaml.safe_load((folder / "Chart.yaml").read_bytes())
    schema = json.loads((folder / "values.schema.json").read_bytes())
    values = yaml.safe_load((folder / "values.yaml").read_bytes())
    for name in files:
        values = merged(values, read(name))
    checker = jsonschema.validators.validator_for(schema)(schema)
    found = [f"{'.'.join(map(str, error.path))}: {error.message}" for error in checker.iter_errors(values)]
    assert found == []
    assert about["version"].split(".")[:2] == VERSION.split(".")[:2]
    # And it would notice.
    values["scheduler"]["replica"] = 2
    assert [error.message for error in checker.iter_errors(values)]


@pytest.fixture
def rendered(files: tuple[str, ...]) -> list[Any]:
    """What Helm makes of the chart."""
    if chart.missing():
        pytest.skip(chart.missing())
    return chart.rendered(files)


def pods(objects: list[Any]) -> Iterator[tuple[str, Any]]:
    """The specs of all pods, by the names of what makes them."""
    for each in objects:
        if "template" in each.get("spec", ()):
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


def containers_of(spec: Any) -> list[Any]:
    """All containers of a pod, those that run first, too."""
    return [*(spec.get("initContainers") or ()), *spec["containers"]]


@BOTH
def test_kubernetes_takes_what_the_chart_makes(rendered: list[Any]) -> None:
    for each in rendered:
        if each["apiVersion"] != "keda.sh/v1alpha1":
            kubernetes_validate.validate(each, KUBERNETES_VERSION, strict=True)
    names = dict(pods(rendered))
    assert len(names) == 7
    for name, spec in names.items():
        containers = containers_of(spec)
        # What Kubernetes' policy "restricted" asks for.
        rights = [{**spec["securityContext"], **each["securityContext"]} for each in containers]
        for found in rights:
            assert found["runAsNonRoot"], name
            assert found["runAsUser"], name
            assert found["seccompProfile"] == {"type": "RuntimeDefault"}, name
            assert found["allowPrivilegeEscalation"] is False, name
            assert found["capabilities"] == {"drop": ["ALL"]}, name
        assert all(each["resources"]["limits"]["memory"] for each in containers), name
        assert all(each["resources"]["requests"] for each in containers), name


@BOTH
def test_pods_find_their_secrets_and_config_maps(rendered: list[Any]) -> None:
    given = [*rendered, *chart.secrets(), chart.manifest("pipeline-env.yaml")]
    keys = {
        (each["kind"], each["metadata"]["name"]): {*each.get("data", ()), *each.get("stringData", ())}
        for each in given
        if each["kind"] in ("ConfigMap", "Secret")
    }
    for name, spec in pods(rendered):
        for container in containers_of(spec):
            for each in container.get("env") or ():
                for source, reference in (each.get("valueFrom") or {}).items():
                    kind = {"secretKeyRef": "Secret", "configMapKeyRef": "ConfigMap"}[source]
                    assert reference["key"] in keys[kind, reference["name"]], (name, each["name"])
            for each in container.get("envFrom") or ():
                assert ("ConfigMap", each["configMapRef"]["name"]) in keys
        for volume in spec.get("volumes") or ():
            if "secret" in volume:
                assert ("Secret", volume["secret"]["secretName"]) in keys


@BOTH
def test_rights_in_kubernetes_are_those_of_our_role_alone(rendered: list[Any]) -> None:
    """Of all parts, workers and triggerer speak with Kubernetes. The chart itself gives nobody a role."""
    accounts = {each["metadata"]["name"]: each for each in rendered if each["kind"] == "ServiceAccount"}
    bound = {subject["name"] for subject in chart.manifest("role-binding.yaml")["subjects"]}
    users = {spec["serviceAccountName"] for _, spec in pods(rendered)}
    # With Celery workers the chart leaves no choice for the scheduler's.
    with_token = {name for name in users if accounts[name].get("automountServiceAccountToken", True)}
    assert with_token == {*bound, "airflow-scheduler"}
    assert [each for each in rendered if each["kind"].endswith("RoleBinding")] == []


@BOTH
def test_git_sync_is_told_one_branch(files: tuple[str, ...], rendered: list[Any]) -> None:
    told = {
        each["value"]
        for _, spec in pods(rendered)
        for container in containers_of(spec)
        for each in container.get("env") or ()
        if each["name"] in ("GITSYNC_REF", "GIT_SYNC_BRANCH")
    }
    assert told == ({"deploy"} if "git-sync.yaml" in files else set())
