"""Gathers what the pages show: from Airflow, from the run ledger, and from where runs publish."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TypeVar

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from sqlalchemy.orm import Session

from orrery.config.errors import OrreryError
from orrery.config.resources import SOURCE, TEST_TYPES
from orrery.execute.node_runs import NodeRun
from orrery.pages.catalog import Catalog, Listed
from orrery.pages.ledger import read_nodes
from orrery.pages.metadata import failed_tasks, readable, recent_runs
from orrery.pages.product import Product, by_run
from orrery.publish.reader import PublishedFiles

# How many runs a plot shows, and in how many the list looks for tests and sources.
RUNS = 30
_RUNS_OF_LIST = 5
# Buckets take their time. They are asked side by side, and nobody waits longer for them.
_STORE_SECONDS = 3.0
_stores = ThreadPoolExecutor(8, thread_name_prefix="orrery-stores")

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Found:
    """The products, and what is missing of them, in sentences for the page."""

    products: Sequence[Product]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """What the runs of a pipeline have published: names of files, by the folder of the run."""

    of_runs: Mapping[str, frozenset[str]]
    missing: str = ""


def all_products(catalog: Catalog, user: BaseUser, session: Session) -> Found:
    """The pipelines that the user may read, as the list shows them."""
    return _found(catalog, readable(user, catalog.pipelines(), session), session, _RUNS_OF_LIST)


def one_product(catalog: Catalog, name: str, user: BaseUser, session: Session) -> Found | None:
    """One pipeline with all that its page shows; None when there is none that the user may read."""
    if not may_read(catalog, name, user, session):
        return None
    return _found(catalog, {name}, session, None)


def may_read(catalog: Catalog, name: str, user: BaseUser, session: Session) -> bool:
    """Whether it is a pipeline of the project, and one that the user may read."""
    return name in catalog.pipelines() and bool(readable(user, [name], session))


def _found(catalog: Catalog, names: set[str], session: Session, ledger_runs: int | None) -> Found:
    # A build may have removed one of them since it was looked up.
    pipelines = {name: Listed(name) for name in names} | dict(catalog.pipelines())
    runs = recent_runs(session, names, RUNS)
    failed = failed_tasks(
        session, {name: those[-1].run_id for name, those in runs.items() if those[-1].state == "failed"}
    )
    session.rollback()  # the rest takes longer, and needs no connection
    products = [
        Product(
            name,
            pipelines[name].config,
            tuple(runs.get(name, ())),
            tuple(failed.get(name, ())),
            notice=pipelines[name].notice,
        )
        for name in sorted(names)
    ]
    missing: list[str] = []
    nodes: list[NodeRun] = []
    try:
        wanted = [
            (product.name, run.run_id)
            for product in products
            for run in product.runs[-ledger_runs if ledger_runs else 0 :]
        ]
        nodes = read_nodes(catalog.project, wanted, (*TEST_TYPES, SOURCE) if ledger_runs else None)
    except OrreryError as error:
        missing.append(str(error))
    ledger = by_run(nodes)
    latest = _ask(catalog, products, PublishedFiles.latest)
    missing += [wrong for _, wrong in latest if wrong]
    return Found(
        [
            replace(product, nodes=ledger.get(product.name, {}), files=files or frozenset())
            for product, (files, _) in zip(products, latest, strict=True)
        ],
        tuple(missing),
    )


def published_files(catalog: Catalog, product: Product) -> PublishedFiles | None:
    """The place that a pipeline publishes to, or None. Raises OrreryError when it is not set up."""
    if product.config is None or product.config.publish is None:
        return None
    return PublishedFiles(product.config.publish.place(catalog.project, product.name))


def published(catalog: Catalog, product: Product) -> Published:
    """What the runs of a pipeline have published."""
    ((of_runs, wrong),) = _ask(catalog, [product], PublishedFiles.of_runs)
    return Published(of_runs or {}, wrong)


def _ask(
    catalog: Catalog, products: Sequence[Product], question: Callable[[PublishedFiles], Answer]
) -> list[tuple[Answer | None, str]]:
    """Ask where each product publishes to, if it does; beside an answer stands what is wrong instead."""

    def answer(product: Product) -> Answer | None:
        files = published_files(catalog, product)
        return question(files) if files else None

    asked = [_stores.submit(answer, product) for product in products]
    wait(asked, _STORE_SECONDS)
    found: list[tuple[Answer | None, str]] = []
    for product, future in zip(products, asked, strict=True):
        if future.cancel() or not future.done():
            found.append((None, f"{product.name}: the place that it publishes to does not answer."))
        elif isinstance(future.exception(), OrreryError):
            found.append((None, f"{product.name}: {future.exception()}"))
        else:
            found.append((future.result(), ""))
    return found
