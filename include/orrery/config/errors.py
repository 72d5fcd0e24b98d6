"""Errors that tell what is wrong, where, and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One mistake in a file.

    `line` and `column` count from 1; 0 means that the place is not known. `source` is the text of
    that line and `length` the number of characters to underline.
    """

    file: str
    what: str
    fix: str
    line: int = 0
    column: int = 0
    source: str = ""
    length: int = 1

    def __str__(self) -> str:
        place = self.file
        if self.line:
            place += f":{self.line}:{self.column}"
        lines = [f"{place}: {self.what}"]
        if self.source.strip():
            number = f"{self.line:>5}"
            # A tab is drawn as one space, so that the marker stands under what it means.
            lines.append(f"{number} | {self.source.replace(chr(9), ' ')}")
            lines.append(f"{'':>5} | {' ' * (self.column - 1)}{'^' * self.length}")
        lines.append(f"  {self.fix}")
        return "\n".join(lines)


class OrreryError(Exception):
    """An error whose text is meant for the user: what, where, what to do."""


class ConfigError(OrreryError):
    """One or more problems in the project's files; its text lists them all."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n\n".join(str(problem) for problem in self.problems))


def causes_of(errors: Iterable[OrreryError]) -> tuple[str, ...]:
    """What is wrong, each cause once, however many errors name it."""
    texts = (
        str(cause)
        for error in errors
        for cause in (error.problems if isinstance(error, ConfigError) else (error,))
    )
    return tuple(dict.fromkeys(texts))


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that `name` was most likely meant to be, or None when nothing is near."""
    matches = difflib.get_close_matches(str(name), sorted(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def suggest(name: object, known: Iterable[str], noun: str) -> str:
    """A fix in one sentence: the nearest known name, or the list of what there is."""
    names = sorted(known)
    match = nearest(name, names)
    if match:
        return f"Did you mean {match!r}?"
    if not names:
        return f"There is no {noun} yet."
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"Known {noun}s: {shown}."
