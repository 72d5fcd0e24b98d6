"""The pages as a browser gets them: who sees what, what is on them, and what may not happen."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from markupsafe import escape

from conftest import write_files
from orrery import pages
from orrery.manifest.store import ManifestStore
from orrery.pages import products
from orrery.pages.catalog import Catalog
from orrery.pages.ledger import LedgerError
from orrery.publish.target import run_name
from support import manifests
from unit.pages.site import HOSTILE, NOTHING, Site, site

__all__ = ["site"]

RUN = run_name("r", datetime(2026, 1, 31, 6, tzinfo=UTC))


def publish(site: Site, folder: str, **files: str) -> Path:
    """Files that a run of the shop has left."""
    place = site.project.target_dir / "published" / "shop" / folder
    place.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (place / name.replace("_html", ".html").replace("_json", ".json")).write_text(text)
    return place


def test_the_list_has_our_pipelines_and_nothing_else(site: Site) -> None:
    text = site.client().get("/orrery/").text
    for name in ("shop", "stock", "broken"):
        assert f'href="/orrery/pipelines/{name}"' in text
    assert "somebody_elses" not in text
    notice = re.search(
        r'title="unknown key &#39;selekt&#39;">Does not run: the pipeline has an error since ', text
    )
    assert notice


def test_what_is_usual_is_told_by_enough_runs_with_the_choices_of_the_last_one(site: Site) -> None:
    def usual() -> list[str]:
        page = site.client().get("/orrery/pipelines/shop").text
        return re.findall(r"([\d.]+ s) is usual", page)

    for number in range(5):
        # What the trigger form sends where nothing was chosen.
        site.run("shop", f"r{number}", hours_ago=50 - number, seconds=20, conf={"select": None, "vars": None})
    for number, conf in enumerate(({"select": "a"}, {"full_refresh": True}, {"vars": "no object"}, [1])):
        site.run("shop", f"part{number}", hours_ago=40 - number, seconds=1, conf=conf)
    assert usual() == []
    site.run("shop", "last", hours_ago=1, seconds=30)
    assert usual() == ["20 s"]


@pytest.mark.parametrize("kept", ["hidden", "without_runs"])
def test_what_a_user_may_not_read_is_nowhere(site: Site, kept: str) -> None:
    publish(site, "latest", index_html="the docs")
    getattr(site.guard, kept).add("shop")
    client = site.client()
    assert "shop" not in client.get("/orrery/").text.partition("</style>")[2]
    unknown = client.get("/orrery/pipelines/nothing")
    forbidden = client.get("/orrery/pipelines/shop")
    assert (forbidden.status_code, forbidden.text) == (404, unknown.text)
    assert client.get("/orrery/pipelines/somebody_elses").text == unknown.text
    for path in ("files/latest/index.html", "view/latest/index.html"):
        assert client.get(f"/orrery/pipelines/shop/{path}").status_code == 404
    getattr(site.guard, kept).clear()
    assert client.get("/orrery/pipelines/shop/files/latest/index.html").text == "the docs"


@pytest.mark.parametrize(
    "path",
    ["", "pipelines/shop", "pipelines/shop/view/latest/index.html", "pipelines/shop/files/latest/index.html"],
)
def test_nobody_without_a_login(site: Site, path: str) -> None:
    publish(site, "latest", index_html="the docs")
    answer = site.client(logged_in=False).get(f"/orrery/{path}")
    assert answer.status_code == 401
    assert "Log in to Airflow" in answer.text
    assert "shop" not in answer.text.partition("</style>")[2]


def test_a_few_queries_however_many_pipelines_and_runs(site: Site) -> None:
    counts = []
    for number in range(2):
        for name in ("shop", "stock"):
            for hours in range(40):
                site.run(name, f"{number}-{hours}", "failed", hours_ago=hours + 100 * number)
        site.queries.clear()
        site.client().get("/orrery/")
        counts.append(len(site.queries))
        assert len(site.wanted) == 2 * 5
    assert counts[0] == counts[1] < 8


def test_texts_of_others_are_text(site: Site) -> None:
    site.run("shop", HOSTILE, "failed")
    site.fail("shop", HOSTILE, f"core.{HOSTILE}")
    site.node(HOSTILE, f"test.p.{HOSTILE}.1", "fail", failures=3)
    site.node(HOSTILE, f"source.p.{HOSTILE}", "error")
    site.node(HOSTILE, f"model.p.{HOSTILE}", rows_affected=3)
    for path in ("", "pipelines/shop"):
        text = site.client().get(f"/orrery/{path}").text
        body = text.partition("</style>")[2]
        assert "<script" not in body
        assert "<b>" not in body
        assert body.count(str(escape(HOSTILE))) > 5


def test_the_policy_allows_our_script_and_style_alone(site: Site) -> None:
    answer = site.client().get("/orrery/")
    policy = answer.headers["Content-Security-Policy"]
    for tag in ("script", "style"):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'self'" in policy
    assert "unsafe" not in policy
    assert " style=" not in answer.text
    assert "http" not in re.sub(r"http-equiv", "", answer.text.partition("</style>")[2])
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_what_is_published_runs_as_nobody(site: Site) -> None:
    publish(site, "latest", index_html="<script>1</script>", manifest_json="{}")
    publish(site, f"runs/{RUN}", index_html="of the run", run_json="{}")
    client = site.client()
    docs = client.get("/orrery/pipelines/shop/files/latest/index.html")
    assert docs.text == "<script>1</script>"
    assert docs.headers["Content-Security-Policy"] == "sandbox allow-scripts"
    assert docs.headers["Content-Type"].startswith("text/html")
    assert docs.headers["X-Content-Type-Options"] == "nosniff"
    assert docs.headers["Referrer-Policy"] == "no-referrer"
    assert client.get(f"/orrery/pipelines/shop/files/{RUN}/index.html").text == "of the run"
    manifest = client.get("/orrery/pipelines/shop/files/latest/manifest.json")
    assert manifest.headers["Content-Type"] == "application/json"
    assert manifest.headers["Content-Disposition"] == 'attachment; filename="shop-manifest.json"'
    frame = client.get("/orrery/pipelines/shop/view/latest/index.html")
    assert (
        '<iframe src="/orrery/pipelines/shop/files/latest/index.html" sandbox="allow-scripts"' in frame.text
    )


@pytest.mark.parametrize(
    "path",
    [
        "latest/secret.txt",
        "latest/run.json",
        "latest/..%2fsecret.txt",
        "latest/%2e%2e/secret.txt",
        "..%2flatest/index.html",
        "../latest/index.html",
        "%2e%2e/index.html",
        "./index.html",
        "runs/index.html",
        f"{RUN}%2f../index.html",
        f"{RUN}%0a/index.html",
        f"../runs/{RUN}/index.html",
        "latest/index.html%00",
    ],
)
@pytest.mark.parametrize("route", ["files", "view"])
def test_no_other_file_is_served(site: Site, route: str, path: str) -> None:
    place = publish(site, "latest", index_html="fine", run_json="{}")
    publish(site, f"runs/{RUN}", index_html="fine")
    for folder in (place, place.parent, place.parents[1]):
        (folder / "secret.txt").write_text("secret")
    client = site.client()
    client.base_url = client.base_url.join("/")
    answer = client.get(f"/orrery/pipelines/shop/{route}/{path}")
    assert answer.status_code == 404
    assert "secret" not in answer.text
    assert "fine" not in answer.text


def test_a_link_out_of_the_folder_is_not_followed(site: Site, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (publish(site, "latest") / "index.html").symlink_to(tmp_path / "secret")
    answer = site.client().get("/orrery/pipelines/shop/files/latest/index.html")
    assert answer.status_code == 502
    assert "secret" not in answer.text.replace("secret", "", 0).partition("</style>")[2]


def test_airflow_below_a_path(site: Site) -> None:
    site.run("shop", "a/b")
    publish(site, "latest", index_html="fine")
    client = site.client(root_path="/team/airflow")
    text = client.get("/team/airflow/orrery/").text
    assert 'href="/team/airflow/orrery/pipelines/shop"' in text
    assert 'href="/team/airflow/dags/shop/runs/a%2Fb"' in text
    assert 'href="/team/airflow/orrery/pipelines/shop/view/latest/index.html"' in text
    assert client.get("/team/airflow/orrery/pipelines/shop").status_code == 200


def test_what_failed_is_named_and_leads_to_its_log(site: Site) -> None:
    site.run("shop", "old", hours_ago=2)
    site.run("shop", "new", "failed")
    site.fail("shop", "new", "core.orders")
    site.node("old", "source.p.landing.orders", "pass")
    site.node("new", "test.p.unique_orders_id.abc", "fail", failures=1234)
    site.node("new", "test.p.not_null_orders_id.abc", "pass")
    for path in ("", "pipelines/shop"):
        text = site.client().get(f"/orrery/{path}").text
        assert 'href="/dags/shop/runs/new/tasks/core.orders" target="_top"' in text
        assert "1 of 2 failed" in text
        assert "unique_orders_id" in text
        assert "1,234 rows" in text
        assert re.search(r"1\s*(<span[^>]*>)?of 1 fresh", text)
    assert 'class="name bad"' in site.client().get("/orrery/").text


def test_a_warehouse_that_is_down_is_said_and_the_rest_is_shown(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object) -> None:
        raise LedgerError("The warehouse does not answer.")

    monkeypatch.setattr(products, "read_nodes", down)
    site.run("shop", "r")
    for path in ("", "pipelines/shop"):
        answer = site.client().get(f"/orrery/{path}")
        assert answer.status_code == 200
        assert '<p class="notice">The warehouse does not answer.</p>' in answer.text
        assert 'href="/dags/shop/runs/r"' in answer.text


@pytest.mark.parametrize("execute", ["build", "per_model", "kubernetes"])
def test_a_pipeline_that_never_ran_and_publishes_nothing(site: Site, execute: str) -> None:
    write_files(site.project.root, {"dbt/pipelines/stock.yml": f"select: tag:stock\nexecute: {execute}\n"})
    manifests.keep(site.project, {"stock": NOTHING})
    text = site.client().get("/orrery/pipelines/stock").text
    for told in ("never ran", "Nothing is published", "No row counts", "No run yet"):
        assert told in text
    for what in ("nodes", "tests"):
        assert f"No results of {what}." in text


def test_a_run_at_work(site: Site) -> None:
    site.run("shop", "r", "running")
    text = site.client().get("/orrery/").text
    assert '<span class="pill busy">running</span>' in text


def test_a_bucket_that_does_not_answer_is_not_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(products, "_STORE_SECONDS", 0.05)
    monkeypatch.setattr(products.PublishedFiles, "latest", lambda _: answered.wait(30))
    text = site.client().get("/orrery/").text
    answered.set()
    assert "shop: the place that it publishes to does not answer." in text


def test_the_pages_show_the_version_that_runs_and_what_is_wrong_since_when(site: Site) -> None:
    catalog = Catalog(site.project)
    before = catalog.pipelines()
    assert catalog.pipelines() is before
    # An edit changes nothing before the next good build.
    write_files(site.project.root, {"dbt/pipelines/stock.yml": "select: tag:stock\ndescription: Edited\n"})
    assert "Edited" not in site.client().get("/orrery/pipelines/stock").text
    manifests.fail(site.project, "dbt could not parse the project in dbt/:\n<b>Compilation</b> Error\n  more")
    assert catalog.pipelines()["stock"].notice
    index = ManifestStore(site.project).index()
    at, since = index.entries["stock"].good_at, index.trouble.since if index.trouble else ""
    told = f"Runs on the version of {utc(at)}: the project has an error since {utc(since)}."
    for path in ("", "pipelines/stock"):
        text = site.client().get(f"/orrery/{path}").text
        assert told in text
        first = "dbt could not parse the project in dbt/: &lt;b&gt;Compilation&lt;/b&gt; Error"
        assert first in text
        assert "more" not in text.partition("</style>")[2].partition("<script")[0]
    manifests.keep(site.project, {"stock": NOTHING})
    text = site.client().get("/orrery/pipelines/stock").text
    assert "Edited" in text
    assert "has an error" not in text


def utc(text: str) -> str:
    """A time as the pages show it."""
    return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S UTC")


def test_neither_the_plugin_nor_the_application_loads_dbt() -> None:
    probe = (
        "import sys\nimport airflow.plugins_manager\nfrom orrery.pages.plugin import DataProducts\n"
        "light = 'orrery.pages.app' not in sys.modules\nplugin = DataProducts()\n"
        "(app,) = plugin.fastapi_apps\n"
        "print(light, app['url_prefix'], 'dbt' in sys.modules)"
    )
    env = os.environ | {"PYTHONPATH": str(Path(pages.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", probe], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True /orrery False"
