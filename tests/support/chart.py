"""Airflow's official Helm chart, where it is here, and what our values make of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
HELM = ROOT / "include" / "deploy" / "helm"
KUBERNETES = ROOT / "include" / "deploy" / "kubernetes"
FOLDER = "ORRERY_TEST_AIRFLOW_CHART"
# The image that stands in the values and manifests, without its tag.
IMAGE = "registry.example.com/data/orrery"


def missing() -> str:
    """Why the chart cannot be rendered; empty when it can."""
    if not os.environ.get(FOLDER):
        return f"set {FOLDER} to the folder of Airflow's chart, such as that of `helm pull --untar`"
    return "" if shutil.which("helm") else "there is no `helm`"


def rendered(
    files: Sequence[str] = ("values.yaml",), *, image: str = IMAGE, over: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The objects that Helm makes of the chart and our values, in the namespace `airflow`.

    :param files: of include/deploy/helm
    :param image: in place of that of the values, without its tag
    :param over: values of a test
    """
    with tempfile.TemporaryDirectory() as folder:
        options = []
        for name in files:
            text = (HELM / name).read_text(encoding="utf-8").replace(IMAGE, image)
            Path(folder, name).write_text(text, encoding="utf-8")
            options.append(f"--values={folder}/{name}")
        Path(folder, "over.yaml").write_text(yaml.safe_dump(over or {}), encoding="utf-8")
        options.append(f"--values={folder}/over.yaml")
        command = ["helm", "template", "airflow", os.environ[FOLDER], "--namespace=airflow", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def secrets() -> list[dict[str, Any]]:
    """The secrets that Airflow needs, without values."""
    found = yaml.safe_load_all((KUBERNETES / "secrets.example.yaml").read_bytes())
    return [each for each in found if each["metadata"]["namespace"] == "airflow"]


def manifest(name: str) -> dict[str, Any]:
    """The object of a file of include/deploy/kubernetes."""
    [path] = KUBERNETES.rglob(name)
    found: dict[str, Any] = yaml.safe_load(path.read_bytes())
    return found
