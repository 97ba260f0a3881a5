"""Arrow's record batches as JSON values, without loss.

What JSON has no word for becomes a string: timestamps, dates and times in ISO 8601 (UTC with a Z where they
have a time zone), durations as PT…S, decimals with all their digits, UUIDs as usual. Maps become objects.
Bytes, NaN and infinities have no such form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from bridge.errors import DocumentError

Convert = Callable[[Any], Any]
Row = tuple[dict[str, Any], str | None]
"""The fields, and what is wrong with one of them, if anything; a bad value is shown as a string."""

_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_EPOCH = datetime(1970, 1, 1)


def rows(batch: Any) -> Iterator[Row]:
    """The rows of a record batch."""
    import pyarrow as pa

    columns, converters = [], []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        plain = _plain(field.type)
        columns.append(column if plain == field.type else column.cast(plain))
        if convert := _converter(field.type):
            converters.append((field.name, convert))
    batch = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
    try:
        listed: list[Row] = [(fields, None) for fields in batch.to_pylist()]
    except (ValueError, OverflowError):
        # One bad value (a string that is not UTF-8) fails the whole batch: find the rows that it is in.
        listed = [_row_alone(batch, index) for index in range(batch.num_rows)]
    for fields, fault in listed:
        yield fields, _convert(fields, converters) or fault


def _row_alone(batch: Any, index: int) -> Row:
    fields: dict[str, Any] = {}
    fault = None
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            fields[name] = column[index].as_py()
        except (ValueError, OverflowError) as error:
            fields[name] = None
            fault = fault or f"field {name} cannot be read: {error}"
    return fields, fault


def _convert(fields: dict[str, Any], converters: list[tuple[str, Convert]]) -> str | None:
    fault = None
    for name, convert in converters:
        value = fields[name]
        if value is not None:
            try:
                fields[name] = convert(value)
            except (DocumentError, OverflowError) as error:
                fault = fault or f"field {name}: {error}"
                fields[name] = repr(value)[:1_000]
    return fault


def _plain(kind: Any) -> Any:
    """`kind` with every time in it as the integer that it is stored as.

    Python's own times end at microseconds and at the year 9999, and their zones need a database.
    """
    import pyarrow as pa
    from pyarrow import types

    if types.is_timestamp(kind) or types.is_time64(kind) or types.is_date64(kind) or types.is_duration(kind):
        return pa.int64()
    if types.is_time32(kind) or types.is_date32(kind):
        return pa.int32()
    if types.is_dictionary(kind):
        return _plain(kind.value_type)
    if _is_list(kind):
        value = _plain(kind.value_type)
        if value == kind.value_type:
            return kind
        return pa.list_(value, kind.list_size) if types.is_fixed_size_list(kind) else pa.large_list(value)
    if types.is_map(kind):
        return pa.map_(_plain(kind.key_type), _plain(kind.item_type))
    if types.is_struct(kind):
        return pa.struct([member.with_type(_plain(member.type)) for member in _members(kind)])
    return kind


def _converter(kind: Any) -> Convert | None:
    """From what `to_pylist` gives for `_plain(kind)` to JSON; None where that is JSON already."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return _converter(kind.value_type)
    if _is_list(kind):
        return _each(_converter(kind.value_type))
    if types.is_map(kind):
        return _mapping(_converter(kind.key_type), _converter(kind.item_type))
    if types.is_struct(kind):
        members = [(member.name, _converter(member.type)) for member in _members(kind)]
        return _structure([(name, convert) for name, convert in members if convert])
    return _scalar_converter(kind)


def _scalar_converter(kind: Any) -> Convert | None:
    from pyarrow import types

    if types.is_floating(kind):
        return _finite
    if types.is_decimal(kind):
        return lambda value: format(value, "f")
    if types.is_timestamp(kind):
        zone = "Z" if kind.tz else ""
        return lambda value: _moment(value, kind.unit) + zone
    if types.is_date(kind):
        per_day = 1 if types.is_date32(kind) else 86_400_000
        return lambda value: _moment(value // per_day * 86_400, "s")[:10]
    if types.is_time(kind):
        return lambda value: _moment(value, kind.unit)[11:]
    if types.is_duration(kind):
        return lambda value: f"PT{'-' if value < 0 else ''}{_seconds(abs(value), kind.unit)}S"
    if getattr(kind, "extension_name", None) == "arrow.uuid":
        return str
    if (
        types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_null(kind)
        or str(kind) in {"string", "large_string", "string_view"}
    ):
        return None

    def refuse(_value: Any) -> Any:
        raise DocumentError(f"a value of type {kind} has no form in JSON")

    return refuse


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _members(struct: Any) -> list[Any]:
    return [struct.field(index) for index in range(struct.num_fields)]


def _each(convert: Convert | None) -> Convert | None:
    if convert is None:
        return None
    return lambda values: [None if value is None else convert(value) for value in values]


def _mapping(key: Convert | None, item: Convert | None) -> Convert:
    def convert(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        return {
            str(key(name) if key else name): value if item is None or value is None else item(value)
            for name, value in pairs
        }

    return convert


def _structure(members: list[tuple[str, Convert]]) -> Convert | None:
    if not members:
        return None

    def convert(fields: dict[str, Any]) -> dict[str, Any]:
        return fields | {name: one(fields[name]) for name, one in members if fields[name] is not None}

    return convert


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise DocumentError(f"{number} is not a number in JSON")
    return number


def _seconds(value: int, unit: str) -> str:
    """`value` units as decimal seconds, exactly."""
    digits = _DIGITS[unit]
    whole, fraction = divmod(value, 10**digits)
    return f"{whole}.{fraction:0{digits}}".rstrip("0") if fraction else str(whole)


def _moment(value: int, unit: str) -> str:
    whole, point, fraction = _seconds(value, unit).partition(".")
    try:
        return (_EPOCH + timedelta(seconds=int(whole))).isoformat() + point + fraction
    except OverflowError:
        raise DocumentError(f"{value} {unit} from 1970 is outside the years 1 to 9999") from None
