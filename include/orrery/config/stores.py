"""URIs of places that hold files: a folder, or a prefix in a bucket of an object store."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from fsspec.utils import glob_translate
from pydantic_core import PydanticCustomError

from orrery.config.block import mistake

EXAMPLES = "file:///data/landing, s3://my_aws@bucket/landing or gs://my_google@bucket/landing"
_WILDCARDS = re.compile(r"[*?\[]")
_FORM = re.compile(
    r"(?P<scheme>file|s3|gs)://(?:(?P<connection>[^/@]*)@)?(?P<bucket>[^/@]*)(?P<path>(?s:/.*)?)"
)
_CONNECTION = re.compile(r"[\w.-]+")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]*[a-z0-9]")


@dataclass(frozen=True)
class Place:
    """A folder (`bucket` is empty) or a prefix in a bucket.

    `connection` is the Airflow connection that leads there, None for the machine's own rights; `path` is
    absolute for a folder, and a prefix without slashes around it for a bucket.
    """

    scheme: str
    connection: str | None
    bucket: str
    path: str

    @classmethod
    def parse(cls, uri: str) -> Place:
        """The place that a URI names; what is wrong with it is a ValueError that does not repeat secrets."""
        match = _FORM.fullmatch(uri)
        if match is None:
            raise ValueError(f"{_without_secret(uri)!r} is no URI of a folder or a bucket")
        scheme, connection, bucket, path = match.group("scheme", "connection", "bucket", "path")
        if scheme == "file":
            if connection is not None or bucket or not path:
                raise ValueError(f"{_without_secret(uri)!r} is no URI of a folder")
            return cls(scheme, None, "", path.rstrip("/") or "/")
        if ":" in bucket or (connection is not None and not _CONNECTION.fullmatch(connection)):
            # Whoever writes keys there shall not find them in a log as well.
            raise ValueError(f"what stands behind {scheme}:// names no Airflow connection and no bucket")
        if not _BUCKET.fullmatch(bucket):
            raise ValueError(f"{bucket!r} is no name of a bucket")
        return cls(scheme, connection, bucket, path.strip("/"))

    @property
    def uri(self) -> str:
        """The URI, in one form for all ways to write it."""
        if self.scheme == "file":
            return f"file://{self.path}"
        before = f"{self.connection}@" if self.connection else ""
        return f"{self.scheme}://{before}{self.bucket}" + (f"/{self.path}" if self.path else "")

    def below(self, name: str) -> Place:
        """The place or file `name` below this one."""
        path = (
            f"{self.path.rstrip('/')}/{name}" if self.scheme == "file" else f"{self.path}/{name}".strip("/")
        )
        return Place(self.scheme, self.connection, self.bucket, path)

    def name_of(self, uri: str) -> str | None:
        """The name of an object below this place; None when it lies elsewhere.

        The URI may leave out the connection, as those in the events of a store do.
        """
        other = Place.parse(uri)
        root = "/" if self.path == "/" else f"{self.path}/" if self.path else ""
        if (other.scheme, other.bucket) != (self.scheme, self.bucket) or not other.path.startswith(root):
            return None
        if other.connection not in (None, self.connection):
            return None
        return other.path[len(root) :] or None

    def match(self, uri: str, pattern: str) -> str | None:
        """The name of an object below this place, if it matches a pattern; see `name_of`."""
        name = self.name_of(uri)
        return name if name is not None and matching(pattern)(name) else None


def split_pattern(uri: str) -> tuple[Place, str]:
    """The place above the first wildcard of a pattern such as `s3://bucket/in/*.csv`, and what is below it.

    Without a wildcard the last part is the pattern. Raises ValueError.
    """
    folder, _, _ = without_wildcards(uri).rpartition("/")
    pattern = uri[len(folder) + 1 :]
    if not pattern or folder in ("s3:/", "gs:/", "file:/"):
        raise ValueError(f"{_without_secret(uri)!r} names no files")
    # file:///*.csv
    place = Place.parse(folder if folder != "file://" else "file:///")
    return place, pattern


def without_wildcards(pattern: str) -> str:
    """What is before the first wildcard of a pattern."""
    wildcard = _WILDCARDS.search(pattern)
    return pattern[: wildcard.start()] if wildcard else pattern


def matching(pattern: str) -> Callable[[str], object]:
    """Tells whether a name matches a pattern, as a shell would."""
    return re.compile(str(glob_translate(pattern))).match  # type: ignore[no-untyped-call]


def check_place(value: str) -> str:
    """A URI of a place without wildcards, for a field of a block."""
    try:
        place = Place.parse(value)
    except ValueError as error:
        raise place_mistake(error) from None
    parts = place.path.split("/")
    if _WILDCARDS.search(place.path) or ".." in parts or "" in parts[1:-1]:
        raise mistake(f"{place.uri!r} is no place for files", "Leave out wildcards, .. and empty parts.")
    return value


def place_mistake(error: ValueError) -> PydanticCustomError:
    """The mistake of a field whose value is no place."""
    fix = f"Write for example {EXAMPLES}."
    if "connection" in str(error):
        fix = "Keep keys in an Airflow connection, and write its id there."
    return mistake(str(error), fix)


def _without_secret(uri: str) -> str:
    return re.sub(r"(?<=://).*:.*@", "...@", unquote(uri), flags=re.DOTALL)
