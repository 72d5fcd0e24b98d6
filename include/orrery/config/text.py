"""Texts of others, made fit to be stored and shown: dbt and YAML take any character, databases do not."""

from __future__ import annotations

import re
from typing import Any

# Control characters but tabs and ends of lines, halves of characters, and what Unicode says is none.
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_CUT = " ..."


def first_unfit(value: object) -> str | None:
    """The first character of a text that PostgreSQL or JSON cannot hold; None for anything else."""
    found = _UNFIT.search(value) if isinstance(value, str) else None
    return found[0] if found else None


def fit(text: object, most: int) -> str:
    """`text` without such characters, cut to `most` characters; whatever is no text becomes one."""
    clean = _UNFIT.sub(_REPLACEMENT, text if isinstance(text, str) else str(text))
    return clean if len(clean) <= most else clean[: most - len(_CUT)] + _CUT


def fit_all(value: Any) -> Any:
    """A value of JSON with all its texts made fit; none is cut."""
    if isinstance(value, str):
        return _UNFIT.sub(_REPLACEMENT, value)
    if isinstance(value, dict):
        return {fit_all(key): fit_all(each) for key, each in value.items()}
    return [fit_all(each) for each in value] if isinstance(value, list) else value
