"""The place that takes what the runs of a pipeline publish: `runs/<run>/` for each run, and `latest/`."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orrery.config.stores import Place
from orrery.execute.run_folder import safe_name
from orrery.ingest.errors import FileError, IngestError
from orrery.ingest.stores import open_store, write_bytes

DOCS = "index.html"
ELEMENTARY = "elementary.html"
ARTIFACTS = ("manifest.json", "run_results.json", "sources.json", "catalog.json")
# What makes a folder one of a run.
RUN = "run.json"
LATEST = "latest"
CONTENT_TYPES = {"html": "text/html", "json": "application/json"}
RUN_NAME = re.compile(r"\d{8}T\d{6}Z_[\w.-]+-[0-9a-f]{8}", re.ASCII)


def run_name(run_id: str, run_after: datetime) -> str:
    """The name of a run's folder: it sorts by the time that the run was for, in UTC."""
    return f"{run_after.astimezone(UTC):%Y%m%dT%H%M%SZ}_{safe_name(run_id)}"


class PublishTarget:
    """What one run publishes. All methods raise IngestError.

    :param place: where the pipeline publishes to
    :param about: what is told of the run in its run.json
    """

    def __init__(self, place: Place, run: str, about: Mapping[str, Any]) -> None:
        self._store = open_store(place)
        self._place, self._run, self._about = place, run, about

    def publish(self, files: Mapping[str, bytes], *, instead_of: Collection[str] = ()) -> str:
        """Write files by name, and return the URI of the folder that links should lead to.

        It is that of the latest run, unless a run that was for a later time has published already.

        :param instead_of: names of files that the latest run has not when they are not among `files`
        """
        newest = max((name for name in self._runs() if name != self._run), default="")
        folder = f"runs/{self._run}"
        # First, so that whatever is there of a run can be found and deleted.
        self._write(f"{folder}/{RUN}", json.dumps(self._about, indent=2).encode())
        for name, content in files.items():
            self._write(f"{folder}/{name}", content)
        if newest > self._run:
            return self._place.below(folder).uri
        for name, content in files.items():
            self._write(f"{LATEST}/{name}", content)
        for name in set(instead_of) - files.keys():
            self._delete(f"{LATEST}/{name}")
        return self._place.below(LATEST).uri

    def forget(self, keep: int) -> list[str]:
        """Delete what runs have published but the newest `keep`, and nothing else; returns their folders."""
        others = sorted((name for name in self._runs() if name != self._run), reverse=True)
        old = others[keep - 1 :]
        for run in old:
            for name in (DOCS, ELEMENTARY, *ARTIFACTS, RUN):
                self._delete(f"runs/{run}/{name}")
            if self._place.scheme == "file":
                # A bucket has no folders. One with something else in it stays.
                with suppress(OSError):
                    Path(self._place.path, "runs", run).rmdir()
        return old

    def _runs(self) -> set[str]:
        """The folders of runs that are there."""
        found = {file.name.split("/")[1] for file in self._store.glob(f"runs/*/{RUN}")}
        return {name for name in found if RUN_NAME.fullmatch(name)}

    def _write(self, name: str, content: bytes) -> None:
        kind = CONTENT_TYPES[name.rpartition(".")[2]]
        try:
            write_bytes(self._store, name, content, kind)
        except FileError as error:
            raise IngestError(f"{self._place.uri}/{error}") from None

    def _delete(self, name: str) -> None:
        try:
            self._store.delete(name)
        except OSError as error:
            raise IngestError(
                f"{self._place.uri}/{name}: cannot be deleted: {error.strerror}\n  Check its permissions."
            ) from None
