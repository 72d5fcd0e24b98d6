"""URIs of objects in stores: which pattern they match, and where a transfer puts them.

A URI may name a connection of Airflow before the bucket, as in `s3://my_connection@bucket/name`; an event of
the store does not know it, so it plays no part when URIs are compared.
"""

from __future__ import annotations

import re

from fsspec.utils import glob_translate

_WILDCARD = re.compile(r"[*?\[]")
_CONNECTION = re.compile(r"^(\w+://)[^/@]*@")


def split_pattern(uri: str) -> tuple[str, str]:
    """The folder before the first wildcard of a URI without a slash at its end, and the pattern below it.

    Without a wildcard all of it is the folder.
    """
    found = _WILDCARD.search(uri)
    if found is None:
        return uri.rstrip("/"), ""
    folder, _, _ = uri[: found.start()].rpartition("/")
    return folder, uri[len(folder) + 1 :]


def object_name(folder: str, pattern: str, uri: str) -> str | None:
    """The name of the object `uri` below a folder, if it is there and matches the pattern."""
    inside, bare = plain(folder).rstrip("/") + "/", plain(uri)
    if not bare.startswith(inside):
        return None
    name = bare.removeprefix(inside)
    expression = str(glob_translate(pattern))  # type: ignore[no-untyped-call]
    return name if name and re.fullmatch(expression, name) else None


def plain(uri: str) -> str:
    """A URI without the connection."""
    return _CONNECTION.sub(r"\1", uri)
