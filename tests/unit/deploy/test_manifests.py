"""The plain manifests: what Kubernetes' own schemas say of them, and whether they fit each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from orrery.config.dbt_pods import DbtPods
from orrery.deploy import roles
from services.kubernetes_checks import VERSION

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "include" / "deploy" / "kubernetes"
KUSTOMIZATION = "kustomization.yaml"
FILES = sorted(path for path in FOLDER.rglob("*.yaml") if path.name != KUSTOMIZATION)
# What the client of pods asks for: resource and verb.
NEEDED = {
    *(("pods", verb) for verb in ("create", "delete", "get", "list", "patch")),
    ("pods/log", "get"),
    *(("events", verb) for verb in ("list", "watch")),
}


def objects(path: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(path.read_bytes()) if each]


def one(name: str) -> dict[str, Any]:
    """The object of a file."""
    [path] = FOLDER.rglob(name)
    [found] = objects(path)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_kubernetes_knows_it(path: Path) -> None:
    for each in objects(path):
        kubernetes_validate.validate(each, VERSION, strict=True)


def test_a_mistake_is_noticed() -> None:
    role = one("role.yaml")
    role["rules"][0]["verb"] = ["get"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(role, VERSION, strict=True)


def resources(folder: Path) -> set[Path]:
    """All files that a kustomization leads to."""
    found: set[Path] = set()
    for name in yaml.safe_load((folder / KUSTOMIZATION).read_bytes())["resources"]:
        path = (folder / name).resolve()
        assert path.exists(), f"{folder.name}/{KUSTOMIZATION}: there is no {name}"
        found |= resources(path) if path.is_dir() else {path}
    return found


def test_kustomize_finds_everything_but_what_is_applied_by_hand() -> None:
    by_hand = ("secrets.example.yaml", "roles-job.yaml")
    assert resources(FOLDER) == {path for path in FILES if path.name not in by_hand}


def test_the_role_gives_what_pods_need_and_no_more() -> None:
    rules = one("role.yaml")["rules"]
    given = {(what, verb) for rule in rules for what in rule["resources"] for verb in rule["verbs"]}
    assert given == NEEDED
    binding, role = one("role-binding.yaml"), one("role.yaml")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["metadata"]["namespace"] == role["metadata"]["namespace"] == "orrery"


def test_no_secret_has_a_value() -> None:
    secrets = objects(FOLDER / "secrets.example.yaml")
    assert all(value == "" for secret in secrets for value in secret["stringData"].values())


def examples() -> dict[tuple[str, str], set[str]]:
    """The keys of each secret of the examples, by namespace and name."""
    secrets = objects(FOLDER / "secrets.example.yaml")
    return {
        (each["metadata"]["namespace"], each["metadata"]["name"]): set(each["stringData"]) for each in secrets
    }


def test_the_pods_find_what_they_read() -> None:
    env_from = DbtPods().env_from
    assert env_from.config_maps == (one("pipeline-env.yaml")["metadata"]["name"],)
    of_pods = {name for namespace, name in examples() if namespace == "orrery"}
    assert of_pods == set(env_from.secrets)


def values(name: str) -> dict[str, Any]:
    """A file of values for Airflow's chart."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "include" / "deploy" / "helm" / name).read_bytes())
    return found


def secrets_of_the_chart() -> dict[str, set[str]]:
    """The secrets that the values name, with the keys that they or the chart read."""
    chart, git = values("values.yaml"), values("git-sync.yaml")
    git_keys = {f"{prefix}_{what}" for prefix in ("GIT_SYNC", "GITSYNC") for what in ("USERNAME", "PASSWORD")}
    passwords = Path(chart["config"]["core"]["simple_auth_manager_passwords_file"]).name
    volumes = [volume for volume in chart["apiServer"]["extraVolumes"] if "secret" in volume]
    found = {
        chart["fernetKeySecretName"]: {"fernet-key"},
        chart["jwtSecretName"]: {"jwt-secret"},
        chart["apiSecretKeySecretName"]: {"api-secret-key"},
        chart["data"]["metadataSecretName"]: {"connection"},  # and KEDA's, below
        git["dags"]["gitSync"]["credentialsSecret"]: git_keys,
        **{volume["secret"]["secretName"]: {passwords} for volume in volumes},
    }
    for part in (chart["apiServer"], chart["workers"]["celery"]):
        for each in part["env"]:
            secret = each["valueFrom"]["secretKeyRef"]
            found.setdefault(secret["name"], set()).add(secret["key"])
    return found


def test_the_charts_secrets_are_the_examples_of_its_namespace() -> None:
    of_airflow = {name: keys for (namespace, name), keys in examples().items() if namespace == "airflow"}
    [of_job] = [each["secretRef"]["name"] for each in job_of_roles()["envFrom"] if "secretRef" in each]
    assert of_airflow.pop(of_job) == {
        "POSTGRES_PASSWORD",
        *(f"ORRERY_{role.upper()}_PASSWORD" for role in roles._ROLES),
    }
    assert of_airflow == secrets_of_the_chart()


def job_of_roles() -> dict[str, Any]:
    """The container of the job that makes roles."""
    [container] = one("roles-job.yaml")["spec"]["template"]["spec"]["containers"]
    return dict(container)


def test_the_job_of_roles_runs_what_there_is() -> None:
    container, images = job_of_roles(), values("values.yaml")["images"]["airflow"]
    assert container["command"] == ["python", "-m", roles.__name__]
    assert container["image"] == f"{images['repository']}:{images['tag']}"
