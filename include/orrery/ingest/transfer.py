"""The operator that copies objects from one store to another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from orrery.config.project import Project
from orrery.config.transfer import Transfer
from orrery.execute.entry import check_choices
from orrery.execute.results import RESULT_KEY, outcome
from orrery.ingest.errors import FileError, IngestError, explained
from orrery.ingest.stores import (
    BLOCK,
    Digesting,
    LandingFile,
    Store,
    open_store,
)
from orrery.plan.model import Work
from orrery.plan.objects import taken_name

if TYPE_CHECKING:
    from airflow.sdk import Context

# Names in a summary.
_SHOWN = 3


@dataclass
class Transferred:
    """What a transfer has done: names of the objects that were copied, and how many were there already."""

    copied: list[str] = field(default_factory=list)
    size: int = 0
    skipped: int = 0

    def __str__(self) -> str:
        if not self.copied:
            return f"nothing new; {self.skipped:,} were there already"
        names = ", ".join(self.copied[:_SHOWN]) + (", ..." if len(self.copied) > _SHOWN else "")
        there = f"; {self.skipped:,} were there already" if self.skipped else ""
        return f"{len(self.copied):,} objects with {self.size:,} bytes copied ({names}){there}"


class TransferOperator(BaseOperator):
    """Copies the objects that are not at their target yet.

    :param stage: the stage that the task is in; a run may leave whole stages out
    :param nodes: dbt unique ids of the tables that the objects are for
    :param work: which objects, and where to
    """

    custom_operator_name = "transfer"
    ui_color = "#f5e6cc"

    def __init__(self, *, stage: str, nodes: tuple[str, ...], work: Work, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.nodes = nodes
        self.work = work

    def execute(self, context: Context) -> None:
        """Copy; raises AirflowSkipException when the run leaves it out, or if it is fine to find nothing."""
        uri = check_choices(self, context).uri
        block = cast("Transfer", self.work.block)
        only = taken_name(self.work, uri, Project.find()) if uri else None
        if uri and only is None:
            raise AirflowSkipException(f"This run is for {uri}, which does not match {block.transfer}.")
        with explained(context):
            done = transfer(block, only, self.log.info)
        if done is None:
            raise AirflowSkipException(f"No object matches {block.source[0].below(block.source[1]).uri}.")
        self.log.info("%s", done)
        context["ti"].xcom_push(key=RESULT_KEY, value=_summary(done))


def transfer(block: Transfer, only: str | None, tell: Callable[..., object]) -> Transferred | None:
    """Copy the objects of a block; None when there is none, and that is fine.

    :param only: the name of the one that the run is for
    :param tell: is told of each object that is copied, as a logger is
    Raises IngestError. What has been copied until then stays.
    """
    place, pattern = block.source
    source, target = open_store(place), open_store(block.target)
    if only is not None:
        found = source.stat(only)
        if found is None:
            raise IngestError(
                f"{place.below(only).uri}: there is no such object.\n  Check the uri of the run."
            )
        files, there = [found], {only: target.stat(only)}
    else:
        files = sorted(source.glob(pattern), key=lambda file: file.name)
        if not files:
            if block.if_missing == "skip":
                return None
            raise IngestError(
                f"No object matches {place.below(pattern).uri}.\n  Put one there, or set if_missing: skip."
            )
        there = {file.name: file for file in target.glob(pattern)}
    done = Transferred()
    for file in files:
        if copy(source, target, file, there.get(file.name)):
            tell("%s: %s bytes", file.name, f"{file.size:,}")
            done.copied.append(file.name)
            done.size += file.size
        else:
            done.skipped += 1
    return done


def copy(source: Store, target: Store, file: LandingFile, there: LandingFile | None) -> bool:
    """Copy an object unless it is what is `there` at the target already; whether it was copied.

    Raises IngestError; then the target is what it was before, or has all that was in the source.
    """
    note = hashlib.sha256(f"{source.place.uri}\0{file.name}\0{file.version}".encode()).hexdigest()
    if there and there.size == file.size:
        if there.md5 is not None and there.md5 == file.md5:
            return False
        if target.note(there) == note:
            return False

    def verify() -> None:
        if not source.steady:
            source.again(file.name, file.version)

    with source.open(file) as raw:
        stream = Digesting(raw, file, md5=file.md5 if source.exact else None, verify=verify)
        confirmed = target.write(file.name, stream, file.size, note)
    if not confirmed and _content(target, file.name) != stream.sha256.hexdigest():
        target.delete(file.name)
        raise FileError(file.name, f"arrives at {target.place.uri} as something else", "Try again.")
    return True


def _content(store: Store, name: str) -> str | None:
    """The digest of what is in a store."""
    file = store.stat(name)
    if file is None:
        return None
    digest = hashlib.sha256()
    with store.open(file) as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _summary(done: Transferred) -> dict[str, Any]:
    """The XCom value, with counts."""
    counts = {"objects": len(done.copied), "bytes": done.size, "skipped": done.skipped}
    return outcome(str(done)) | counts
