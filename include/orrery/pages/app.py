"""The application that Airflow's api-server mounts; see orrery.pages.plugin.

Whoever is not logged in gets 401. A pipeline that is none, and one that the user may not read, are both 404.
"""

from __future__ import annotations

from functools import lru_cache

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.pages import html, plots
from orrery.pages.catalog import Catalog, Listed
from orrery.pages.metadata import GetUserDep, SessionDep
from orrery.pages.product import Product, attention_first
from orrery.pages.products import all_products, may_read, one_product, published, published_files
from orrery.publish.reader import Content
from orrery.publish.target import DOCS, ELEMENTARY, LATEST, run_name

app = FastAPI(title="Data products", docs_url=None, redoc_url=None, openapi_url=None)

# HTML files and what they are called.
VIEWS = {DOCS: "Documentation", ELEMENTARY: "Elementary report"}


@lru_cache(maxsize=1)
def _catalog() -> Catalog:
    return Catalog(Project.find())


# All of them are plain functions: they wait for databases and stores, each in a thread of its own.
@app.get("/")
def index(request: Request, user: GetUserDep, session: SessionDep) -> HTMLResponse:
    """All pipelines that the user may read."""
    catalog = _catalog()
    found = all_products(catalog, user, session)
    products = attention_first(found.products)
    trends = {product.name: plots.duration_bars(product.runs[-20:], 168, 34, most=20) for product in products}
    listed = catalog.pipelines()
    tasks = {product.name: listed.get(product.name, Listed(product.name)).tasks for product in products}
    return html.page(
        request,
        "index.html",
        products=products,
        missing=found.missing,
        trends=trends,
        tasks=tasks,
        views=VIEWS,
    )


@app.get("/pipelines/{name}")
def product(request: Request, name: str, user: GetUserDep, session: SessionDep) -> HTMLResponse:
    """A pipeline, with its plots."""
    catalog = _catalog()
    found = one_product(catalog, name, user, session)
    if found is None:
        raise HTTPException(404, "There is no such pipeline in this project, or you may not read it.")
    (shown,) = found.products
    of_runs = published(catalog, shown)
    return html.page(
        request,
        "product.html",
        product=shown,
        missing=[text for text in (*found.missing, of_runs.missing) if text],
        durations=plots.duration_bars(shown.runs, 640, 220, most=30, usual=shown.usual_seconds),
        trends=plots.row_trends(shown, 200, 44),
        grid=plots.result_grid(shown),
        slowest=plots.slowest(shown),
        tasks=catalog.pipelines().get(name, Listed(name)).tasks,
        runs=[
            (run, of_runs.of_runs.get(run_name(run.run_id, run.run_after), frozenset()))
            for run in reversed(shown.runs)
        ][:10],
        run_name=run_name,
        views=VIEWS,
        latest=LATEST,
    )


@app.get("/pipelines/{name}/view/{folder}/{file}")
def view(
    request: Request, *, name: str, folder: str, file: str, user: GetUserDep, session: SessionDep
) -> HTMLResponse:
    """A published HTML file below a bar that leads back."""
    _content(name, folder, file, may_read=may_read(_catalog(), name, user, session) and file in VIEWS)
    return html.page(request, "view.html", name=name, folder=folder, file=file, views=VIEWS, latest=LATEST)


@app.get("/pipelines/{name}/files/{folder}/{file}")
def published_file(
    name: str, folder: str, file: str, user: GetUserDep, session: SessionDep
) -> StreamingResponse:
    """A published file itself. JSON is saved and not shown."""
    allowed = may_read(_catalog(), name, user, session)
    session.rollback()  # a download may take long, and needs no connection
    content = _content(name, folder, file, may_read=allowed)
    headers = html.FILE_HEADERS | {"Content-Length": str(content.size)}
    if content.content_type != "text/html":
        headers["Content-Disposition"] = f'attachment; filename="{name}-{file}"'
    return StreamingResponse(content.blocks, headers=headers, media_type=content.content_type)


def _content(name: str, folder: str, file: str, *, may_read: bool) -> Content:
    """A published file; what is not there and what may not be read are the same HTTPException."""
    catalog = _catalog()
    pipeline = catalog.pipelines().get(name)
    try:
        files = published_files(catalog, Product(name, pipeline.config)) if pipeline and may_read else None
        content = files.read(folder, file) if files else None
    except OrreryError as error:
        raise HTTPException(502, str(error)) from None
    if content is None:
        raise HTTPException(404, "There is no such file.")
    return content


@app.exception_handler(StarletteHTTPException)
def refused(request: Request, error: StarletteHTTPException) -> HTMLResponse:
    """What is wrong, as a page."""
    text = "Your login has ended." if error.status_code == 401 else str(error.detail)
    return html.page(request, "error.html", error.status_code, code=error.status_code, text=text)
