"""Which object a run for a single one means to a task that brings data in."""

from __future__ import annotations

from collections.abc import Iterable

from orrery.config.errors import OrreryError
from orrery.config.ingest import Files
from orrery.config.project import Project
from orrery.config.stores import Place
from orrery.config.transfer import Transfer
from orrery.plan.model import Work


class ForeignObjectError(OrreryError):
    """No task of the pipeline takes the object that its run is for."""


def taken_name(work: Work, uri: str, project: Project) -> str | None:
    """The name of the object `uri` in the landing zone of files or the folder of a transfer, if it is theirs.

    Files also take what a transfer before them copies to their landing zone.
    """
    if isinstance(work.block, Transfer):
        return work.block.name_of(uri)
    block: Files = work.block
    for transfer in work.transfers:
        uri = transfer.copy_of(uri) or uri
    return Place.parse(block.zone(project)).match(uri, block.files)


def check_object(works: Iterable[Work], uri: str, project: Project) -> None:
    """Raise ForeignObjectError when none of `works` takes the object."""
    asked = []
    for work in works:
        if not isinstance(work.block, Files | Transfer):
            # A job is told of the object, and knows itself what to do with it.
            return
        if taken_name(work, uri, project) is not None:
            return
        asked.append(_pattern(work.block, project))
    shown = "\n".join(f"    {pattern}" for pattern in dict.fromkeys(asked)) or "    nothing"
    raise ForeignObjectError(f"uri: no source of this pipeline takes {uri}.\n  They take:\n{shown}")


def _pattern(block: Files | Transfer, project: Project) -> str:
    return block.transfer if isinstance(block, Transfer) else f"{block.zone(project)}/{block.files}"
