"""Finds the task of a node that a user names as dbt names it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from orrery.config.errors import suggest

# With which the unique ids of nodes begin that have a task of their own.
_TYPES = ("model", "seed", "snapshot", "source", "function")


def find_name(name: str, known: Collection[str]) -> str | None:
    """The name of a task, for a node that dbt calls `name`; None if there is none.

    Names of tasks have no dots: `dim_customers.v2` is dim_customers_v2, the table `raw` of the source `app`
    is app__raw, and where two packages have a node of one name, that of the package `shop` is shop__orders.
    A unique id, such as model.shop.orders, is understood too.

    :param known: the names of all tasks
    """
    return next((spelling for spelling in _spellings(name) if spelling in known), None)


def advise(name: str, known: Collection[str]) -> str:
    """What to write instead of a name that no task has."""
    last = name.rpartition(".")[2]
    # `orders` of `shop.orders`: the package may be right, but it may as well be a source.
    return f"Did you mean {last!r}?" if last in known else suggest(name, known, "node")


def _spellings(name: str) -> Iterator[str]:
    yield name
    first, *rest = [re.sub(r"[^\w-]", "_", part) for part in name.split(".")]
    if first in _TYPES and len(rest) > 1:
        package, *rest = rest
        joined = ("__" if first == "source" else "_").join(rest)
        yield f"{package}__{joined}"
        yield joined
    elif rest:
        yield "_".join((first, *rest))
        yield "__".join((first, *rest))
        # A version of a model whose name two packages have.
        yield f"{first}__{'_'.join(rest)}"
