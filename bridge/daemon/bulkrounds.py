"""A `_bulk` request that is sent in several, one after the other; the application gets one answer."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from starlette.types import Scope

from bridge.daemon.bulkbody import Action, embed, in_rounds, written
from bridge.daemon.forwarding import Forwarder, Headers, Other


def needs_rounds(actions: Sequence[Action]) -> bool:
    """Whether documents are written and then changed, or changes are to be tried again: one request cannot do that."""
    changes = [one for one in actions if one.change is not None]
    return any(one.retries for one in changes) or (bool(changes) and len(in_rounds(actions)) > 1)


async def send_in_rounds(
    forwarder: Forwarder,
    scope: Scope,
    actions: Sequence[Action],
    rest: bytes,
    without: Sequence[bytes],
    aside: Callable[[Callable[[Sequence[Action]], bool], Sequence[Action]], Awaitable[bool]],
) -> tuple[int, Headers, bytes]:
    """Send the actions, each with the vector of what is stored then: status, headers and body of the one answer.

    Args:
        forwarder: sends.
        scope: the request.
        actions: all of it.
        rest: what came after them, and is none.
        without: headers that are left out.
        aside: calls what waits for the engine.
    """
    rounds = deque(in_rounds(actions))
    items: dict[int, Any] = {}
    tries: Counter[int] = Counter()
    answer: dict[str, Any] = {}
    headers: Headers = ()
    took = 0
    while rounds:
        now = [one for one in rounds.popleft() if one.kind or not answer]
        await aside(embed, now)
        body = written(now) + (b"" if answer else rest)
        status, headers, raw = await forwarder.ask(scope, Other(body, without=(*without, b"accept-encoding")))
        given = _object(raw) if status == 200 else None
        if given is None:
            if not answer:
                return status, headers, raw
            # What has been done stays done: of the others each is told what became of it.
            failed = [one for several in ([now], rounds) for some in several for one in some if one.kind]
            items |= {id(one): _failed(one, status, raw) for one in failed}
            headers = [pair for pair in headers if pair[0] != b"content-type"]
            headers.append((b"content-type", b"application/json"))
            break
        answer = given | answer
        took += given.get("took", 0)
        done = [one for one in now if one.kind]
        again: list[Action] = []
        for one, item in zip(done, given.get("items", ()), strict=False):
            if one.made and one.change is not None and _status(item) == 409 and tries[id(one)] < one.retries:
                tries[id(one)] += 1
                again.append(one)
            else:
                items[id(one)] = item
        if again:
            rounds.appendleft(again)
    if "took" in answer:
        answer["took"] = took
    if "errors" in answer:
        answer["errors"] = any(_status(item) >= 400 for item in items.values())
    if "items" in answer:
        answer["items"] = [items[id(one)] for one in actions if id(one) in items]
    return 200, headers, msgspec.json.encode(answer)


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _status(item: Any) -> int:
    (result,) = item.values() if isinstance(item, dict) and len(item) == 1 else ({},)
    return int(result.get("status", 0))


def _failed(one: Action, status: int, raw: bytes) -> dict[str, Any]:
    error = (_object(raw) or {}).get("error") or {"type": "bridge_exception", "reason": f"HTTP {status}"}
    return {one.kind: {"_index": one.index, "_id": one.id or None, "status": status, "error": error}}
