"""What all blocks have in common whose work runs in a Kubernetes cluster."""

from __future__ import annotations

import re
from collections import Counter
from datetime import timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from orrery.config.block import Block, Duration, Names, as_list, mistake

CONNECTION = "kubernetes_default"
# Set by Orrery in every container: the object that the run is about, or nothing.
URI_VARIABLE = "ORRERY_URI"
# The name of the volume that git-sync fills.
GIT_VOLUME = "git-sync"

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_QUANTITY = re.compile(r"\d+(\.\d+)?([numkMGTPE]|[KMGTPE]i)?")
_TEMPLATE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PASSWORD_IN_URL = re.compile(r"://[^/@]*:[^/@]*@")


def _check_name(value: str) -> str:
    if len(value) > 253 or not _NAME.fullmatch(value):
        raise mistake(
            f"{value!r} is no name of a Kubernetes object",
            "Write small letters, digits, - and . only, such as train-model.",
        )
    return value


def _check_label(value: str) -> str:
    if len(value) > 63 or not _LABEL.fullmatch(value):
        raise mistake(f"{value!r} cannot be the name", "Write small letters, digits and - only, up to 63.")
    return value


def _check_path(value: str) -> str:
    if not value.startswith("/") or value == "/" or ":" in value or ".." in value.split("/"):
        raise mistake(f"{value!r} is no path inside of a container", "Write for example /data/models")
    return value


def _check_env(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not _VARIABLE.fullmatch(name):
            raise mistake(
                f"{name!r} is no name of a variable",
                "Write letters, digits and _ only, such as MAX_ROWS.",
                name,
            )
        if name == URI_VARIABLE:
            raise mistake(f"{name} is set by Orrery", "Take another name, or leave it out.", name)
    return value


def _quantity(value: object) -> object:
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if isinstance(text, str) and not _QUANTITY.fullmatch(text):
        raise mistake(f"{text!r} is no quantity", "Write for example 500m, 2 or 4Gi.")
    return text


def _check_template(value: str) -> str:
    if not _TEMPLATE.fullmatch(value):
        raise mistake(f"{value!r} is no name of a template", "Write the name of a file in include/templates.")
    return value


def _check_repo(value: str) -> str:
    if _PASSWORD_IN_URL.search(value):
        raise mistake(
            "the address of the repository holds a password",
            "Put GITSYNC_USERNAME and GITSYNC_PASSWORD into a Kubernetes secret, and name it: secret: ...",
        )
    if not re.match(r"(https?://|ssh://|git@)\S+", value):
        raise mistake(f"{value!r} is no repository", "Write for example https://example.com/team/project.git")
    return value


def _check_branch(value: str) -> str:
    if not re.fullmatch(r"[\w./][\w./-]*", value):
        raise mistake(f"{value!r} is no branch, tag or commit", "Write for example main.")
    return value


def _check_timeout(value: timedelta) -> timedelta:
    if value < timedelta(seconds=1):
        raise mistake("the timeout is shorter than a second", "Write for example 30m or 6h.")
    return value


Template = Annotated[str, AfterValidator(_check_template)]
Timeout = Annotated[Duration, AfterValidator(_check_timeout)]
KubernetesName = Annotated[str, AfterValidator(_check_name)]
LabelName = Annotated[str, AfterValidator(_check_label)]
KubernetesNames = Annotated[
    tuple[KubernetesName, ...], BeforeValidator(as_list, json_schema_input_type=str | list[str])
]
ContainerPath = Annotated[str, AfterValidator(_check_path)]
Quantity = Annotated[str, BeforeValidator(_quantity, json_schema_input_type=str | int | float)]


class EnvFrom(Block):
    """Kubernetes objects whose entries become variables of the container."""

    config_maps: KubernetesNames = Field((), description="Names of config maps.")
    secrets: KubernetesNames = Field((), description="Names of secrets.")


class Volume(Block):
    """A folder in the container; one of config_map, secret, claim and empty_dir says what it holds."""

    name: LabelName = Field(description="The name of the volume in the pod.")
    mount_path: ContainerPath = Field(description="Where it is in the container.")
    config_map: KubernetesName | None = Field(None, description="A config map: one file for each entry.")
    secret: KubernetesName | None = Field(None, description="A secret: one file for each entry.")
    claim: KubernetesName | None = Field(None, description="A persistent volume claim.")
    empty_dir: bool = Field(False, description="An empty folder that goes when the pod goes.")

    @model_validator(mode="after")
    def _check_one_content(self) -> Volume:
        given = [key for key in ("config_map", "secret", "claim", "empty_dir") if getattr(self, key)]
        if len(given) != 1:
            raise mistake(
                f"the volume {self.name!r} holds {' and '.join(given) or 'nothing'}",
                "Keep or add one of config_map, secret, claim and empty_dir: true.",
            )
        return self


class GitSync(Block):
    """A repository that an init container fetches before the container starts."""

    repo: Annotated[str, AfterValidator(_check_repo)] = Field(description="The address of the repository.")
    branch: Annotated[str, AfterValidator(_check_branch)] = Field(
        "main", description="The branch, tag or commit."
    )
    path: ContainerPath = Field(description="A folder in the container; the repository is repo/ in it.")
    secret: KubernetesName | None = Field(
        None, description="A secret with GITSYNC_USERNAME and GITSYNC_PASSWORD, for a private repository."
    )
    image: str = Field(
        "registry.k8s.io/git-sync/git-sync:v4.4.0", min_length=1, description="The image of git-sync 4."
    )


class Resources(Block):
    """What the container asks for, and what it may take at most."""

    requests: dict[str, Quantity] = Field({}, description="Such as {cpu: 500m, memory: 1Gi}.")
    limits: dict[str, Quantity] = Field({}, description="Such as {memory: 2Gi}.")


class PodBlock(Block):
    """What all pods have in common."""

    env: Annotated[dict[str, str], AfterValidator(_check_env)] = Field(
        {}, description="Variables with plain values; secrets belong into env_from."
    )
    env_from: EnvFrom = Field(EnvFrom(), description="Variables from config maps and secrets.")
    volumes: tuple[Volume, ...] = Field((), strict=False, description="Folders in the container.")
    namespace: LabelName | None = Field(
        None, description="The namespace; by default that of the connection, else of Airflow's own pod."
    )
    service_account: KubernetesName | None = Field(None, description="The service account of the pod.")
    connection: str = Field(CONNECTION, min_length=1, description="The Airflow connection of the cluster.")
    timeout: Timeout = Field(
        timedelta(hours=1), description="After this time it is stopped, and the task fails."
    )

    @model_validator(mode="after")
    def _check_volumes(self) -> Self:
        for name, count in self._places().items():
            if count > 1:
                raise mistake(
                    f"{name!r} stands for two volumes",
                    "Change one of them; git_sync is a volume, too.",
                    "volumes",
                )
        return self

    def _places(self) -> Counter[str]:
        """How many volumes have a name or a path."""
        names = Counter(volume.name for volume in self.volumes)
        return names + Counter(volume.mount_path for volume in self.volumes)


class Workload(PodBlock):
    """What jobs and Spark applications have in common."""

    image: str = Field(min_length=1, description="The container image.")
    args: Names = Field((), description="Arguments; $(NAME) stands for the value of a variable.")
    git_sync: GitSync | None = Field(None, description="A repository that is fetched first.")

    def _places(self) -> Counter[str]:
        return super()._places() + Counter((GIT_VOLUME, self.git_sync.path) if self.git_sync else ())
