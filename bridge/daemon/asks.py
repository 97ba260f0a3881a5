"""What an application asks of bridged indices ─▶ the same, asked of vectors."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.types import Receive, Scope, Send

from bridge.daemon.forwarding import Other
from bridge.daemon.messages import Asking
from bridge.daemon.searchbody import Asked, Fields, fields_of, mget, msearch, says_what
from bridge.daemon.taken import Taker, pairs, take, with_more
from bridge.indexmodel import IndexModel

_PLAIN = Asking()
_SHORT = 4_000
"""Bytes of a body that may be read in the event loop's own time."""


class Asks(Taker):
    """Takes in hand what is asked of `indexes`."""

    def _asked(self, index: str) -> Asked | None:
        model = self._service.model_of(index) if index in self._indexes else None
        if model is None:
            return None

        def ask(text: str, size: int) -> dict[str, Any]:
            way = self._service.known_way(_PLAIN, index) or self._service.way(_PLAIN, index)
            return way.rewriter.query(way.rewriter.encode(text), size=size)

        return Asked(model, ask)

    def _at_hand(self, index: str) -> bool:
        """Whether a question is rewritten in less time than it takes to hand it to another thread."""
        way = self._service.known_way(_PLAIN, index)
        return way is not None and way.light and self._service.known_model(index) is not None

    async def search(self, index: str, scope: Scope, receive: Receive, send: Send, *, hits: bool = True) -> None:
        """`_search`; without `hits` also `_count` and `_explain`, which have a query, too."""
        came = await take(scope, receive, self._most)
        asked = pairs(scope)
        query = dict(asked)
        plain = came.plain
        in_url = plain is not None and not plain.strip() and "source" in query
        given = query["source"].encode() if in_url else plain

        def made() -> tuple[Fields | None, Fields | None, IndexModel | None]:
            fields = fields_of(given) if given is not None else None
            found = self._asked(index)
            changed = found.search(fields) if found and fields and "q" not in query else fields
            return fields, changed, found.model if found else None

        light = self._at_hand(index) and len(given or b"") < _SHORT
        fields, changed, model = made() if light else await self._aside(made)
        hidden = hits and model is not None and fields is not None and not says_what(query, fields)
        hiding = _hiding(model) if hidden else b""
        if changed is fields:
            other = came.other(None, with_more(scope["query_string"], hiding))
        elif in_url:
            # There a sparse query has no room: it becomes the body.
            kept = urlencode([pair for pair in asked if pair[0] not in ("source", "source_content_type")]).encode()
            kind = query.get("source_content_type", "application/json").encode()
            other = came.other(
                msgspec.json.encode(changed), with_more(kept, hiding) or kept, ((b"content-type", kind),)
            )
        else:
            other = came.other(msgspec.json.encode(changed), with_more(scope["query_string"], hiding))
        await self._forwarder.forward(scope, receive, send, other)

    async def msearch(self, default: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        """`_msearch`."""
        came = await take(scope, receive, self._most)
        body = await self._aside(msearch, came.plain, default, self._asked) if came.plain else None
        await self._forwarder.forward(scope, receive, send, came.other(body))

    async def mget(self, default: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        """`_mget`, whose documents come without what the bridge keeps in them."""
        came = await take(scope, receive, self._most)
        if not came.plain or says_what(dict(pairs(scope))):
            body, hiding = None, b""
        else:
            body = await self._aside(mget, came.plain, default, self._asked)
            # Those that are named by their ids alone are all of the path's index.
            fields = fields_of(came.plain)
            alone = default is not None and fields is not None and "docs" not in fields
            asked = await self._aside(self._asked, default) if alone else None
            hiding = _hiding(asked.model if asked else None)
        await self._forwarder.forward(scope, receive, send, came.other(body, with_more(scope["query_string"], hiding)))

    async def stored(self, index: str, scope: Scope, receive: Receive, send: Send) -> None:
        """A document, without what the bridge keeps in it."""
        model = None
        if not says_what(dict(pairs(scope))):
            model = self._service.known_model(index) or await self._aside(self._service.model_of, index)
        query = with_more(scope["query_string"], _hiding(model))
        await self._forwarder.forward(scope, receive, send, Other(query=query))


def _hiding(model: IndexModel | None) -> bytes:
    return urlencode({"_source_excludes": ",".join(model.own_fields)}).encode() if model else b""
