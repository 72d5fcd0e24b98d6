"""The rules by which the rows of a file come into a table, whichever warehouse has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from orrery.config.ingest import Files
from orrery.ingest.errors import FileError
from orrery.ingest.landing import LandingFile
from orrery.ingest.limits import Limits
from orrery.ingest.target import Target, check_name

# What PostgreSQL takes for a date or a time, in any case and beside other parts of one: what some of these
# words mean depends on the moment of the load, and the others stand for nothing that a calendar has.
TIME_WORDS = "(^|[^a-z])(now|today|tomorrow|yesterday|epoch|infinity|allballs)([^a-z]|$)"
# What it takes for a number, and no sum can be made of.
NUMBER_WORDS = "nan|inf"
NO_TIME, NO_NUMBER = "is a word, not a date or a time", "is not a finite number"
# Of the bad rows, in an error: how many, and how many characters of what is wrong with each.
SHOWN, LONGEST_REASON = 5, 300


@dataclass(frozen=True)
class Merged:
    """What became of the rows of a file; `inserted + updated + rejected` are all of them."""

    inserted: int
    updated: int
    rejected: int


def match_columns(
    file: LandingFile,
    columns: tuple[str, ...],
    target: Target,
    existing: Mapping[str, str],
    spec: Files,
    *,
    limits: Limits,
) -> tuple[list[str | None], dict[str, str]]:
    """For each column of a file the one of the table, or None to ignore it; and the ones to add.

    Names match exactly, else without regard to case. Raises FileError.
    """
    folded = {name.lower(): name for name in existing}
    names = [column if column in existing else folded.get(column.lower(), column) for column in columns]
    line = 1 if spec.file_format == "csv" else None
    strange = next((name for name in names if not _is_text(name)), None)
    if strange is not None:
        what = f"has a column whose name is no text: {strange!a}"
        raise FileError(file.name, what, "Land it with another name.", line)
    counts = Counter(names)
    twice = next((name for name in names if counts[name] > 1), None)
    if twice is not None:
        raise FileError(file.name, f"has the column {twice!r} twice", "Land it with different names.", line)
    missing = [name for name in target.columns if name not in counts]
    if missing and spec.file_format != "jsonl":
        shown = ", ".join(map(repr, missing))
        raise FileError(file.name, f"has no column {shown}", "Land it with all declared columns.", line)
    new = [name for name in names if name not in existing]
    if new and spec.on_new_column == "fail":
        shown = ", ".join(map(repr, new[:SHOWN])) + (
            f" and {len(new) - SHOWN:,} more" if len(new) > SHOWN else ""
        )
        fix = "Declare it in the source, or set on_new_column: add or ignore."
        raise FileError(file.name, f"has a column that the source does not: {shown}", fix, line)
    if spec.on_new_column == "ignore":
        return [name if name in existing else None for name in names], {}
    for name in new:
        check_name(file.name, name, limits)
    return list(names), dict.fromkeys(new, "text")


def is_allowed(spec: Files, rejected: int, rows: int) -> bool:
    """Whether a file may have so many bad rows among its `rows`."""
    allowed = spec.max_rejected
    # Rounded, because 29% of 100 are 28.999999999999996.
    return rejected <= (round(allowed * rows, 3) if isinstance(allowed, float) else allowed)


def too_many(
    file: LandingFile, spec: Files, rejected: int, rows: int, bad: list[tuple[int, str]]
) -> FileError:
    """What is wrong with a file that has too many bad rows; `bad` are line and reason of the first ones."""
    allowed = spec.max_rejected
    shown = "".join(f"\n    line {line}: {reason}" for line, reason in bad)
    more = f"\n    and {rejected - len(bad)} more" if rejected > len(bad) else ""
    most = f"{allowed:.2%}" if isinstance(allowed, float) else f"{allowed:,}"
    return FileError(
        file.name,
        f"{rejected:,} of {rows:,} rows are bad, and max_rejected allows {most}:{shown}{more}",
        "Correct the file, or allow more; nothing of it is loaded.",
        bad[0][0],
    )


def _is_text(name: str) -> bool:
    """Whether a name can be written anywhere: Parquet and JSON know others."""
    try:
        return b"\0" not in name.encode()
    except UnicodeEncodeError:
        return False
