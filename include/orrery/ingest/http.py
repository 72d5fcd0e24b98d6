"""Calls of web services by Airflow's connections of type http, which mean what they mean to its HttpHook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from airflow.providers.http.hooks.http import HttpHook
from airflow.sdk import Connection

from orrery.ingest.connections import hide, require
from orrery.ingest.errors import IngestError

EXAMPLE = "http://user:password@host:443/https"


class NoAnswerError(IngestError):
    """A service could not be called, or has not answered. The text is why, and does not repeat its URL."""


class Service:
    """The service of a connection.

    Of its extra `verify`, `cert`, `proxies`, `timeout`, `allow_redirects`, `max_redirects`, `trust_env`,
    `check_response` and `srv_lookup` say how it is called, and the rest are headers.

    Raises SetupError when Airflow has no such connection.
    """

    def __init__(self, conn_id: str, method: str, example_uri: str = EXAMPLE) -> None:
        self.connection: Connection = require(conn_id, example_uri)
        hide(self.connection)
        self._method = method
        self._hook = HttpHook(method=method, http_conn_id=conn_id)

    def call(
        self,
        endpoint: str = "",
        body: Any = None,
        *,
        timeout: float | None = None,
        default_timeout: float,
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """The answer to a request, whatever its status; raises NoAnswerError.

        A GET follows redirects. Others do not: their body would be lost on the way, or sent to somebody else.

        :param timeout: in seconds, instead of that of the connection
        :param headers: unless the connection has them
        """
        session = self._session(headers or {})
        options = self._hook.merged_extra
        seconds = timeout or options.get("timeout") or default_timeout
        try:
            request = session.prepare_request(
                requests.Request(self._method, self._hook.url_from_endpoint(endpoint), json=body)
            )
            settings = session.merge_environment_settings(
                str(request.url), session.proxies, False, session.verify, session.cert
            )
            return session.send(
                request,
                timeout=tuple(seconds) if isinstance(seconds, list) else seconds,
                allow_redirects=self._method == "GET" and options.get("allow_redirects", True),
                **settings,
            )
        except requests.Timeout:
            raise NoAnswerError(f"no answer within {_shown(seconds)} s") from None
        except (requests.RequestException, OSError, ValueError) as error:
            raise NoAnswerError(_reason(error)) from None

    def problem(self, answer: requests.Response) -> str | None:
        """What is wrong with an answer, in short; None when it is a success, or nobody wants to know."""
        if answer.status_code // 100 == 2 or not self._hook.merged_extra.get("check_response", True):
            return None
        if not answer.is_redirect:
            return str(answer.status_code)
        goal = urlsplit(urljoin(answer.url, answer.headers["Location"]))
        where = f"{goal.scheme}://{goal.netloc.rpartition('@')[2]}{goal.path}"
        return f"{answer.status_code}, a redirect to {where} that is not followed"

    def _session(self, headers: Mapping[str, str]) -> requests.Session:
        session = self._hook.get_conn()
        known = self.connection
        if known.login:
            # In UTF-8, and a missing password is none.
            auth: Any = (str(known.login).encode(), str(known.password or "").encode())
            session.auth = auth
        told: dict[str, Any] = dict(session.headers)
        session.headers.update(
            {name: str(value) for name, value in told.items() if not isinstance(value, bytes)}
        )
        for name, value in headers.items():
            session.headers.setdefault(name, value)
        return session


def _reason(error: BaseException) -> str:
    """Why nobody answers: what the machine says, below what the libraries make of it."""
    found: BaseException | None = error
    deepest = error
    while found is not None:
        if isinstance(found, OSError) and not isinstance(found, requests.RequestException):
            deepest = found
        found = found.__cause__ or found.__context__
    return str(deepest) or type(deepest).__name__


def _shown(seconds: Any) -> str:
    return f"{seconds:g}" if isinstance(seconds, int | float) else str(seconds)
