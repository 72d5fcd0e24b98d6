"""`./orrery run` and `./orrery retry` against an Airflow that answers as the real one does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orrery.cli import session
from orrery.cli.airflow_api import AirflowApi
from orrery.config.errors import OrreryError
from orrery.config.project import Project
from unit.cli.airflow import Airflow, task
from unit.cli.conftest import Command

STATES = [
    task("core.orders", "failed"),
    task("core.sales", "upstream_failed"),
    task("core.customers", "success"),
    task("seed.raw", "skipped"),
    task("tests.orders", "upstream_failed"),
    task("source_tests.app__orders", "success"),
    task("finished", None),
]
# And when what has failed has run again.
MENDED = [
    {**each, "state": "success" if "failed" in str(each["state"]) else each["state"]} for each in STATES
]


def cleared(airflow: Airflow) -> dict[str, object]:
    """The one request to clear tasks."""
    (body,) = airflow.bodies("POST", "/clearTaskInstances")
    return dict(body)


def test_run(orrery: Command, airflow: Airflow) -> None:
    airflow.states = [
        [task("core.a", "running"), task("core.b", None)],
        [task("core.a", "success", duration=1.5), task("core.b", "success", duration=0.5)],
    ]
    result = orrery("run", "shop")
    assert result.exit_code == 0
    assert airflow.bodies("POST", "/dagRuns") == [{"logical_date": None, "conf": {}}]
    assert f"Run r2: {airflow.url}/dags/shop/runs/r2" in result.output
    assert "\nsuccess core.a  1.5 s  (1 of 2 in core)\n" in result.output
    assert "shop: success in 12 s (2 success)" in result.output


def test_the_choices_of_a_run(orrery: Command, airflow: Airflow) -> None:
    assert orrery("run", "shop", "--full-refresh", "--skip-stages", "seed, tests,").exit_code == 0
    (body,) = airflow.bodies("POST", "/dagRuns")
    assert body["conf"] == {"full_refresh": True, "skip_stages": ["seed", "tests"]}


def test_a_failed_run(orrery: Command, airflow: Airflow) -> None:
    airflow.states, airflow.outcome = [STATES], "failed"
    result = orrery("run", "shop")
    assert result.exit_code == 1
    assert "./orrery retry shop --failed" in result.output


def test_a_failed_task_in_a_run_that_airflow_calls_a_success(orrery: Command, airflow: Airflow) -> None:
    airflow.states = [[task("core.orders", "failed"), task("core.sales", "success")]]
    assert orrery("retry", "shop", "--model", "orders").exit_code == 1
    # To publish is not what a run is for.
    airflow.states = [[task("core.sales", "success"), task("publish.docs", "failed")]]
    assert orrery("retry", "shop", "--model", "sales").exit_code == 0


def test_an_unknown_stage_starts_nothing(orrery: Command, airflow: Airflow) -> None:
    result = orrery("run", "shop", "--skip-stages", "seed,cor")
    assert result.exit_code == 2
    assert "Unknown stage 'cor'. Did you mean 'core'?" in result.output
    assert airflow.bodies("POST", "/dagRuns") == []


def test_a_pool_that_does_not_exist(orrery: Command, airflow: Airflow, shop: Project) -> None:
    airflow.pools = set()
    (shop.pipelines_dir / "shop.yml").rename(shop.pipelines_dir / "shop.yaml")
    result = orrery("run", "shop")
    assert isinstance(result.exception, OrreryError)
    assert str(result.exception).startswith(
        "dbt/pipelines/shop.yaml: Airflow has no pool 'default_pool'; its tasks would wait for ever.\n"
    )
    assert airflow.bodies("POST", "/dagRuns") == []


def test_a_paused_pipeline(orrery: Command, airflow: Airflow) -> None:
    assert airflow.dag
    airflow.dag["is_paused"] = True
    result = orrery("run", "shop")
    assert str(result.exception) == (
        "shop is paused in Airflow; a run would wait for ever.\n  ./orrery run shop --unpause"
    )
    assert airflow.bodies("POST", "/dagRuns") == []
    assert orrery("run", "shop", "--unpause").exit_code == 0
    assert airflow.bodies("PATCH", "/dags/shop") == [{"is_paused": False}]
    assert len(airflow.bodies("POST", "/dagRuns")) == 1


@pytest.mark.parametrize("command", ["run", "retry"])
@pytest.mark.parametrize(
    ("pipeline", "message"), [("shpo", "Did you mean 'shop'?"), ("broken", "Did you mean 'select'?")]
)
def test_a_pipeline_that_cannot_run(orrery: Command, command: str, pipeline: str, message: str) -> None:
    result = orrery(command, pipeline, *(["--failed"] if command == "retry" else []))
    assert isinstance(result.exception, OrreryError)
    assert message in str(result.exception)


def test_retry_failed(orrery: Command, airflow: Airflow) -> None:
    airflow.states = [STATES, MENDED]
    result = orrery("retry", "shop", "--failed")
    assert result.exit_code == 0
    body = cleared(airflow)
    assert body["task_ids"] == ["core.orders", "core.sales", "tests.orders"]
    assert "include_downstream" not in body
    # Airflow would clear only failed tasks, and leave out what waited for them.
    assert (body["only_failed"], body["dry_run"], body["dag_run_id"]) == (False, False, "r1")
    assert "3 of 7 tasks run again." in result.output
    # What had ended before and does not run again is no news.
    assert "customers" not in result.output


def test_what_becomes_of_a_retried_run_is_published_and_told_again(orrery: Command, airflow: Airflow) -> None:
    last = [task("publish.docs", "success"), task("publish.artifacts", "failed"), task("alert", "success")]
    airflow.states = [[*STATES, *last]]
    orrery("retry", "shop", "--failed")
    expected = {"core.orders", "core.sales", "tests.orders", "publish.docs", "publish.artifacts", "alert"}
    ids = cleared(airflow)["task_ids"]
    assert isinstance(ids, list)
    assert sorted(ids) == sorted(expected)


PARTS = [
    task("ingest.app__orders__split", "success"),
    *(task("ingest.app__orders__chunks", "success", map_index=index) for index in range(3)),
    task("ingest.app__orders", "success"),
    task("core.orders", "success"),
]


def test_retry_an_ingestion_in_chunks(orrery: Command, airflow: Airflow) -> None:
    split, first, second, third, load, model = PARTS
    held_back = [{**load, "state": "upstream_failed"}, {**model, "state": "upstream_failed"}]
    # Of the chunks only the one that failed.
    airflow.states = [[split, first, {**second, "state": "failed"}, third, *held_back]]
    result = orrery("retry", "shop", "--failed")
    assert cleared(airflow)["task_ids"] == [
        ["ingest.app__orders__chunks", 1],
        "ingest.app__orders",
        "core.orders",
    ]
    assert "__chunks[0]" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("--failed",),
        ("--model", "app__orders"),
        ("--model", "ingest.app__orders"),
        ("--model", "app__orders__chunks"),
    ],
)
def test_an_ingestion_that_failed_is_cut_anew(
    orrery: Command, airflow: Airflow, arguments: tuple[str, ...]
) -> None:
    airflow.states = [[*PARTS[:-2], task("ingest.app__orders", "failed")]]
    orrery("retry", "shop", *arguments)
    assert cleared(airflow)["task_ids"] == [
        "ingest.app__orders__split",
        "ingest.app__orders__chunks",
        "ingest.app__orders",
    ]


def test_a_table_that_is_called_like_a_step(orrery: Command, airflow: Airflow) -> None:
    airflow.states = [[task("ingest.app__orders", "success"), task("ingest.app__orders__chunks", "failed")]]
    orrery("retry", "shop", "--model", "app__orders__chunks")
    assert cleared(airflow)["task_ids"] == ["ingest.app__orders__chunks"]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_table_is_loaded_again_not_only_looked_at(orrery: Command, airflow: Airflow, reverse: bool) -> None:
    stages = ["source_freshness", "ingest", "source_tests"]
    states = [task(f"{stage}.app__orders", "success") for stage in stages]
    airflow.states = [states[::-1] if reverse else states]
    orrery("retry", "shop", "--model", "app__orders")
    assert cleared(airflow)["task_ids"] == ["ingest.app__orders"]


def test_nothing_to_retry(orrery: Command, airflow: Airflow) -> None:
    airflow.states = [[task("core.a", "success"), task("core.b", "skipped")]]
    result = orrery("retry", "shop", "--failed")
    assert (result.exit_code, result.output) == (0, "Nothing failed in r1.\n")
    assert airflow.bodies("POST", "/clearTaskInstances") == []


def test_nothing_has_failed_in_a_run_that_goes_on(orrery: Command, airflow: Airflow) -> None:
    # The first retry has cleared what had failed.
    airflow.states = [[task("core.a", None)], [task("core.a", None)], [task("core.a", "success")]]
    result = orrery("retry", "shop", "--failed")
    assert result.exit_code == 0
    assert (
        "Nothing has failed in r1 so far; it is running. Another command may have retried it" in result.output
    )


@pytest.mark.parametrize(
    ("name", "task_id"),
    [
        # The model comes before the test of the same name.
        ("orders", "core.orders"),
        ("tests.orders", "tests.orders"),
        ("core.orders", "core.orders"),
        ("app__orders", "source_tests.app__orders"),
        ("finished", "finished"),
    ],
)
def test_retry_one(orrery: Command, airflow: Airflow, name: str, task_id: str) -> None:
    airflow.states = [STATES[::-1], MENDED]
    assert orrery("retry", "shop", "--model", name).exit_code == 0
    body = cleared(airflow)
    assert (body["task_ids"], body["include_downstream"]) == ([task_id], False)


@pytest.mark.parametrize(
    ("name", "task_id"),
    [
        ("dim.v2", "core.dim_v2"),
        ("app.raw", "ingest.app__raw"),
        ("shop.dim", "core.shop__dim"),
        ("shop.dim.v3", "core.shop__dim_v3"),
        ("model.shop.orders", "core.orders"),
        ("model.shop.dim", "core.shop__dim"),
        ("model.shop.dim.v2", "core.dim_v2"),
        ("seed.shop.codes", "seed.codes"),
        ("source.shop.app.raw", "ingest.app__raw"),
        # A task's own id means what it says.
        ("core.orders", "core.orders"),
    ],
)
def test_retry_of_a_node_that_is_named_as_dbt_names_it(
    orrery: Command, airflow: Airflow, name: str, task_id: str
) -> None:
    names = (
        "core.dim_v2",
        "core.shop__dim",
        "core.shop__dim_v3",
        "core.other__dim",
        "core.raw",
        "core.orders",
    )
    more = ("seed.codes", "ingest.app__raw", "source_freshness.app__raw", "core.core_orders")
    airflow.states = [[task(each, "success") for each in (*names, *more)]]
    assert orrery("retry", "shop", "--model", name).exit_code == 0
    assert cleared(airflow)["task_ids"] == [task_id]


def test_retry_of_a_dotted_name_that_no_task_has(orrery: Command, airflow: Airflow) -> None:
    airflow.states = [[task("core.raw", "success"), task("core.app_rows", "success")]]
    # It may be a model of a package, but a table of a source as well: nothing runs.
    told = str(orrery("retry", "shop", "--model", "app.raw").exception)
    assert told == "No node is called 'app.raw' in this run.\n  Did you mean 'raw'?"
    assert airflow.bodies("POST", "/clearTaskInstances") == []


@pytest.mark.parametrize("status", [409, 500])
def test_two_retries_at_once_run_the_tasks_once(orrery: Command, airflow: Airflow, status: int) -> None:
    again = {"core.orders", "core.sales", "tests.orders"}
    airflow.states = [STATES, [{**t, "state": None if t["task_id"] in again else t["state"]} for t in STATES]]
    airflow.conflicts = [status]
    result = orrery("retry", "shop", "--failed")
    assert result.exit_code == 0, result.output
    assert (
        "Somebody else has cleared the same 3 of 7 tasks at the same moment: they run again, once."
        in result.output
    )
    assert len(airflow.bodies("POST", "/clearTaskInstances")) == 1


def test_a_conflict_over_other_tasks_is_tried_again(orrery: Command, airflow: Airflow) -> None:
    airflow.states, airflow.conflicts = [STATES], [500]
    assert "3 of 7 tasks run again." in orrery("retry", "shop", "--failed").output
    assert len(airflow.bodies("POST", "/clearTaskInstances")) == 2


def test_a_conflict_that_does_not_end_is_explained(orrery: Command, airflow: Airflow) -> None:
    airflow.states, airflow.conflicts = [STATES], [500, 500, 500]
    told = str(orrery("retry", "shop", "--failed").exception)
    assert "shop: Airflow cannot clear tasks of r1: something else changes them at the same time" in told
    assert f"try again: {airflow.url}/dags/shop/runs/r1" in told
    assert "500 {'reason': 'Database error'}" in told


def test_another_refusal_of_clearing_is_no_conflict(orrery: Command, airflow: Airflow) -> None:
    airflow.states, airflow.conflicts = [STATES], [403]
    assert "Airflow refused POST" in str(orrery("retry", "shop", "--failed").exception)
    assert len(airflow.bodies("POST", "/clearTaskInstances")) == 1


def test_what_becomes_of_one_task_is_told(orrery: Command, airflow: Airflow) -> None:
    airflow.states = [[*states, task("alert", "success")] for states in (STATES, MENDED)]
    assert orrery("retry", "shop", "--model", "core.orders").exit_code == 0
    assert cleared(airflow)["task_ids"] == ["core.orders", "alert"]


def test_retry_one_and_what_descends_from_it(orrery: Command, airflow: Airflow) -> None:
    airflow.states = [STATES, MENDED]
    assert orrery("retry", "shop", "--model", "orders", "--downstream").exit_code == 0
    assert cleared(airflow)["include_downstream"] is True


def test_retry_in_an_older_run(orrery: Command, airflow: Airflow) -> None:
    airflow.states, airflow.runs = [STATES, MENDED], ["r1", "r9"]
    assert orrery("retry", "shop", "--failed", "--run-id", "r1").exit_code == 0
    assert cleared(airflow)["dag_run_id"] == "r1"


def test_retry_of_an_unknown_node(orrery: Command, airflow: Airflow) -> None:
    airflow.states = [STATES]
    result = orrery("retry", "shop", "--model", "order")
    assert str(result.exception) == ("No node is called 'order' in this run.\n  Did you mean 'orders'?")
    assert airflow.bodies("POST", "/clearTaskInstances") == []


def test_retry_of_a_pipeline_that_never_ran(orrery: Command, airflow: Airflow) -> None:
    airflow.runs = []
    result = orrery("retry", "shop", "--failed")
    assert str(result.exception) == "shop has never run.\n  ./orrery run shop"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "Missing argument 'PIPELINE'"),
        (["run", "shop", "--nonsense"], "No such option"),
        (["retry", "shop"], "Give either --failed or --model NAME."),
        (["retry", "shop", "--failed", "--model", "a"], "Give either --failed or --model NAME."),
        (["retry", "shop", "--failed", "--downstream"], "--downstream goes with --model NAME."),
        (["nonsense"], "No such command 'nonsense'"),
        (["test", "--only", "units"], "There is no folder tests/units; known: pipelines, browser"),
    ],
)
def test_argument_errors(orrery: Command, airflow: Airflow, arguments: list[str], message: str) -> None:
    result = orrery(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert airflow.asked == []


def test_a_connection_that_is_lost_for_a_moment(orrery: Command, airflow: Airflow) -> None:
    airflow.states = [STATES, MENDED]
    asked = airflow.answer

    def answer(method: str, path: str, query: dict[str, list[str]], body: object) -> tuple[int, object]:
        if method == "POST" and path.endswith("/dagRuns"):
            airflow.fail_next = [503, 503, 503]
        return asked(method, path, query, body)

    airflow.answer = answer  # type: ignore[method-assign]
    assert orrery("run", "shop").exit_code == 0
    assert airflow.fail_next == []


def test_ctrl_c_leaves_the_run_alone(
    orrery: Command, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AirflowApi, "task_instances", interrupted)
    result = orrery("run", "shop")
    assert result.exit_code == 130
    assert f"The run goes on: {airflow.url}/dags/shop/runs/r2" in result.output


def test_a_wrong_password(airflow: Airflow) -> None:
    with AirflowApi(airflow.url, "admin", "wrong") as api, pytest.raises(OrreryError) as caught:
        api.dag("shop")
    assert str(caught.value) == f"{airflow.url}: Airflow refused the log-in: 401 Invalid credentials"


def test_a_token_that_expires_during_a_run(airflow: Airflow) -> None:
    with AirflowApi(airflow.url, "admin", "secret") as api:
        assert api.dag("shop")
        airflow.expired.add("t1")
        assert api.dag("shop")
    assert airflow.tokens == 2


def test_an_airflow_that_does_not_answer(airflow: Airflow) -> None:
    with AirflowApi("http://127.0.0.1:1", "admin", "secret") as api, pytest.raises(OrreryError) as caught:
        api.dag("shop")
    assert "Airflow does not answer" in str(caught.value)
    assert "./orrery status" in str(caught.value)


def test_a_remote_airflow_that_does_not_answer(orrery: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(session.PASSWORD, "secret")
    for command in (("run", "shop"), ("retry", "shop", "--failed")):
        result = orrery(*command, "--remote", "http://127.0.0.1:1")
        assert "http://127.0.0.1:1: Airflow does not answer" in str(result.exception)
        assert "the address of --remote" in str(result.exception)
        assert "./orrery" not in str(result.exception)


def test_advice_for_a_remote_airflow_leads_there(
    orrery: Command, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(session.PASSWORD, "secret")
    there = ("--remote", airflow.url)
    airflow.states, airflow.outcome = [STATES], "failed"
    assert f"./orrery retry shop --failed --remote {airflow.url}\n" in orrery("run", "shop", *there).output
    assert airflow.dag
    airflow.dag["is_paused"] = True
    paused = orrery("run", "shop", *there).exception
    assert str(paused).endswith(f"\n  ./orrery run shop --unpause --remote {airflow.url}")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the proxy that the environment names, for all addresses."""

    def set_proxy(url: str) -> None:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.lower(), raising=False)
        monkeypatch.setenv("HTTP_PROXY", url)

    return set_proxy


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_proxy_gets_the_password_of_this_machine(
    airflow: Airflow, proxy: Callable[[str], None], host: str
) -> None:
    proxy("http://127.0.0.1:1")
    url = airflow.url.replace("127.0.0.1", host)
    with AirflowApi(url, "admin", "secret") as api:
        assert api.dag("shop")


def test_an_airflow_elsewhere_is_reached_by_the_proxy(airflow: Airflow, proxy: Callable[[str], None]) -> None:
    proxy(airflow.url)
    with AirflowApi("http://airflow.example.com", "admin", "secret") as api:
        assert api.dag("shop")


def test_what_airflow_does_not_know(airflow: Airflow) -> None:
    airflow.dag = None
    with AirflowApi(airflow.url, "admin", "secret") as api:
        assert api.dag("shop") is None
        assert api.xcom(task("core.a", "success"), "dbt") is None
        with pytest.raises(OrreryError, match="shop has no run 'r7'"):
            api.run("shop", "r7")


def test_a_run_is_not_taken_for_one_whose_id_begins_alike(airflow: Airflow) -> None:
    airflow.runs = ["r11", "r1"]
    with AirflowApi(airflow.url, "admin", "secret") as api:
        assert api.run("shop", "r1")["dag_run_id"] == "r1"


def test_many_task_instances_come_in_pages(airflow: Airflow) -> None:
    airflow.states = [[task(f"core.m{i}", "success") for i in range(250)]]
    with AirflowApi(airflow.url, "admin", "secret") as api:
        assert [found["task_id"] for found in api.task_instances("shop", "r1")] == [
            f"core.m{i}" for i in range(250)
        ]
    assert len(airflow.asked) == 3
