"""The lab that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from differential.lab import Lab, lab


@pytest.fixture(scope="session")
def where() -> Iterator[Lab]:
    """A lab with an Orrery that nobody has tampered with."""
    with lab() as made:
        yield made
