"""Write the objects that the product `events` is fed with.

    python tests/services/data/events/generate.py

Everything is synthetic: a seeded generator invents it, so running the script again reproduces the
files byte for byte. Each file is an object as the collector writes one every twelve hours. README.md,
beside this script, says what is wrong with the data, on purpose.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SEED = 20_260_302
START = datetime.fromisoformat("2026-03-02")  # a Monday
OBJECTS, EVERY = 10, timedelta(hours=12)
END = START + OBJECTS * EVERY
VISITORS = 280

SOURCES = {"": 30, "google": 34, "newsletter": 14, "facebook": 12, "partner": 10}
DEVICES = {"desktop": 52, "mobile": 40, "tablet": 8}
PATHS = {
    "/": 26,
    "/blog": 16,
    "/products": 22,
    "/products/starter": 12,
    "/products/team": 10,
    "/pricing": 14,
}
PRICES = (9.0, 19.0, 49.0, 99.0)
# How likely somebody is to sign up at the end of a visit, by where they came from.
SIGN_UP = {"": 0.15, "google": 0.24, "newsletter": 0.4, "facebook": 0.1, "partner": 0.35}
# As versions of the app have called them over time.
SPELLINGS = {
    "page_view": ("page_view", "page_view", "page_view", "pageView"),
    "sign_up": ("sign_up", "sign_up", "signup"),
    "purchase": ("purchase", "purchase", "Purchase"),
}
DUPLICATE, RESENT, LATE = 0.012, 0.01, 0.02
SKEWED_CLOCKS = 0.006
BROKEN_OBJECT = 4

Event = dict[str, Any]


def pick(rng: random.Random, options: Iterable[Any], weights: Sequence[float]) -> Any:
    return rng.choices(tuple(options), weights=weights)[0]


class Visitor:
    """Somebody with a browser, who may sign up and then buy."""

    def __init__(self, rng: random.Random, number: int) -> None:
        self.rng = rng
        self.anonymous_id = f"a{number:04}"
        self.source = pick(rng, SOURCES, list(SOURCES.values()))
        self.device = pick(rng, DEVICES, list(DEVICES.values()))
        self.user_id = ""
        self.interest = 0.0
        self.events: list[Event] = []

    def live(self) -> list[Event]:
        """All that the visitor does: a few visits, most of them in the afternoon."""
        now = START + (END - START) * self.rng.random()
        for _ in range(pick(self.rng, range(1, 7), (30, 26, 18, 13, 8, 5))):
            now = now.replace(hour=min(23, max(0, round(self.rng.gauss(15, 5)))))
            if now < END - timedelta(hours=2) and (not self.events or now > self.events[-1]["occurred_at"]):
                self.visit(now)
            now += timedelta(days=self.rng.choice((0, 1, 1, 2)), hours=self.rng.random() * 5)
        return self.events

    def visit(self, now: datetime) -> None:
        for _ in range(self.rng.randint(1, 7)):
            path = pick(self.rng, PATHS, list(PATHS.values()))
            self.interest += path.startswith(("/products/", "/pricing"))
            self.happens("page_view", now, path=path)
            now += timedelta(seconds=self.rng.randint(5, 400))
        if not self.user_id and self.rng.random() < SIGN_UP[self.source]:
            self.user_id = f"u{self.anonymous_id[1:]}"
            self.happens("sign_up", now, path="/sign-up")
            now += timedelta(seconds=self.rng.randint(20, 200))
        buys = 1 / (1 + math.exp(3.2 - 0.6 * self.interest - 0.9 * (self.device == "desktop")))
        if self.user_id and self.rng.random() < buys:
            amount = pick(self.rng, PRICES, (30, 40, 20, 10))
            self.happens("purchase", now, path="/checkout", amount=amount)

    def happens(self, name: str, now: datetime, **more: Any) -> None:
        self.events.append(
            {
                "event_name": self.rng.choice(SPELLINGS[name]),
                "anonymous_id": self.anonymous_id,
                "user_id": self.user_id,
                "source": self.source,
                "device": self.device,
                "occurred_at": now,
                **more,
            }
        )


def visitors(rng: random.Random) -> list[Event]:
    events = [event for number in range(1, VISITORS + 1) for event in Visitor(rng, number).live()]
    # A crawler, which reads everything and is nobody.
    crawler = Visitor(rng, 9999)
    crawler.device = "bot"
    crawler.source = ""
    for hour in range(0, 115, 5):
        crawler.happens("page_view", START + timedelta(hours=hour, minutes=7), path="/blog")
    return [*events, *crawler.events]


def sent(rng: random.Random, events: list[Event]) -> list[Event]:
    """The events as the collector gets them: some late, some from a clock that is wrong, some twice."""
    received: list[Event] = []
    for event in sorted(events, key=lambda event: (event["occurred_at"], event["anonymous_id"])):
        sent_at = event["occurred_at"] + timedelta(seconds=rng.randint(1, 30))
        if rng.random() < LATE:
            # a phone without a network, for up to two days
            sent_at += timedelta(hours=rng.uniform(10, 48))
        if sent_at >= END:
            continue
        occurred_at = event["occurred_at"]
        if rng.random() < SKEWED_CLOCKS:
            occurred_at = sent_at + timedelta(minutes=rng.randint(3, 20))
        row = {**event, "occurred_at": occurred_at, "sent_at": sent_at}
        received.append(row)
        if rng.random() < RESENT:
            # The app got no answer and sends it again; the collector takes it for a new one.
            received.append({**row, "sent_at": min(sent_at + timedelta(seconds=rng.randint(30, 90)), END)})
    received.sort(key=lambda event: (event["sent_at"], event["anonymous_id"]))
    return [{"event_id": f"e{number:05}", **event} for number, event in enumerate(received, 1)]


def into_objects(rng: random.Random, events: list[Event]) -> list[list[Event]]:
    objects: list[list[Event]] = [[] for _ in range(OBJECTS)]
    for event in events:
        place = min(OBJECTS - 1, (event["sent_at"] - START) // EVERY)
        objects[place].append(event)
        if place + 1 < OBJECTS and rng.random() < DUPLICATE:
            # the collector started again before it had noted how far it was
            objects[place + 1].insert(0, event)
    return objects


def line(event: Event) -> str:
    """The event as JSON, without the keys that say nothing."""
    written = {
        key: f"{value:%Y-%m-%dT%H:%M:%SZ}" if isinstance(value, datetime) else value
        for key, value in event.items()
        if value != ""
    }
    return json.dumps(written, separators=(",", ":"))


def main() -> None:
    rng = random.Random(SEED)
    for number, events in enumerate(into_objects(rng, sent(rng, visitors(rng)))):
        lines = [line(event) for event in events]
        if number == BROKEN_OBJECT:
            # the collector was killed while it wrote
            lines.insert(len(lines) // 2, lines[len(lines) // 2][:61])
        path = FOLDER / f"{START + number * EVERY:%Y-%m-%d-%H}.jsonl"
        path.write_text("".join(f"{each}\n" for each in lines), encoding="utf-8")
        print(f"{path.name}: {len(lines)} lines")


if __name__ == "__main__":
    main()
