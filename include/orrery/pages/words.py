"""Figures and times as people read them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from orrery.config.pipeline import After, OnFiles, Pipeline
from orrery.publish.target import DOCS, ELEMENTARY

# How a word of Airflow or dbt looks; everything else is `off`.
_KINDS = {
    "good": ("success", "pass"),
    "warn": ("warn", "partial success"),
    "bad": ("failed", "fail", "error", "runtime error", "upstream_failed"),
    "busy": ("running", "queued", "restarting"),
}
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words}
# What stands where there is no figure.
NOTHING = "\N{EN DASH}"
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def kind(word: str | None) -> str:
    """`good`, `warn`, `bad`, `busy` or `off`, for a state of Airflow or a status of dbt."""
    return _KIND_OF.get(str(word), "off")


def worst(words: Iterable[str]) -> str:
    """The kind of the worst of these states; `off` without any."""
    kinds = {kind(word) for word in words}
    return next((each for each in ("bad", "warn", "busy", "good") if each in kinds), "off")


def freshness(status: str) -> str:
    """dbt's status of a source in plain words."""
    return {"pass": "fresh", "warn": "late", "error": "stale"}.get(status, "not checked")


def duration(seconds: float | None) -> str:
    """Such as `0.4 s`, `12 s`, `3 min 20 s` or `2 h 5 min`; a dash for None."""
    if seconds is None:
        return NOTHING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    left, parts = round(seconds), []
    for unit, size in _UNITS:
        if left >= size:
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2])


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago, in one unit: `just now`, `5 min ago`, `3 d ago`; a dash for None."""
    if moment is None:
        return NOTHING
    seconds = round(((now or datetime.now(UTC)) - moment).total_seconds())
    for unit, size in _UNITS[:-1]:
        if abs(seconds) >= size:
            told = f"{abs(seconds) // size} {unit}"
            return f"{told} ago" if seconds > 0 else f"in {told}"
    return "just now" if seconds > -10 else f"in {-seconds} s"


def moment(value: datetime | None) -> str:
    """A time in UTC, to the second; a dash for None."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if value else NOTHING


def count(value: float | None) -> str:
    """A whole number with separators, or rounded from a million on; a dash for None."""
    if value is None:
        return NOTHING
    for size, unit in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f}"


def called(file: str) -> str:
    """What a published file is called in a list of them."""
    return {DOCS: "docs", ELEMENTARY: "report"}.get(file, file.partition(".")[0])


def schedule(config: Pipeline) -> str:
    """When a pipeline runs, as its file says it."""
    if isinstance(config.schedule, After):
        joint = " and " if config.schedule.when == "all" else " or "
        return f"after {joint.join(config.after)}"
    if isinstance(config.schedule, OnFiles):
        return "when files arrive"
    return config.schedule or "no schedule"
