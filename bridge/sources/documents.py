"""What a document must look like: its id, its operation, its version, its text, its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bridge.errors import DocumentError
from bridge.records import DeadLetter, Doc, Op, Position
from bridge.sources.fields import kind, reach, strings
from bridge.sources.options import SourceOptions

Item = Doc | DeadLetter

MAX_ID_BYTES = 512
"""Both engines refuse a longer `_id`."""

MAX_VERSION = 2**63 - 1
"""Both engines keep a document's version in 64 bits."""

_NO = frozenset({"", "0", "f", "false", "n", "no", "off", "none", "null"})

RAW_CHARACTERS = 10_000
"""How much of a record that could not be parsed goes into its dead letter."""


def to_item(fields: Mapping[str, Any], position: Position, options: SourceOptions) -> Item:
    """A `Doc` for one parsed record, or the `DeadLetter` that says why it cannot be one.

    `_op` is taken out of the document, and so is the id field. With ids from elsewhere that field is
    `_id`, which the engines refuse inside a document; a hash is of what remains, in its final shape.
    """
    taken = options.taken
    source = dict(fields)
    source.pop(taken, None)
    source.pop("_op", None)
    identity: str | None = None
    letter = fields
    try:
        if options.shape:
            source = options.shape.of(fields, source)
            # Tried again, a dead letter is a document already, and is not shaped once more.
            letter = {name: fields[name] for name in (taken, "_op") if name in fields} | source
        identity = _identity(fields, source, options)
        # No character has more than four bytes: few ids need to be written out to know.
        if 4 * len(identity) > MAX_ID_BYTES and (size := len(identity.encode())) > MAX_ID_BYTES:
            raise DocumentError(f"its id has {size:,} bytes of UTF-8, the engines take {MAX_ID_BYTES}")
        op = _operation(fields, options)
        if op == "update" and options.id_from == "content":
            raise DocumentError("an update is of a document that is there, and an id from this content is of another")
        version = None if options.version_field is None else _version(fields, options.version_field)
        return Doc(identity, source, position, op, version)
    except DocumentError as error:
        return DeadLetter(position, identity, str(error), dict(letter))


def _identity(fields: Mapping[str, Any], source: Mapping[str, Any], options: SourceOptions) -> str:
    if options.identity:
        return options.identity.identity(fields)
    if options.id_from == "content":
        return content_hash(source)
    name = options.id_field
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


def _operation(fields: Mapping[str, Any], options: SourceOptions) -> Op:
    match fields.get("_op", "index"):
        case "index" | "delete" | "update" as named:
            op: Op = named
        case other:
            raise DocumentError(f'its _op is {json.dumps(other)[:100]}, not "index", "update" or "delete"')
    if options.delete_field is not None and any(map(_says_yes, reach(fields, options.delete_field))):
        return "delete"
    return op


def _says_yes(value: Any) -> bool:
    """Whether a value of a delete field means that the document is gone; CSV and some feeds write words."""
    return bool(value) and not (isinstance(value, str) and value.strip().lower() in _NO)


def _version(fields: Mapping[str, Any], name: str) -> int:
    found = list(reach(fields, name))
    match found:
        case [str() as text] if text.isascii() and text.isdigit() and len(text) < 100:
            number = int(text)
        case [int() as number] if not isinstance(number, bool):
            pass
        case [] | [None] | [""]:
            lack = "missing" if not found else "null" if found[0] is None else "empty"
            raise DocumentError(f"no version: field {name} is {lack}")
        case _:
            shown = json.dumps(found[0] if len(found) == 1 else found, ensure_ascii=False)[:100]
            raise DocumentError(f"its version (field {name}) is {shown}, not a whole number")
    if not 0 <= number <= MAX_VERSION:
        raise DocumentError(f"its version (field {name}) is {number}, engines take 0 to {MAX_VERSION}")
    return number


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
    """The first 32 hex characters of the SHA-256 of `source` as JSON in UTF-8 with sorted keys and no blanks.

    Stable across runs, machines and the order of keys; 1 and 1.0 differ.
    """
    return hashlib.sha256(msgspec.json.encode(source, order="deterministic")).hexdigest()[:32]


def text_of(source: Mapping[str, Any], fields: Sequence[str]) -> str:
    """The text that is encoded: those of the named `fields` that exist, in that order, joined by newlines.

    A field is a name or a dotted path into objects (and into lists of objects). Lists are joined by
    newlines, numbers and booleans are written as in JSON; null and blank values add nothing.
    Raises `DocumentError` when no field is there, all are blank, or one is an object.
    """
    parts: list[str] = []
    present: list[str] = []
    for name in fields:
        whole = source.get(name)
        # Nearly every one is a text, and need not be looked for.
        values = [whole] if isinstance(whole, str) else list(reach(source, name))
        if values:
            present.append(name)
        for value in values:
            parts += strings(name, value)
    if not present:
        raise DocumentError(
            f"none of the text fields {', '.join(fields)} is there; it has: {_names(source) or 'no field'}"
        )
    if not parts:
        raise DocumentError(f"its text is empty ({', '.join(present)})")
    return "\n".join(parts)


def _names(source: Mapping[str, Any], most: int = 12) -> str:
    names = [str(name)[:80] for name in list(source)[:most]]
    rest = len(source) - len(names)
    return ", ".join(names) + (f" and {rest:,} more" if rest else "")
