"""A request, sent on to the engine as it came; its answer, as it comes. Both are streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import aiohttp
from starlette.types import Receive, Scope, Send
from yarl import URL

from bridge.daemon.bodies import Gone

_OWN = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade host expect".split()
)
"""Headers of one connection, and not of what is said over it (RFC 9110, 7.6.1)."""


class Forwarder:
    """Sends requests on.

    Args:
        upstream: the engine's URL, without a path of its own or with one that goes before every request's.
        session: whose connections are used; it must not decompress, nor add headers of its own.
    """

    def __init__(self, upstream: str, session: aiohttp.ClientSession) -> None:
        self._upstream = upstream.rstrip("/")
        self._session = session

    async def forward(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        body: bytes | None = None,
        query: bytes | None = None,
        without: Iterable[bytes] = (),
    ) -> int:
        """Send a request on, and its answer back; the answer's status.

        Args:
            body: in the place of the request's own, which is a stream by default.
            query: in the place of the request's own.
            without: headers that are left out.

        Raises:
            aiohttp.ClientError, TimeoutError: the engine is not reached; nothing was answered yet.
        """
        path = scope.get("raw_path") or scope["path"].encode()
        asked = scope["query_string"] if query is None else query
        target = path + b"?" + asked if asked else path
        url = URL(self._upstream + target.decode("latin-1"), encoded=True)
        left = _OWN | set(without) | ({b"content-length"} if body is not None else set())
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
                   if name not in left]  # fmt: skip
        data: bytes | AsyncIterator[bytes] | None = body
        if body is None and _has_body(scope):
            data = _stream(receive)
        async with self._session.request(
            scope["method"], url, headers=headers, data=data, allow_redirects=False
        ) as answer:
            raw = [(name.lower(), value) for name, value in answer.raw_headers if name.lower() not in _OWN]
            await send({"type": "http.response.start", "status": answer.status, "headers": raw})
            async for part in answer.content.iter_any():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            return answer.status


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )


async def _stream(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        if part := message.get("body", b""):
            yield part
        if not message.get("more_body"):
            return
