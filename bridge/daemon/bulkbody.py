"""A `_bulk` request of an application ─▶ the same request, whose documents have vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from bridge.daemon.bodies import read_json
from bridge.daemon.embedding import Embedding, PartialUpdate

Of = Callable[[str], Embedding | None]
"""An index's name ─▶ how its documents get vectors; None for one that is not bridged."""

_RETRIES = ("retry_on_conflict", "_retry_on_conflict")


@dataclass(slots=True, eq=False)
class Action:
    """An action, and the line that goes with it; `embedding` where that is a document of a bridged index."""

    head: bytes
    body: bytes | None = None
    embedding: Embedding | None = None
    kind: str = ""
    index: str = ""
    target: dict[str, Any] | None = None
    content: Any = None
    made: tuple[bytes, bytes] | None = None
    """Head and body in the place of those that came."""

    @property
    def lines(self) -> tuple[bytes, ...]:
        """As they are sent."""
        return self.made or ((self.head,) if self.body is None else (self.head, self.body))

    @property
    def id(self) -> str:
        """The document's id; empty where the engine gives it one."""
        found = (self.target or {}).get("_id")
        return str(found) if isinstance(found, str | int | float) else ""

    @property
    def change(self) -> dict[str, Any] | None:
        """Of a partial update that may change encoded text."""
        if self.embedding is None or self.kind != "update" or not self.id:
            return None
        found = self.content.get("doc")
        return found if isinstance(found, dict) and self.embedding.touches(found) else None

    @property
    def retries(self) -> int:
        """How often the update is to be tried again, should another writer come before it."""
        found = next((value for name in _RETRIES if (value := (self.target or {}).get(name)) is not None), 0)
        return found if isinstance(found, int) else 0


class BulkReader:
    """The actions of a `_bulk` body, that may come in pieces. What is none is left to the engine to refuse.

    Args:
        default: the index that the path names.
        of: how an index's documents get vectors.
    """

    def __init__(self, default: str | None, of: Of) -> None:
        # One for each index: its documents are encoded together.
        self._default, self._of = default, cache(of)
        self.rest = b""
        """What is no whole action yet; at the body's end, what is none."""
        self._unread = False

    def take(self, part: bytes) -> list[Action]:
        """The actions that are whole with this part."""
        *lines, end = (self.rest + part).split(b"\n")
        if self._unread:
            self.rest = end
            return [Action(line) for line in lines]
        actions: list[Action] = []
        place = 0
        try:
            for action in self._actions(lines):
                actions.append(action)
                place += 1 if action.body is None else 2
        except (ValueError, TypeError, AttributeError):
            # The engine refuses the whole of it, or what comes from here on.
            self._unread = True
        self.rest = b"\n".join([*lines[place:], end])
        return actions

    def _actions(self, lines: Sequence[bytes]) -> Iterator[Action]:
        rest = iter(lines)
        for head in rest:
            if not head.strip():
                yield Action(head)
                continue
            ((kind, target),) = read_json(head).items()
            if kind == "delete":
                yield Action(head, kind=kind, index=str(target.get("_index", self._default)), target=target)
                continue
            body = next(rest, None)
            if body is None:
                return
            yield self._with_body(head, body, kind, target)

    def _with_body(self, head: bytes, body: bytes, kind: str, target: Any) -> Action:
        index = target.get("_index", self._default)
        action = Action(head, body, kind=kind, index=str(index), target=target)
        embedding = self._of(index) if isinstance(index, str) else None
        if embedding is not None:
            try:
                action.content = read_json(body)
            except ValueError:
                return action
            action.embedding = embedding if isinstance(action.content, dict) else None
        return action


def written(actions: Iterable[Action]) -> bytes:
    """Actions as lines."""
    return b"".join(b"%b\n" % line for one in actions for line in one.lines)


def embed(actions: Sequence[Action]) -> bool:
    """Put vectors into the actions' bodies; whether any was changed. All else stays as it is, byte for byte."""
    for embedding in {id(one.embedding): one.embedding for one in actions if one.embedding}.values():
        _embed(embedding, [one for one in actions if one.embedding is embedding])
    return any(one.made for one in actions)


def in_rounds(actions: Iterable[Action]) -> list[list[Action]]:
    """Actions in the order in which they can be sent.

    A change of encoded text needs the document as it is then: where the same request has written it before, it comes in
    another round. Almost always there is one round.
    """
    rounds: list[list[Action]] = []
    latest: dict[tuple[str, str], int] = {}
    for one in actions:
        key = one.index, one.id
        number = latest.get(key, 0) + (1 if key in latest and one.change is not None else 0)
        if one.id:
            latest[key] = number
        while len(rounds) <= number:
            rounds.append([])
        rounds[number].append(one)
    return rounds


def spliced(raw: bytes, fields: dict[str, Any]) -> bytes:
    """A JSON object's bytes with more fields at its end; numbers keep the digits that they were written with."""
    if not fields:
        return raw
    head = raw.rstrip()[:-1].rstrip()
    return b"%b%b%b" % (head, b"" if head.endswith(b"{") else b",", msgspec.json.encode(fields)[1:])


def _embed(embedding: Embedding, actions: list[Action]) -> None:
    whole = [one for one in actions if one.kind in ("index", "create")]
    for one, fields in zip(whole, embedding.added([one.content for one in whole]), strict=True):
        if fields:
            one.made = one.head, spliced(one.body or b"", fields)
    parts = [one for one in actions if one.change is not None]
    for one, update in zip(parts, embedding.with_updates([_update(one) for one in parts]), strict=True):
        if update is None:
            continue
        if update.stored is not None:
            # With a place in time engines take no upsert, and what is there needs none.
            kept = {name: value for name, value in one.content.items() if name == "_source"}
            head = msgspec.json.encode({"update": _at(one.target or {}, update.stored)})
            one.made = head, msgspec.json.encode(kept | update.body)
        elif one.content.get("doc_as_upsert"):
            one.made = one.head, msgspec.json.encode(one.content | update.body)
    # What is put in the place of a document that is not there.
    first = [one for one in actions
             if one.kind == "update" and not one.made and isinstance(one.content.get("upsert"), dict)]  # fmt: skip
    for one, fields in zip(first, embedding.added([one.content["upsert"] for one in first]), strict=True):
        if fields:
            one.made = one.head, msgspec.json.encode({**one.content, "upsert": one.content["upsert"] | fields})


def _update(action: Action) -> PartialUpdate:
    routing = (action.target or {}).get("routing")
    return PartialUpdate(action.id, None if routing is None else str(routing), action.content["doc"])


def _at(target: dict[str, Any], stored: tuple[int, int]) -> dict[str, Any]:
    """The action on a document that is still as it was read; asked again, it would be as it was read then."""
    kept = {name: value for name, value in target.items() if name not in _RETRIES}
    # Where the application says itself at which place in time, it is that one.
    return {"if_seq_no": stored[0], "if_primary_term": stored[1], **kept}
