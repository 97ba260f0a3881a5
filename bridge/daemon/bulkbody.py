"""A `_bulk` request of an application ─▶ the same request, whose documents have vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from bridge.daemon.embedding import Embedding, PartialUpdate


@dataclass(slots=True)
class _Action:
    """An action, and the line that goes with it; `embedding` where that is a document of a bridged index."""

    head: bytes
    body: bytes | None = None
    embedding: Embedding | None = None
    kind: str = ""
    target: dict[str, Any] | None = None
    content: Any = None


def with_vectors(raw: bytes, default: str | None, of: Callable[[str], Embedding | None]) -> bytes:
    """The body of a `_bulk` request with vectors in the documents of bridged indices; all else byte for byte.

    Args:
        raw: NDJSON, as it came. What is none is left to the engine to refuse.
        default: the index that the path names.
        of: an index's name ─▶ how its documents get vectors; None for one that is not bridged.
    """
    try:
        # One for each index: its documents are encoded together.
        actions = list(_actions(raw, default, cache(of)))
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, TypeError):
        return raw
    changed = False
    for embedding in {id(one.embedding): one.embedding for one in actions if one.embedding}.values():
        mine = [one for one in actions if one.embedding is embedding]
        changed |= _embed(embedding, mine)
    if not changed:
        return raw
    return b"".join(b"%b\n" % line for one in actions for line in (one.head, one.body) if line is not None)


def _actions(raw: bytes, default: str | None, of: Callable[[str], Embedding | None]) -> Iterator[_Action]:
    lines = iter(raw.split(b"\n"))
    for head in lines:
        if not head.strip():
            continue
        ((kind, target),) = msgspec.json.decode(head).items()
        action = _Action(head, kind=kind, target=target)
        if kind != "delete":
            action.body = next(lines, None)
            index = target.get("_index", default)
            if action.body is not None and index is not None:
                action.embedding = of(index)
            if action.embedding and action.body is not None:
                action.content = msgspec.json.decode(action.body)
                if not isinstance(action.content, dict):
                    action.embedding = None
        yield action


def _embed(embedding: Embedding, actions: list[_Action]) -> bool:
    """Put vectors into the actions' bodies; whether any was changed."""
    whole = [one for one in actions if one.kind in ("index", "create")]
    for one, made in zip(whole, embedding.with_vectors([one.content for one in whole]), strict=True):
        one.body = msgspec.json.encode(made)
    parts = [one for one in actions if one.kind == "update" and isinstance(one.content.get("doc"), dict)]
    for one, update in zip(parts, embedding.with_updates([_update(one) for one in parts]), strict=True):
        if update is not None and (update.stored or one.content.get("doc_as_upsert")):
            # With a place in time engines take no upsert, and what is there needs none.
            left = one.content if update.stored is None else {k: v for k, v in one.content.items() if k == "_source"}
            one.content = {**left, **update.body}
            one.body = msgspec.json.encode(one.content)
            if update.stored:
                one.head = msgspec.json.encode({"update": _at(one.target or {}, update.stored)})
    # What is put in the place of a document that is not there.
    first = [one for one in actions if one.kind == "update" and isinstance(one.content.get("upsert"), dict)]
    for one, made in zip(first, embedding.with_vectors([one.content["upsert"] for one in first]), strict=True):
        one.body = msgspec.json.encode({**one.content, "upsert": made})
    return bool(whole or parts or first)


def _update(action: _Action) -> PartialUpdate:
    target = action.target or {}
    return PartialUpdate(str(target.get("_id", "")), target.get("routing"), action.content["doc"])


def _at(target: dict[str, Any], stored: tuple[int, int]) -> dict[str, Any]:
    """The action on a document that is still as it was read; asked again, it would be as it was read then."""
    kept = {name: value for name, value in target.items() if name not in ("retry_on_conflict", "_retry_on_conflict")}
    return {**kept, "if_seq_no": stored[0], "if_primary_term": stored[1]}
