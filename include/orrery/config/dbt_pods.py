"""The block `kubernetes` of a pipeline: the pods in which dbt runs its nodes."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from orrery.config.block import mistake
from orrery.config.workload import EnvFrom, PodBlock, Resources, Template, Timeout

# In a worker: the image of the pods, where a pipeline names none.
IMAGE_VARIABLE = "ORRERY_POD_IMAGE"

_LABEL_KEY = re.compile(r"([a-z0-9][a-z0-9.-]*/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")


def _check_labels(value: dict[str, str]) -> dict[str, str]:
    for key, text in value.items():
        if not _LABEL_KEY.fullmatch(key) or key.startswith("orrery/"):
            raise mistake(
                f"{key!r} cannot be the key of a label", "Write for example team or example.com/team.", key
            )
        if not _LABEL_VALUE.fullmatch(text):
            raise mistake(
                f"{text!r} cannot be the value of a label",
                "Write letters, digits, -, _ and . only, up to 63, with a letter or digit at both ends.",
                key,
            )
    return value


class DbtPods(PodBlock):
    """Pods in which dbt runs. Their image holds the project, as that of the Dockerfile does."""

    pods: Literal["build", "per_model"] = Field(
        "build",
        description="build: one pod runs one dbt process for the whole pipeline; per_model: each task has a "
        "pod of its own.",
    )
    image: str | None = Field(
        None,
        min_length=1,
        description=f"The image with the project; by default what {IMAGE_VARIABLE} names for the workers.",
    )
    env_from: EnvFrom = Field(
        EnvFrom(config_maps=("pipeline-env",), secrets=("warehouse",)),
        description="Variables from config maps and secrets, such as the password of the warehouse.",
    )
    resources: Resources = Field(
        Resources(requests={"cpu": "500m", "memory": "1Gi"}, limits={"memory": "2Gi"}),
        description="CPU and memory.",
    )
    labels: Annotated[dict[str, str], AfterValidator(_check_labels)] = Field(
        {}, description="Labels of the pod, beside those of Airflow and Orrery."
    )
    timeout: Timeout = Field(
        timedelta(hours=6), description="After this time a pod is stopped, and its task fails."
    )
    template: Template = Field(
        "dbt_pod.yaml.j2", description="The file in include/templates that makes the pod."
    )
