"""Values of Arrow as text, and how long they are."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
from pyarrow import compute

# What Arrow writes for a date or a time that no calendar has.
OUT_OF_RANGE = "<value out of range: "
# Of a value at least, such as a null: it is so long as text, or as what Python makes of it.
WIDTH = 8


def size_of(array: Any) -> int:
    """The bytes of the values of an array, each as often as it is there."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        if not (_is_bytes(kind.value_type) or pa.types.is_string(kind.value_type)):
            return WIDTH * len(array)
        lengths = compute.binary_length(array.dictionary).take(array.indices)
        return int(compute.sum(lengths).as_py() or 0) + WIDTH * len(array)
    if pa.types.is_struct(kind):
        return sum(size_of(each) for each in array.flatten()) + len(array)
    if pa.types.is_map(kind):
        # Its keys and items are those of all that it is a part of.
        begin, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return sum(size_of(each.slice(begin, end - begin)) for each in (array.keys, array.items)) + len(array)
    if pa.types.is_nested(kind):
        return size_of(array.flatten()) + WIDTH * len(array)
    return max(int(array.nbytes), WIDTH * len(array))


def as_text(column: Any) -> Any:
    """An array as strings that PostgreSQL reads back."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_nested(kind):
        # Python knows fewer dates and times than Arrow.
        values = column.cast(_with_texts(kind)) if has_times(kind) else column
        texts = [None if value is None else json.dumps(value, default=_told) for value in values.to_pylist()]
        return pa.array(texts, pa.string())
    if _is_bytes(kind):
        texts = [None if value is None else _told(value) for value in column.to_pylist()]
        return pa.array(texts, pa.string())
    return column.cast(pa.string())


def has_times(kind: Any) -> bool:
    """Whether a type is one of dates or times, or has some inside."""
    return bool(pa.types.is_temporal(kind) or (pa.types.is_nested(kind) and _with_texts(kind) != kind))


def _with_texts(kind: Any) -> Any:
    """A type with texts in the place of dates and times."""
    if pa.types.is_temporal(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([_field(field) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_with_texts(kind.key_type), _with_texts(kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_field(kind.value_field), kind.list_size)
    made = {pa.types.is_list: pa.list_, pa.types.is_large_list: pa.large_list}
    return next((make(_field(kind.value_field)) for is_one, make in made.items() if is_one(kind)), kind)


def _field(field: Any) -> Any:
    return field.with_type(_with_texts(field.type))


def _is_bytes(kind: Any) -> bool:
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    )


def _told(value: Any) -> str:
    """A value that JSON does not know."""
    return "\\x" + value.hex() if isinstance(value, bytes) else str(value)
