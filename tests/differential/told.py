"""Projects, choices and hands as Python that makes them: short, and ready to become a regression test."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass


def as_code(value: object) -> str:
    """What makes a value of this package; fields with their defaults are left out."""
    if is_dataclass(value) and not isinstance(value, type):
        given = [
            f"{field.name}={as_code(getattr(value, field.name))}"
            for field in fields(value)
            if field.default is MISSING or getattr(value, field.name) != field.default
        ]
        return f"{type(value).__name__}({', '.join(given)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(as_code, value))}{',' if len(value) == 1 else ''})"
    return repr(value)
