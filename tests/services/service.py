"""What the servers have in common."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Service:
    """A server that is up until `close`, or until the end of a `with`."""

    def close(self) -> None:
        """Stop; nothing is left."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
