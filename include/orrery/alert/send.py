"""Sends messages through Airflow's connections, to Slack and to a web service: never raises, never hangs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from airflow.providers.slack.hooks.slack import SlackHook
from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry import HttpRequest, HttpResponse, RateLimitErrorRetryHandler, RetryState

from orrery.alert.blocks import blocks_of, text_of
from orrery.alert.message import Message
from orrery.config.alerts import Alerts, Slack
from orrery.config.errors import OrreryError
from orrery.ingest.connections import require
from orrery.ingest.http import Service

log = logging.getLogger(__name__)

# Of one request, and of all that a process sends: Airflow ends a failed task's process after 20 s.
SECONDS, ALL_SECONDS = 5.0, 8.0
_CALLED = ("failure", "late")
_SLACK, _INCOMING = "slack", "slackwebhook"
_EXAMPLE = "slack://:xoxb-token@"
_HTTP_EXAMPLE = "http://:token@host/https"
# Of an answer, in a warning.
_ANSWER = 100

Result = TypeVar("Result")


@dataclass(frozen=True)
class Sent:
    """Where a message is in Slack, so that it can be answered and changed."""

    connection: str
    channel: str
    ts: str

    def as_dict(self) -> dict[str, str]:
        """As the memory keeps it."""
        return asdict(self)


class NotSentError(OrreryError):
    """A message is not sent. The text says why and holds no secrets: URLs of webhooks are such."""


class _RateLimit(RateLimitErrorRetryHandler):
    """Waits once when Slack asks for it, if that is soon enough."""

    def _can_retry(
        self,
        *,
        state: RetryState,
        request: HttpRequest,
        response: HttpResponse | None = None,
        error: Exception | None = None,
    ) -> bool:
        if response is None or response.status_code != 429:
            return False
        wait = next((v[0] for k, v in response.headers.items() if k.lower() == "retry-after"), "1")
        return str(wait).isdigit() and int(wait) + 1 < SECONDS


def _silent() -> logging.Logger:
    # At lower levels slack_sdk logs the URL of a webhook, which is its password.
    logger = logging.getLogger(f"{__name__}.slack_sdk")
    logger.setLevel(logging.CRITICAL)
    return logger


class Sender:
    """Sends the messages of one process; after a failure of a connection it leaves it alone."""

    def __init__(self, alerts: Alerts) -> None:
        self._alerts = alerts
        self._until = time.monotonic() + ALL_SECONDS
        self._broken: set[str] = set()

    @property
    def broken(self) -> bool:
        """Whether something could not be sent."""
        return bool(self._broken)

    def tell(self, message: Message, route: Slack | None) -> Sent | None:
        """Send a message to all that are to have it; returns where in Slack it is, if Slack tells."""
        self.inform(message)
        if route is None:
            return None
        # Nobody is to be called for good news.
        body = _body(message, route.mention if message.event in _CALLED else None)
        where = {"channel": route.channel or ""}
        return self._try(route.connection, lambda name: self._post_to_slack(name, where, body))

    def inform(self, message: Message) -> None:
        """Send a message to the web service alone, if there is one."""
        if self._alerts.webhook:
            self._try(self._alerts.webhook, lambda name: self._post_json(name, message))

    def reply(self, sent: Sent, message: Message) -> None:
        """Answer a message in its thread."""
        body, where = _body(message), {"channel": sent.channel, "thread_ts": sent.ts}
        self._try(sent.connection, lambda name: self._post_to_slack(name, where, body))

    def change(self, sent: Sent, message: Message) -> None:
        """Put a message in the place of one that was sent."""
        body = {
            "channel": sent.channel,
            "ts": sent.ts,
            "text": text_of(message),
            "blocks": blocks_of(message),
        }
        self._try(sent.connection, lambda name: self._call(self._hook(name), "chat.update", body))

    def _try(self, connection: str, send: Callable[[str], Result]) -> Result | None:
        if connection in self._broken:
            return None
        try:
            return send(connection)
        except Exception as error:
            self._broken.add(connection)
            # Of other errors only the kind: their texts may hold a URL.
            reason = str(error) if isinstance(error, OrreryError) else type(error).__name__
            log.warning("Alerts are not sent through the connection %r: %s", connection, reason)
            return None

    def _post_to_slack(self, connection: str, where: dict[str, str], body: dict[str, Any]) -> Sent | None:
        known = require(connection, _EXAMPLE)
        if known.conn_type == _INCOMING:
            self._post_incoming(connection, body)
            return None
        if known.conn_type != _SLACK:
            raise NotSentError(f"it is of type {known.conn_type!r}, and neither {_SLACK} nor {_INCOMING}")
        if not where["channel"]:
            raise NotSentError("no channel is named; write slack: {channel: ..., connection: ...}")
        # No @name in the text calls anybody, and no link brings a picture with it.
        quiet = {"link_names": False, "unfurl_links": False, "unfurl_media": False}
        answer = self._call(self._hook(connection), "chat.postMessage", {**where, **body, **quiet})
        return Sent(connection, str(answer["channel"]), str(answer["ts"]))

    @staticmethod
    def _hook(connection: str) -> SlackHook:
        return SlackHook(
            slack_conn_id=connection, timeout=int(SECONDS), retry_handlers=[_RateLimit()], logger=_silent()
        )

    def _call(self, hook: SlackHook, method: str, body: dict[str, Any]) -> Any:
        client = hook.client
        try:
            return self._bounded(lambda: client.api_call(method, json=body))
        except SlackApiError as error:
            response: Any = error.response
            told = response["error"] if response.status_code == 200 else response.status_code
            raise NotSentError(f"Slack answers {told}") from None

    def _post_incoming(self, connection: str, body: dict[str, Any]) -> None:
        hook = SlackWebhookHook(
            slack_webhook_conn_id=connection,
            timeout=int(SECONDS),
            retry_handlers=[_RateLimit()],
            logger=_silent(),
        )
        client = hook.client
        answer = self._bounded(lambda: client.send_dict(body))
        if answer.status_code != 200:
            raise NotSentError(f"Slack answers {answer.status_code} {answer.body[:_ANSWER]}".strip())

    def _post_json(self, connection: str, message: Message) -> None:
        service = Service(connection, "POST", _HTTP_EXAMPLE)
        known = service.connection
        # A password without a login is a token.
        token = known.password if not known.login else None
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        body = {"text": message.text, **message.as_dict()}
        answer = self._bounded(
            lambda: service.call(body=body, headers=headers, timeout=SECONDS, default_timeout=SECONDS)
        )
        if service.problem(answer):
            raise NotSentError(f"the service answers {answer.status_code}")

    def _bounded(self, work: Callable[[], Result]) -> Result:
        """The result of `work`; raises NotSentError when it takes too long, or nobody answers.

        In a thread of its own: timeouts of sockets are for each read, and names are looked up without any.
        """
        seconds = min(SECONDS, self._until - time.monotonic())
        results: list[Result] = []
        errors: list[Exception] = []

        def run() -> None:
            try:
                results.append(work())
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        if seconds > 0:
            thread.start()
            thread.join(seconds)
        if results:
            return results[0]
        if errors and not isinstance(errors[0], TimeoutError):
            raise _told(errors[0])
        raise NotSentError(f"no answer within {SECONDS:.0f} s")


def _body(message: Message, mention: str | None = None) -> dict[str, Any]:
    return {"text": text_of(message, mention), "blocks": blocks_of(message, mention)}


def _told(error: Exception) -> Exception:
    """An error of the network in words; others as they are."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, TimeoutError):
        return NotSentError(f"no answer within {SECONDS:.0f} s")
    if isinstance(reason, OSError) or isinstance(error, ConnectionError):
        return NotSentError(str(reason or error))
    return error
