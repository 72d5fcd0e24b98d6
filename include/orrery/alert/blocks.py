"""A message as Slack shows it: Block Kit, within its limits, with nothing of the text being markup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from orrery.alert.message import FailedTest, Message, Samples

Block = dict[str, Any]

# Of Slack: characters of a header, of a text and of a field, and the number of blocks.
_HEADER, _TEXT, _FIELD, _BLOCKS = 150, 3000, 2000, 50
# Of ours: what is read at a glance.
_CELL, _ITEMS, _EXPOSURES, _TESTS = 40, 20, 10, 5

_SIGNS = {
    "failure": ":red_circle:",
    "warning": ":warning:",
    "late": ":alarm_clock:",
    "recovery": ":large_green_circle:",
    "success": ":white_check_mark:",
}
_DONE = ":white_check_mark:"
_WHO = {"@here": "<!here>", "@channel": "<!channel>", "@everyone": "<!everyone>"}
_CUT = "…"


def text_of(message: Message, mention: str | None = None) -> str:
    """What a notification shows, and a client without blocks."""
    told = escaped(_cut(message.text, _FIELD))
    return f"{_who(mention)} {told}" if mention else told


def blocks_of(message: Message, mention: str | None = None) -> list[Block]:
    """The message as blocks.

    :param mention: who is called, as in the configuration
    """
    sign = _DONE if message.done else _SIGNS[message.event]
    # Plain text: Slack reads no markup there.
    header = {"type": "plain_text", "text": _cut(f"{sign} {message.title}", _HEADER), "emoji": True}
    found: list[Block] = [{"type": "header", "text": header}]
    facts = [
        f"*{escaped(name)}*\n{escaped(_cut(value, 300))}" for name, value in (message.facts or {}).items()
    ]
    if facts:
        found.append({"type": "section", "fields": [_markdown(fact) for fact in facts[:10]]})
    if mention:
        found.append(_section(_who(mention)))
    if message.error:
        found.append(_section(_code(message.error)))
    for test in message.tests[:_TESTS]:
        found += [_section(text) for text in _test(test)]
    if message.items:
        found.append(_section(_list(message.items, _ITEMS)))
    if affected := "\n".join(_affected(message)):
        found.append(_section(affected))
    if message.command:
        found.append(_section(f"`{escaped(message.command)}`"))
    if message.links:
        links = [f"<{url}|{escaped(name)}>" for name, url in message.links.items()]
        found.append({"type": "context", "elements": [_markdown("  ·  ".join(links))]})
    return found[:_BLOCKS]


def escaped(text: str) -> str:
    """Text in which Slack finds neither a link nor a mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _test(test: FailedTest) -> Iterator[str]:
    rows = f": {test.failures:,} row{'' if test.failures == 1 else 's'}" if test.failures is not None else ""
    column = f" on column `{escaped(test.column)}`" if test.column else ""
    yield f"*Test* `{escaped(test.name)}`{column}{rows}"
    if test.samples:
        yield _code(_table(test.samples))


def _table(samples: Samples) -> str:
    """Rows below the names of their columns, cut where Slack would cut them."""
    lines = [samples.columns, *samples.rows]
    cells = [[_cut(" ".join(cell.split()), _CELL) for cell in line] for line in lines]
    widths = [max(len(line[index]) for line in cells) for index in range(len(samples.columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _affected(message: Message) -> Iterator[str]:
    if message.held_back:
        yield f"*Held back:* {message.held_back:,} node{'' if message.held_back == 1 else 's'}"
    if message.exposures:
        shown = ", ".join(escaped(name) for name in message.exposures[:_EXPOSURES])
        more = len(message.exposures) - _EXPOSURES
        yield f"*Exposures:* {shown}" + (f" and {more} more" if more > 0 else "")


def _list(items: Any, most: int) -> str:
    lines = [f"• {escaped(_cut(' '.join(item.split()), 140))}" for item in items[:most]]
    more = len(items) - most
    return "\n".join([*lines, f"and {more} more"] if more > 0 else lines)


def _code(text: str) -> str:
    """A code block; what would end it early is changed. Cut after escaping, but within no escape."""
    safe = escaped(text.replace("```", "'''"))
    most = _TEXT - 20
    if len(safe) > most:
        safe = re.sub(r"&[a-z]{0,3}$", "", safe[:most]) + f"\n{_CUT}"
    return f"```\n{safe}\n```"


def _who(mention: str | None) -> str:
    return _WHO.get(mention or "", mention or "")


def _section(text: str) -> Block:
    return {"type": "section", "text": _markdown(text)}


def _markdown(text: str) -> Block:
    # Verbatim: @channel or #name in a text is no more than that.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}{_CUT}"
