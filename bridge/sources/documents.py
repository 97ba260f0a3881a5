"""What a document must look like: its id, its operation, its text, its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bridge.errors import DocumentError
from bridge.records import DeadLetter, Doc, Op, Position

Item = Doc | DeadLetter

MAX_ID_BYTES = 512
"""Both engines refuse a longer `_id`."""

RAW_CHARACTERS = 10_000
"""How much of a record that could not be parsed goes into its dead letter."""


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Where a document's id comes from: a field (taken out of the document), or a hash of its content."""

    id_field: str = "_id"
    id_from: Literal["field", "content"] = "field"


def to_item(fields: Mapping[str, Any], position: Position, options: SourceOptions) -> Item:
    """A `Doc` for one parsed record, or the `DeadLetter` that says why it cannot be one.

    `_op` is taken out of the document, and so is the id field. With ids from content that field is
    `_id`, which the engines refuse inside a document; the hash is of what remains.
    """
    id_field = options.id_field if options.id_from == "field" else "_id"
    source = {name: value for name, value in fields.items() if name not in (id_field, "_op")}
    identity: str | None = None
    try:
        identity = _identity(fields, id_field) if options.id_from == "field" else content_hash(source)
        if (size := len(identity.encode())) > MAX_ID_BYTES:
            raise DocumentError(f"its id has {size:,} bytes of UTF-8, the engines take {MAX_ID_BYTES}")
        return Doc(identity, source, position, _operation(fields))
    except DocumentError as error:
        return DeadLetter(position, identity, str(error), dict(fields))


def _identity(fields: Mapping[str, Any], name: str) -> str:
    match fields.get(name, ...):
        case str() as text if text:
            return text
        case float() as number:
            raise DocumentError(f"its id (field {name}) is {number}, not a string or a whole number")
        case bool() | list() | dict() as value:
            raise DocumentError(f"its id (field {name}) is {kind(value)}, not a string or a whole number")
        case int() as number:
            return str(number)
        case value:
            lack = {"": "empty", None: "null"}.get(value, "missing")
            hint = "name another with --id-field, or use --id-from content"
            raise DocumentError(f"no id: field {name} is {lack} ({hint})")


def _operation(fields: Mapping[str, Any]) -> Op:
    match fields.get("_op", "index"):
        case "index":
            return "index"
        case "delete":
            return "delete"
        case other:
            raise DocumentError(f'its _op is {json.dumps(other)[:100]}, not "index" or "delete"')


def kind(value: object) -> str:
    """The JSON word for `value`, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case Mapping():
            return "an object"
        case _:
            return "an array"


def raw_text(raw: bytes | bytearray, size: int | None = None) -> str:
    """`raw` for a dead letter: decoded with U+FFFD for what is not UTF-8, and cut at 10,000 characters.

    `size` is the record's whole length in bytes where `raw` is only its beginning.
    """
    size = len(raw) if size is None else size
    text = bytes(raw[: 4 * RAW_CHARACTERS]).decode("utf-8", "replace")
    if len(text) <= RAW_CHARACTERS and size <= 4 * RAW_CHARACTERS:
        return text
    return f"{text[:RAW_CHARACTERS]}… [cut at {RAW_CHARACTERS:,} characters, {size:,} bytes in all]"


def content_hash(source: Mapping[str, Any]) -> str:
    """The first 32 hex characters of the SHA-256 of `source` as canonical JSON.

    Stable across runs, machines and the order of keys; 1 and 1.0 differ.
    """
    canonical = json.dumps(source, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:32]


def text_of(source: Mapping[str, Any], fields: Sequence[str]) -> str:
    """The text that is encoded: those of the named `fields` that exist, in that order, joined by newlines.

    A field is a name or a dotted path into objects (and into lists of objects). Lists are joined by
    newlines, numbers and booleans are written as in JSON; null and blank values add nothing.
    Raises `DocumentError` when no field is there, all are blank, or one is an object.
    """
    parts: list[str] = []
    present: list[str] = []
    for name in fields:
        values = list(_reach(source, name))
        if values:
            present.append(name)
        for value in values:
            parts += _strings(name, value)
    if not present:
        raise DocumentError(
            f"none of the text fields {', '.join(fields)} is there; it has: {_names(source) or 'no field'}"
        )
    if not parts:
        raise DocumentError(f"its text is empty ({', '.join(present)})")
    return "\n".join(parts)


def _reach(node: Any, path: str) -> Iterator[Any]:
    if isinstance(node, list | tuple):
        for member in node:
            yield from _reach(member, path)
    elif isinstance(node, Mapping):
        # A field's own name may hold dots, as engines allow: the longest name that is there wins.
        head, tail = path, ""
        while head not in node and "." in head:
            head, _, step = head.rpartition(".")
            tail = f"{step}.{tail}" if tail else step
        if head in node:
            yield from _reach(node[head], tail) if tail else (node[head],)


def _strings(name: str, value: Any) -> Iterator[str]:
    match value:
        case str():
            if value and not value.isspace():
                yield value
        case None:
            return
        case bool():
            yield "true" if value else "false"
        case Mapping():
            raise DocumentError(f"the text field {name} is an object; name a field in it, as {name}.x")
        case list() | tuple():
            for member in value:
                yield from _strings(name, member)
        case _:
            yield str(value)


def _names(source: Mapping[str, Any], most: int = 12) -> str:
    names = [str(name)[:80] for name in list(source)[:most]]
    rest = len(source) - len(names)
    return ", ".join(names) + (f" and {rest:,} more" if rest else "")
