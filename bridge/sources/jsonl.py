"""JSON Lines: one object a line.

Whole numbers keep every digit up to 4,300 of them; other numbers are 64-bit floats, and one beyond their
range is an error. Where a key comes twice in an object, its last value counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec

from bridge.errors import DocumentError, SourceError
from bridge.records import DeadLetter, Position
from bridge.sources.documents import Item, raw_text, to_item
from bridge.sources.fields import kind
from bridge.sources.files import SourceFile
from bridge.sources.options import SourceOptions
from bridge.sources.streams import MAX_LINE_BYTES, Cursor, Overlong, lines

BOM = b"\xef\xbb\xbf"

MAX_DEPTH = 100
"""Engines take 20 levels of objects unless told otherwise; past some hundreds Python's own JSON gives up."""

_TOO_DEEP = f"it is nested deeper than {MAX_DEPTH} levels"
_LONE_SURROGATE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_BYTE = re.compile(r" \(byte (\d+)\)$")


def read_jsonl(file: SourceFile, options: SourceOptions, cursor: Cursor) -> Iterator[Item]:
    """Each line that is not blank, as one item."""
    decode = _decoder(cursor.raw)
    fresh = True
    for number, line in enumerate(lines(file.chunks(cursor)), 1):
        if isinstance(line, Overlong):
            if not cursor.passes_over():
                reason = f"the line has {line.size:,} bytes, at most {MAX_LINE_BYTES:,} are read"
                document = raw_text(line.head, line.size)
                yield DeadLetter(Position(file.name, number), None, reason, document)
            continue
        if number == 1:
            line = line.removeprefix(BOM)
        if not line or line.isspace():
            continue
        if fresh and line.strip() == b"[":
            raise SourceError(f"{file.name}: is one JSON array, not one object a line; convert it: jq -c '.[]' FILE")
        fresh = False
        if cursor.passes_over():
            continue
        position = Position(file.name, number)
        try:
            fields = _parse(line, decode)
        except DocumentError as error:
            yield DeadLetter(position, None, str(error), raw_text(line.rstrip(b"\r\n")))
        else:
            if not cursor.leaves_out(fields):
                yield to_item(fields, position, options)


def _decoder(raw: frozenset[str]) -> Callable[[bytes | bytearray], Any]:
    decode = msgspec.json.Decoder().decode
    if not raw:
        return partial(_checked, decode=decode)
    outer = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

    def decode_outside(line: bytes | bytearray) -> Any:
        try:
            # What stays as it is written belongs to the line, which a buffer that is used again must not change.
            fields = outer(bytes(line))
            if not line.isascii():
                line.decode()
            return {name: value if name in raw else _checked(value, decode) for name, value in fields.items()}
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _checked(line, decode)  # which says where in the line it is wrong

    return decode_outside


def _parse(line: bytes | bytearray, decode: Any) -> dict[str, Any]:
    try:
        value = decode(line)
    except RecursionError:
        raise DocumentError(_TOO_DEEP) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DocumentError(_why(line, error)) from None
    if not isinstance(value, dict):
        raise DocumentError(f"not a JSON object but {kind(value)}")
    return value


def _checked(line: bytes | bytearray | msgspec.Raw, decode: Callable[[Any], Any]) -> Any:
    """What `line` holds, unless it is nested too deep."""
    value = decode(line)
    if isinstance(value, str):
        return value
    text = bytes(line)
    if text.count(b"{") + text.count(b"[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise DocumentError(_TOO_DEEP)
    return value


def _why(line: bytes | bytearray, error: Exception) -> str:
    """What is wrong with `line`; columns count bytes from 1."""
    if fault := utf8_fault(line):
        return fault
    for match in _LONE_SURROGATE.finditer(line):
        if match[1]:
            escape = f"\\{match[1].decode()}"
            return f"not JSON: {escape} is half a character, a lone surrogate (column {match.start() + 1})"
    message = str(error)
    if "out of range" in message:
        return "not JSON that can be kept: a number is out of range"
    if "truncated" in message:
        return f"not JSON: it ends too early (column {len(line.rstrip()) + 1})"
    # The decoder counts from 0, except that it has stepped past the first of any trailing characters.
    ahead = 0 if "trailing" in message else 1
    message = _BYTE.sub(lambda match: f" (column {int(match[1]) + ahead})", message)
    return f"not JSON: {message.removeprefix('JSON is malformed: ')}"


def utf8_fault(line: bytes | bytearray) -> str | None:
    """Where `line` is not UTF-8, or None where it is."""
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"not UTF-8: byte 0x{line[error.start]:02x} at column {error.start + 1}"
    return None


def _depth(value: Any) -> int:
    level = [value]
    depth = 0
    while level:
        depth += 1
        level = [
            member
            for node in level
            if isinstance(node, dict | list)
            for member in (node.values() if isinstance(node, dict) else node)
        ]
    return depth - 1
