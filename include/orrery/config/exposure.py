"""The `run` blocks of exposures: what happens downstream of the models that they depend on."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from orrery.config.block import Block, Duration, mistake


def _check_endpoint(value: str) -> str:
    if not value.startswith("/"):
        raise mistake(
            f"{value!r} is no path",
            "Write what follows the host, such as /refresh; the connection has the rest.",
        )
    return value


class Http(Block):
    """A call of a web service."""

    connection: str = Field(
        min_length=1,
        description="The Airflow connection (type http): host, login, password; its extra holds headers and "
        "the options of Airflow's HttpHook, such as verify and proxies.",
    )
    endpoint: Annotated[str, AfterValidator(_check_endpoint)] = Field(
        "/", description="The path that is called."
    )
    method: Literal["POST", "PUT", "PATCH", "GET", "DELETE"] = Field("POST", description="The HTTP method.")
    json_body: dict[str, Any] | None = Field(
        None, alias="json", description="What is sent; pipeline, run_id and exposure are added to it."
    )
    timeout: Duration = Field(
        timedelta(minutes=1),
        description="How long the service may take to answer; by default what the connection says.",
    )


class HttpRun(Block):
    """Calls a web service; the task fails unless the answer has a status from 200 to 299."""

    http: Http


class PipelineRun(Block):
    """Starts another pipeline and waits for its end."""

    pipeline: str = Field(min_length=1, description="The name of the pipeline.")
    wait: bool = Field(True, description="Whether the task waits for the end of the run and fails with it.")
