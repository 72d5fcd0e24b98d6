"""How a cluster checks what it is given."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate

VERSION = "1.35"
SPARK_SCHEMA: dict[str, Any] = json.loads(Path(__file__).with_name("spark_application.json").read_bytes())

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9][-a-z0-9.]*/)?[A-Za-z0-9]([-\w.]*[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-\w.]*[A-Za-z0-9])?)?")


class InvalidError(Exception):
    """An object that a cluster would not take; says what is wrong with it."""


class StatusError(Exception):
    """An answer that is an error: HTTP status, reason and message."""


def check_pod(pod: Mapping[str, Any]) -> None:
    """Raise InvalidError for what Kubernetes' schema does not know, and for what it checks beyond that."""
    try:
        kubernetes_validate.validate(dict(pod), VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        place = ".".join(str(part) for part in error.path)
        raise InvalidError(
            f"Pod {pod['metadata'].get('name')} is invalid: {place}: {error.message}"
        ) from None
    metadata, spec = pod["metadata"], pod["spec"]
    _check_metadata(metadata)
    volumes = [volume["name"] for volume in spec.get("volumes") or []]
    if len(set(volumes)) != len(volumes):
        raise InvalidError(f"spec.volumes: duplicate name in {volumes}")
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        mounts = container.get("volumeMounts") or []
        for mount in mounts:
            if mount["name"] not in volumes:
                raise InvalidError(f"volumeMounts: no volume {mount['name']!r}")
        if len({mount["mountPath"] for mount in mounts}) != len(mounts):
            raise InvalidError("volumeMounts: mountPath must be unique")


def check_spark_application(application: Mapping[str, Any]) -> None:
    """Raise InvalidError for fields that SparkApplications do not have, or that Orrery does not use."""
    try:
        jsonschema.validate(application, SPARK_SCHEMA)
    except jsonschema.ValidationError as error:
        place = ".".join(str(part) for part in error.path)
        raise InvalidError(f"SparkApplication is invalid: {place}: {error.message}") from None
    _check_metadata(application["metadata"])
    # <name>-ui-svc is the name of a service.
    if len(application["metadata"]["name"]) > 56:
        raise InvalidError("metadata.name: too long for what the Spark operator makes of it")


def selected(selector: str, values: Mapping[str, str]) -> bool:
    """Whether a label or field selector (a=b, a!=b, a, !a) fits."""
    for part in filter(None, selector.split(",")):
        key, _, value = part.replace("==", "=").partition("=")
        if key.endswith("!"):
            fits = values.get(key[:-1]) != value
        elif key.startswith("!"):
            fits = key[1:] not in values
        else:
            fits = key in values and ("=" not in part or values[key] == value)
        if not fits:
            return False
    return True


def _check_metadata(metadata: Mapping[str, Any]) -> None:
    if len(metadata["name"]) > 253 or not _NAME.fullmatch(metadata["name"]):
        raise InvalidError(f"metadata.name: Invalid value: {metadata['name']!r}")
    for key, value in (metadata.get("labels") or {}).items():
        if not _LABEL_KEY.fullmatch(key) or len(value) > 63 or not _LABEL_VALUE.fullmatch(value):
            raise InvalidError(f"metadata.labels: Invalid value: {key}={value!r}")
