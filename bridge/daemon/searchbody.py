"""What an application asks ─▶ the same, asked of vectors; what the bridge keeps in documents does not come along."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from bridge.daemon.proxied import Query, rewritten
from bridge.indexmodel import IndexModel

Fields = Mapping[str, Any]
"""The fields of a body; those that are of no concern as they stand there."""

_SHOWN = frozenset(
    ("_source", "_source_includes", "_source_excludes", "_source_include", "_source_exclude", "stored_fields")
)
"""With one of these an application says itself what of a document it wants; in a URL, or in a body."""

_read = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class Asked:
    """An index whose text fields are asked by its vectors."""

    model: IndexModel
    ask: Callable[[str, int], Query]
    """A question, and how many hits are to be found ─▶ the clause that asks for it."""

    def search(self, body: Fields) -> Fields:
        """A body whose `query` is asked of vectors; the same one where it has no question to them."""
        if "query" not in body:
            return body
        model = self.model
        try:
            query = _value(body["query"])
            highlight = _value(body.get("highlight"))
            wanted = max(1, _whole(body.get("size"), 10) + _whole(body.get("from"), 0))
            made = rewritten(query, model.text_fields, model.path, lambda text: self.ask(text, wanted))
        except (msgspec.DecodeError, RecursionError):
            return body
        if made == query:
            return body
        if not isinstance(highlight, dict):
            return {**body, "query": made}
        # What is marked in a text are the words that were asked for.
        return {**body, "query": made, "highlight": {"highlight_query": query, **highlight}}

    def hiding(self, body: Fields) -> Fields:
        """A body whose hits come without what is the bridge's, unless it says itself what it wants."""
        return body if _SHOWN & body.keys() else {**body, "_source": {"excludes": list(self.model.own_fields)}}


Of = Callable[[str], Asked | None]
"""An index's name ─▶ how it is asked; None for one that is not bridged."""


def fields_of(raw: bytes) -> Fields | None:
    """The fields of a body; none of an empty one, None of what is not an object in JSON: the engine says what it is."""
    if not raw.strip():
        return {}
    try:
        return _read(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def says_what(query: Mapping[str, str], body: Fields | None = None) -> bool:
    """Whether a URL's parameters, or a body, name what of a document is wanted."""
    return not (_SHOWN.isdisjoint(query) and _SHOWN.isdisjoint(body or ()))


def msearch(raw: bytes, default: str | None, of: Of) -> bytes:
    """The body of an `_msearch`; the lines of what is not bridged byte for byte."""
    lines = raw.split(b"\n")
    # As engines read it: the first line may be empty; then come pairs, and what follows the last line's end is none.
    for place in range(1 if raw.startswith(b"\n") else 0, len(lines) - 2, 2):
        head, body = fields_of(lines[place]), fields_of(lines[place + 1])
        if head is None or body is None:
            continue
        index = _value(head["index"]) if "index" in head else _value(head.get("indices", b"null")) or default
        index = index[0] if isinstance(index, list) and len(index) == 1 else index
        asked = of(index) if isinstance(index, str) else None
        if asked is not None:
            lines[place + 1] = msgspec.json.encode(asked.hiding(asked.search(body)))
    return b"\n".join(lines)


def mget(raw: bytes, default: str | None, of: Of) -> bytes:
    """The body of an `_mget` that names its documents one by one; it is the same where none of them is bridged."""
    body = fields_of(raw)
    docs = _value(body["docs"]) if body and "docs" in body else None
    if body is None or not isinstance(docs, list):
        return raw
    made: list[Any] = []
    for doc in docs:
        index = doc.get("_index", default) if isinstance(doc, dict) else None
        asked = of(index) if isinstance(index, str) else None
        made.append(asked.hiding(doc) if asked is not None else doc)
    return raw if made == docs else msgspec.json.encode({**body, "docs": made})


def _value(raw: Any) -> Any:
    return msgspec.json.decode(raw) if isinstance(raw, msgspec.Raw | bytes) else raw


def _whole(raw: Any, default: int) -> int:
    value = _value(raw)
    return value if isinstance(value, int) and 0 <= value <= 10_000 else default
